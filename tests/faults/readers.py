"""Every reader of files of others, with small files for it."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import h5py
import numpy as np
import torch
from PIL import Image
from torch import nn

from limner.apps.cli import main
from limner.apps.shared import journal
from limner.comparison.compared_runs import read_compared_runs
from limner.convert import SYSTEMS
from limner.core.types import Layout, Medium
from limner.data.archives import media_of_archive
from limner.data.captions_file import read_captions
from limner.data.datasets import DataConfig, read_dataset
from limner.data.feature_files import FeatureFiles
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from limner.data.regions import read_region_folder, read_region_tsv, store_regions
from limner.data.shapes import load_world, read_truth
from limner.data.split_lists import read_split_lists
from limner.data.store import FeatureStore, StoreWriter
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline
from limner.runs.package import open_package, pack
from limner.runs.recipe_file import load_recipe
from limner.runs.run import load_run
from limner.text.vectors import load_vectors
from limner.text.vocabulary import Vocabulary
from tests.convert.test_refusals import convert, written
from tests.data import prepared
from tests.data.test_regions import draw, row
from tests.data.videos import noise
from tests.data.videos import write as write_clip

FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "format1"
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
CLIPS = {  # ending -> (container, codec)
    "mp4": ("mp4", "mpeg4"), "mkv": ("matroska", "libx264"), "avi": ("avi", "mpeg4"), "ts": ("mpegts", "mpeg2video"),
    "webm": ("webm", "libvpx"), "flv": ("flv", "flv"), "mpg": ("mpeg", "mpeg1video"), "wmv": ("asf", "wmv2"),
    "mov": ("mov", "libx264"),
}  # fmt: skip
IMAGES = {
    "jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF", "bmp": "BMP", "ppm": "PPM",
    "avif": "AVIF", "tga": "TGA", "ico": "ICO", "jp2": "JPEG2000",
}  # fmt: skip


class Reader(NamedTuple):
    """A reader and the files of which one is damaged.

    read    reads them -> what was read; it raises, or the status of a command is another
    sealed  the files have checksums: what is read is what was written, or is refused
    """

    name: str
    files: list[Path]
    read: Callable[[], Any]
    sealed: bool = False


CAPTIONS = {
    "results.json": b'[{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}]',
    "coco.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
            "annotations": [{"image_id": k, "id": k, "caption": "a dog"} for k in (1, 2)],
        }
    ).encode(),
    "karpathy.json": json.dumps(
        {
            "images": [
                {"filename": "a.jpg", "imgid": 0, "split": "train", "sentences": [{"raw": "a dog", "tokens": ["a"]}]},
                {"filename": "b.jpg", "imgid": 1, "split": "restval", "sentences": [{"raw": "a cat", "tokens": []}]},
            ]
        }
    ).encode(),
    "msrvtt.json": json.dumps(
        {
            "videos": [{"video_id": "video0", "split": "train", "id": 0, "category": 1}],
            "sentences": [{"video_id": "video0", "sen_id": 0, "caption": "a dog"}],
        }
    ).encode(),
    "vatex.json": b'[{"videoID": "x_000001_000011", "enCap": ["a dog", "the dog"], "chCap": ["x"]}]',
    "timed.json": b'{"v_1": {"duration": 9.5, "timestamps": [[0, 2.5], [3, 9]], "sentences": ["a dog", "a cat"]}}',
    "object.json": b'{"1": ["a dog", "the dog"], "2": "a cat"}',
    "rows.jsonl": b'{"file": "a.png", "caption": "a dog"}\n{"file": "b.png", "caption": ["a", "b"], "split": "val"}\n',
    "table.csv": b'file,caption,split\na.png,"a dog, here",train\nb.png,["a cat"],dev\n',
    "table.tsv": b"image_id\tcaption\n1\ta dog\n2\ta cat\n",
    "pipes.csv": b"image_name| comment_number| comment\na.jpg| 0| a dog\na.jpg| 1| the dog\n",
    "flickr.token": b"a.jpg#0\ta dog\na.jpg#1\tthe dog\nb.jpg#0\ta cat\n",
    "lines.txt": b"vid1\ta dog\nvid2\ta cat\n",
    "utf16.csv": "file,caption\na.png,a dog\n".encode("utf-16"),
    "packed.json.gz": gzip.compress(b'[{"image_id": 1, "caption": "a dog"}]'),
}


def captions(folder: Path) -> Iterator[Reader]:
    files = {**CAPTIONS, "packed.zip": zipped({"c.json": CAPTIONS["results.json"]})}
    for name, data in files.items():
        path = folder / name
        path.write_bytes(data)
        yield Reader(f"captions {name}", [path], lambda path=path: read_captions(path))
    own = [{"file": f"{k}.png", "caption": "a dog", "logprob": -1.5, "finished": True} for k in range(3)]
    for ending, write in journal.WRITERS.items():
        path = folder / f"own{ending}"
        path.write_text(write(own))
        yield Reader(f"resume {ending}", [path], lambda path=path: journal.finished_rows(path))
    side = folder / "x.csv.partial"
    side.write_text(journal.to_jsonl([{"model": "00", "decoding": {}}, *own]))
    yield Reader("resume partial", [side], lambda: journal.check_output(folder / "x.csv", False, False))


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def run_files(folder: Path, tiny: Path) -> Iterator[Reader]:
    """A run, a packed model, an exported model: what they caption."""
    run = copied(tiny / "run", folder / "run")
    recipe = copied_file(tiny / "tiny.yaml", folder / "r.yaml")
    yield Reader("recipe.yaml", [recipe], lambda: load_recipe(recipe))
    loaded = [run / name for name in ("run.json", "recipe.json", "vocabulary.json", "model.safetensors")]
    yield Reader("run", loaded, lambda: Pipeline.load(run).caption(PICTURE).text)
    (run / "captions.json").write_text('[{"image_id": 1, "caption": "a dog"}]')
    (run / "scores.json").write_text('{"scores": {"CIDEr": 0.5}, "segments": {}, "split": "val"}')
    compared = [run / name for name in ("captions.json", "scores.json", "recipe.json")]
    yield Reader("compared run", compared, lambda: read_compared_runs([str(run), str(run)]))
    train = ["train", str(tiny / "tiny.yaml"), "--out", str(run), "--seed", "1", "--frames=4", "--resume"]
    state = [run / name for name in ("last.safetensors", "log.jsonl", "recipe.json")]
    yield Reader("resumed training", state, lambda: main(train))
    model = pack(load_run(tiny / "run"), folder / "m.limner")
    files = sorted(model.iterdir())
    yield Reader("packed model", files, lambda: Pipeline.load(open_package(model)).caption(PICTURE).text, True)
    export = copied(FORMAT_1 / "exported", folder / "exported")
    yield Reader(
        "exported model", sorted(export.iterdir()), lambda: OnnxPipeline.load(export).caption(PICTURE).text, True
    )


def copied(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            copied_file(path, target / path.name)
    return target


def copied_file(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


def stores(folder: Path) -> Iterator[Reader]:
    store = folder / "store"
    writer = StoreWriter(store, {"name": "x"}, 2)
    for k in range(5):
        writer.add(f"m{k}", "full", torch.randn(4, 3), Layout(1, 2, 2), torch.rand(4, 4))
    writer.finish()

    def read() -> Any:
        opened = FeatureStore(store)
        return {id: [x.tolist() for x in (opened.get(id)[0], opened.get(id)[2])] for id in opened.ids}

    yield Reader("store", sorted(store.iterdir()), read, True)
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for name in ("npy", "npz", "pth"):
        (folder / name).mkdir()
    np.save(folder / "npy" / "v1.npy", features)
    np.savez(folder / "npz" / "v1.npz", features=features, boxes=np.ones((5, 4), np.float32))
    torch.save(torch.from_numpy(features), folder / "pth" / "v1.pth")
    with h5py.File(folder / "f.h5", "w") as file:
        file["v1"] = features
    for path in (folder / "npy" / "v1.npy", folder / "npz" / "v1.npz", folder / "pth" / "v1.pth", folder / "f.h5"):
        source = path if path.suffix == ".h5" else path.parent
        read_one = lambda source=source: FeatureFiles([source], FrameSampling(4)).read([(Medium("v1", ""), "full")])  # noqa: E731
        yield Reader(f"features {path.suffix}", [path], read_one)
    yield Reader(
        "regions npz", [folder / "npz" / "v1.npz"], lambda: [e.load() for e in read_region_folder(folder / "npz")]
    )
    tsv = row("42", *draw(3, 0)) + row("43", *draw(4, 1))
    for path, data in ((folder / "r.tsv", tsv), (folder / "r.zip", zipped({"a.tsv": tsv}))):
        path.write_bytes(data)
        out = folder / f"{path.name}.store"
        yield Reader(
            f"regions {path.suffix}", [path], lambda path=path, out=out: store_regions(read_region_tsv([path]), out)
        )


def media(folder: Path) -> Iterator[Reader]:
    for ending, format in IMAGES.items():
        path = folder / f"a.{ending}"
        Image.fromarray(PICTURE).save(path, format)
        yield Reader(f"image {ending}", [path], lambda path=path: read_medium(path))
    animation = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1])]
    for ending, format in (("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG")):
        path = folder / f"two.{ending}"
        animation[0].save(path, format, save_all=True, append_images=animation[1:], duration=100)
        yield Reader(f"animation {ending}", [path], lambda path=path: read_medium(path))
    for ending, (container, codec) in CLIPS.items():
        path = folder / f"c.{ending}"
        with av.open(str(path), "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for picture in noise(12):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                file.mux(stream.encode(frame.reformat(64, 48)))
            file.mux(stream.encode())
        yield Reader(f"clip {ending}", [path], lambda path=path: read_medium(path, FrameSampling(4)))
    tar = prepared.write_tar(folder / "t.tar", {f"{k}.png": prepared.encoded("red") for k in range(3)})
    packed = prepared.write_tar(folder / "t.tar.gz", {"a.png": prepared.encoded("red")}, "w:gz")
    with h5py.File(folder / "i.hdf5", "w") as file:
        file["images"] = np.stack([PICTURE, PICTURE])
    for path in (tar, packed, folder / "i.hdf5"):
        yield Reader(f"archive {path.name}", [path], lambda path=path: [*map(read_medium, media_of_archive(path)[0])])


def datasets(folder: Path) -> Iterator[Reader]:
    cases = {"webdataset": prepared.write_webdataset, "parquet": prepared.write_parquet,
             "cocotalk": prepared.write_cocotalk, "show_attend_tell": prepared.write_show_attend_tell}  # fmt: skip
    for name, write in cases.items():
        root = write(folder / name)
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".png"]
        config = DataConfig(name, str(root), str(root) if name in ("cocotalk", "show_attend_tell") else "")
        yield Reader(f"dataset {name}", files, lambda config=config: read_all(config))
    msrvtt = folder / "msrvtt"
    msrvtt.mkdir()
    (msrvtt / "train_val_videodatainfo.json").write_bytes(CAPTIONS["msrvtt.json"])
    (msrvtt / "test.zip").write_bytes(
        zipped({"test_videodatainfo.json": CAPTIONS["msrvtt.json"], "category.txt": b"a\t1\n"})
    )
    config = DataConfig("msrvtt", str(msrvtt), str(msrvtt))
    yield Reader("dataset msrvtt", sorted(msrvtt.iterdir()), lambda: read_dataset(config))
    assert main(["shapes", "--out", str(folder / "w"), "--images", "2", "--size", "32"]) == 0
    truth = folder / "w" / "truth.json"
    yield Reader("micro-world", [truth], lambda: (load_world(folder / "w"), read_truth(folder / "w")))
    lists = folder / "lists"
    lists.mkdir()
    (lists / "train.json").write_text('["a", "b", 3]')
    (lists / "val.txt").write_text("c\nd\n")
    yield Reader("split lists", sorted(lists.iterdir()), lambda: read_split_lists(lists))
    words = Vocabulary.build(["a dog cat"], 1)
    text = b"a 0.1 0.2 0.3\ndog 1 2 3\ncat 3 4 5\n"
    for name, data in (("v.txt", text), ("v.txt.gz", gzip.compress(text)), ("v.zip", zipped({"v.txt": text}))):
        (folder / name).write_bytes(data)
        read = lambda name=name: load_vectors(folder / name, words, nn.Embedding(len(words), 3))  # noqa: E731
        yield Reader(f"vectors {name}", [folder / name], read)


def read_all(config: DataConfig) -> Any:
    """The data set, and its first medium."""
    read = read_dataset(config)
    return read, read_medium(read.media[0])


def checkpoints(folder: Path) -> Iterator[Reader]:
    for system in SYSTEMS:
        checkpoint, words = written(system, folder / system)
        out = folder / f"{system}.run"
        files = sorted(path for path in checkpoint.parent.iterdir() if path.is_file())
        read = lambda s=system, c=checkpoint, w=words, o=out: convert(s, c, w, o)  # noqa: E731
        yield Reader(f"checkpoint {system}", files, read)
        legacy = folder / f"{system}-legacy"
        legacy.mkdir()
        for path in files:
            copied_file(path, legacy / path.name)
        torch.save(
            torch.load(checkpoint, weights_only=True), legacy / checkpoint.name, _use_new_zipfile_serialization=False
        )
        read = lambda s=system, c=legacy / checkpoint.name, w=words, o=out: convert(s, c, w, o)  # noqa: E731
        yield Reader(f"legacy checkpoint {system}", [legacy / checkpoint.name], read)


def commands(folder: Path, tiny: Path) -> Iterator[Reader]:
    """The command line with damaged files of each kind: it ends with a status, and one of them is no traceback."""
    run, image, clip = str(tiny / "run"), folder / "a.png", folder / "c.mkv"
    Image.fromarray(PICTURE).save(image)
    write_clip(clip, noise(6))
    rows = [{"file": str(image), "captions": ["a dog runs", "the dog"]}, {"file": str(clip), "captions": ["a cat"]}]
    data, page, part, watched = folder / "d.jsonl", folder / "p.html", folder / "part.csv", folder / "w" / "state"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page.write_text('<html><img src="a.png"><p>a<img src="a.png" alt=""></html>')
    watched.parent.mkdir()
    made = ["watch", str(watched.parent), "--state", str(watched), "--once", "--settle", "0.01", "--interval", "0.01"]
    made += ["--model", run, "--out", str(folder / "w.jsonl")]
    copied_file(image, watched.parent / "b.png")
    assert main(["caption", str(image), "--model", run, "--part", "1/1", "--out", str(part)]) == 0
    assert main(made) == 0
    store, packed = folder / "s", folder / "m.limner"
    assert main(["extract", run, "--out", str(store)]) == 0
    assert main(["pack", run, "--out", str(packed)]) == 0
    scored = ["score", "--candidates", str(data), "--references", str(data), "--metrics", "BLEU-1"]
    cases: dict[str, tuple[list[Path], list[str]]] = {
        "caption image": ([image], ["caption", str(image), "--model", run]),
        "caption clip": ([clip], ["caption", str(clip), "--model", run, "--srt", str(folder / "c.srt"), "--overwrite"]),
        "caption --exif": ([image], ["caption", str(image), "--model", run, "--exif", "--existing", "overwrite"]),
        "score": ([data], scored),
        "check": ([data], ["check", str(data), "--fix", str(folder / "f.jsonl"), "--overwrite"]),
        "init": ([data], ["init", str(data), "--out", str(folder / "r.yaml"), "--overwrite"]),
        "alt": ([page], ["alt", str(page), "--model", run, "--write", "--empty"]),
        "merge": (
            [part, folder / "part.csv.part.json"],
            ["merge", str(part), "--out", str(folder / "all.csv"), "--overwrite"],
        ),
        "watch": ([watched], made),
        "extract --verify": (sorted(store.iterdir()), ["extract", "--verify", "--out", str(store)]),
        "pack --verify": (sorted(packed.iterdir()), ["pack", str(packed), "--verify"]),
    }
    for name, (files, words) in cases.items():
        yield Reader(f"command {name}", files, lambda words=words: ended(words))


def ended(words: list[str]) -> int:
    """The status of a command."""
    try:
        status = main(words)
    except SystemExit as error:
        status = int(error.code or 0)
    assert status in (0, 1, 2, 3), status
    return status


def all_readers(folder: Path, tiny: Path) -> list[Reader]:
    """All readers, each with its files in a folder of its own."""
    made: list[Reader] = []
    for make in (captions, stores, media, datasets, checkpoints):
        (folder / make.__name__).mkdir()
        made += make(folder / make.__name__)
    for name in ("runs", "commands"):
        (folder / name).mkdir()
    return [*made, *run_files(folder / "runs", tiny), *commands(folder / "commands", tiny)]
