"""Reader of what create_input_files.py of a-PyTorch-Tutorial-to-Image-Captioning writes, for Show, Attend and Tell.

TRAIN_IMAGES_BASE.hdf5    `images` (I, 3, 256, 256) uint8, with the attribute `captions_per_image`
TRAIN_CAPTIONS_BASE.json  encoded captions, `captions_per_image` for each image, in the order of the images
TRAIN_CAPLENS_BASE.json   their lengths, start and end included
WORDMAP_BASE.json         {word: number}; VAL and TEST have files like TRAIN
"""

from pathlib import Path
from typing import Any

from limner.core.files import read_json
from limner.core.torch_free import Medium
from limner.data.dataset import Dataset, drop_empty_captions
from limner.data.stored_images import BGR, StoredImages, reading_hdf5

SPLITS = {"TRAIN": "train", "VAL": "val", "TEST": "test"}
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
UNKNOWN = "unk"  # how an unknown word is written in a caption, and in captions that a run generates
EXPECTED = (
    "WORDMAP_BASE.json, and for each split TRAIN_IMAGES_BASE.hdf5, TRAIN_CAPTIONS_BASE.json, TRAIN_CAPLENS_BASE.json"
)


def read(folder: str | Path, channels: str = "RGB") -> Dataset:
    """Read the splits, captions and words in `folder`.

    The ids are train-0, train-1, ... in the order of the files, which name no images.  `channels` is BGR for files of
    the variants that read images with cv2.  Raises FileNotFoundError or ValueError when files are missing or do not
    belong together.
    """
    folder = Path(folder)
    maps = sorted(folder.glob("WORDMAP_*.json"))
    if len(maps) != 1:
        raise FileNotFoundError(f"'{folder}' holds {len(maps)} files WORDMAP_BASE.json, expected one: {EXPECTED}")
    base = maps[0].stem.removeprefix("WORDMAP_")
    words = _words(maps[0])
    media = [medium for name in SPLITS for medium in _split(folder, base, name, words, channels)]
    if not media:
        raise FileNotFoundError(f"'{folder}' holds no TRAIN_IMAGES_{base}.hdf5; expected {EXPECTED}")
    cleaned = drop_empty_captions(media)
    kept = tuple(word for _, word in sorted(words.items()) if word not in SPECIAL)
    return Dataset(cleaned.media, cleaned.problems, words=kept)


def _words(path: Path) -> dict[int, str]:
    """Number -> word.  Raises ValueError when the file is no word map."""
    saved = read_json(path)
    if not isinstance(saved, dict) or not all(type(number) is int for number in saved.values()):
        raise ValueError(f"{path} is not a word map; expected {{word: number}}")
    if absent := [word for word in SPECIAL if word not in saved]:
        raise ValueError(f"{path} has no {absent[0]}; expected a word map with {', '.join(SPECIAL)}")
    words = {number: word for word, number in saved.items()}
    if len(words) < len(saved):
        raise ValueError(f"{path}: two words have the same number; expected a number per word")
    return words


def _split(folder: Path, base: str, name: str, words: dict[int, str], channels: str) -> list[Medium]:
    """The media of one split; [] when the folder has no images of it."""
    images = folder / f"{name}_IMAGES_{base}.hdf5"
    if not images.is_file():
        return []
    count = StoredImages(images).counts.get("images", 0)
    with reading_hdf5(images) as file:
        per_image = int(file.attrs.get("captions_per_image", 0))
    captions, lengths = (read_json(folder / f"{name}_{kind}_{base}.json") for kind in ("CAPTIONS", "CAPLENS"))
    if not count or not per_image or not len(captions) == len(lengths) == count * per_image:
        raise ValueError(
            f"{images} has {count} images with {per_image} captions each, and {len(captions)} captions with "
            f"{len(lengths)} lengths stand beside it: the files do not belong together"
        )
    order = f"/{BGR}" if channels == BGR else ""
    media = []
    for row in range(count):
        own = range(row * per_image, (row + 1) * per_image)
        texts = [_text(captions[k], lengths[k], words, images) for k in own]
        media.append(Medium(f"{SPLITS[name]}-{row}", f"{images}/images/{row}{order}", SPLITS[name], tuple(texts)))
    return media


def _text(numbers: list[Any], length: int, words: dict[int, str], where: Path) -> str:
    """The words of an encoded caption, without start, end and padding."""
    try:
        known = [words[number] for number in numbers[:length]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the captions of {where} have the word {error}, which the word map lacks") from error
    return " ".join(UNKNOWN if word == "<unk>" else word for word in known if word not in SPECIAL[:3])
