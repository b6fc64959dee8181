"""Tiny data sets in the layouts of others: colours that a caption names, in train, val and test."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}
SPLITS = {"train": 6, "val": 3, "test": 3}  # split -> images


def samples() -> list[tuple[str, str, str]]:
    """(split, colour, caption) of every medium, in the order of the splits."""
    names = list(COLOURS)
    return [(split, names[k % 3], f"a {names[k % 3]} wall") for split, count in SPLITS.items() for k in range(count)]


def pixels(colour: str, side: int = 16) -> np.ndarray:
    """An image of one colour."""
    return np.full((side, side, 3), COLOURS[colour], np.uint8)


def encoded(colour: str, format: str = "PNG") -> bytes:
    """The bytes of an image file of one colour."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(colour)).save(buffer, format)
    return buffer.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    """A tar with these files."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_webdataset(folder: Path) -> Path:
    """A tar per split; captions are text in train, JSON elsewhere."""
    folder.mkdir()
    for split in SPLITS:
        files: dict[str, bytes] = {}
        for k, (_, colour, caption) in enumerate(each for each in samples() if each[0] == split):
            files[f"{k:06d}.png"] = encoded(colour)
            if split == "train":
                files[f"{k:06d}.txt"] = caption.encode()
            else:
                files[f"{k:06d}.json"] = json.dumps({"caption": caption}).encode()
        write_tar(folder / f"{split}-000000.tar", files)
    return folder


def write_frames(folder: Path) -> Path:
    """A folder of three frames per clip, captions beside it."""
    for k, (split, colour, caption) in enumerate(samples()):
        clip = folder / split / f"video{k}"
        clip.mkdir(parents=True)
        for number in range(3):
            (clip / f"{number}.png").write_bytes(encoded(colour))
        (folder / split / f"video{k}.txt").write_text(caption)
    return folder


WORDS = ("a", "blue", "green", "red", "wall")


def write_cocotalk(folder: Path) -> Path:
    """`cocotalk.json`, `cocotalk_label.h5` and the images that the first one names; one caption each."""
    folder.mkdir()
    ids = {word: number for number, word in enumerate((*WORDS, "UNK"), 1)}
    images, rows = [], []
    for k, (split, colour, caption) in enumerate(samples()):
        (folder / f"{k}.png").write_bytes(encoded(colour))
        images.append({"split": split, "file_path": f"{k}.png", "id": 100 + k})
        row = [ids[word] for word in caption.split()]
        rows.append(row + [0] * (16 - len(row)))
    (folder / "cocotalk.json").write_text(
        json.dumps({"ix_to_word": {str(number): word for word, number in ids.items()}, "images": images})
    )
    with h5py.File(folder / "cocotalk_label.h5", "w") as file:
        file["labels"] = np.array(rows, np.uint32)
        file["label_start_ix"] = file["label_end_ix"] = np.arange(1, len(rows) + 1, dtype=np.uint32)
        file["label_length"] = np.full(len(rows), 3, np.uint32)
    return folder


def write_show_attend_tell(folder: Path) -> Path:
    """The files of create_input_files.py, with two captions per image, the second of them with an unknown word."""
    folder.mkdir()
    base = "coco_2_cap_per_img_5_min_word_freq"
    ids = {word: number for number, word in enumerate((*WORDS, "<unk>", "<start>", "<end>"), 1)} | {"<pad>": 0}
    (folder / f"WORDMAP_{base}.json").write_text(json.dumps(ids))
    for split in SPLITS:
        own = [each for each in samples() if each[0] == split]
        captions = []
        for _, _, caption in own:
            for text in (caption, caption.replace("wall", "<unk>")):
                row = [ids[word] for word in ("<start>", *text.split(), "<end>")]
                captions.append(row + [0] * (8 - len(row)))
        name = split.upper()
        (folder / f"{name}_CAPTIONS_{base}.json").write_text(json.dumps(captions))
        (folder / f"{name}_CAPLENS_{base}.json").write_text(json.dumps([5] * len(captions)))
        with h5py.File(folder / f"{name}_IMAGES_{base}.hdf5", "w") as file:
            file.attrs["captions_per_image"] = 2
            file["images"] = np.stack([pixels(colour).transpose(2, 0, 1) for _, colour, _ in own])
    return folder


def write_parquet(folder: Path) -> Path:
    """A Parquet file per split, with the columns of `datasets`: image {bytes, path} and a list of captions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for split in SPLITS:
        own = [each for each in samples() if each[0] == split]
        images = [{"bytes": encoded(colour), "path": None} for _, colour, _ in own]
        table = pa.table({"image": images, "caption": [[caption] for _, _, caption in own]})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=2)
    return folder


def write_saved_to_disk(folder: Path) -> Path:
    """What `DatasetDict.save_to_disk` writes: Arrow streams, state.json, dataset_dict.json."""
    import pyarrow as pa

    for split in SPLITS:
        own = [each for each in samples() if each[0] == split]
        images = [{"bytes": encoded(colour), "path": f"{split}{k}.png"} for k, (_, colour, _) in enumerate(own)]
        table = pa.table({"image": images, "text": [caption for _, _, caption in own]})
        (folder / split).mkdir(parents=True)
        with pa.ipc.new_stream(str(folder / split / "data-00000-of-00001.arrow"), table.schema) as stream:
            stream.write_table(table, 2)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_data_files": None}
        (folder / split / "state.json").write_text(json.dumps(state))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(SPLITS)}))
    return folder
