"""Reader of `cocotalk.json` and `cocotalk_label.h5`, which prepro_labels.py of ImageCaptioning.pytorch writes.

The files of self-critical.pytorch, Up-Down and X-LAN have this layout.  The captions are those of the label file:
words that were rare then are unknown, and captions end after so many words as the label file has columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limner.core.files import read_json
from limner.core.messages import short_repr
from limner.core.torch_free import Medium
from limner.data.dataset import Dataset, drop_empty_captions
from limner.data.stored_images import reading_hdf5

LABELS = ("labels", "label_start_ix", "label_end_ix", "label_length")
UNKNOWN = "unk"  # how an unknown word is written in a caption, and in captions that a run generates
EXPECTED = "cocotalk.json with ix_to_word and images[{split, id}], and cocotalk_label.h5 beside it"


def read(annotations: str | Path, media: str | Path, restval: bool = True) -> Dataset:
    """Read `annotations`, the JSON file or the folder of both files, with its splits, captions and words.

    `restval` images join the training split, or are left out when `restval` is False.  The label file is
    NAME_label.h5 beside NAME.json, or the only file `*_label.h5` there.  Raises FileNotFoundError or ValueError when a
    file is missing, or is of another layout than the other.
    """
    path = _json_file(Path(annotations))
    saved = read_json(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("ix_to_word"), dict) or "images" not in saved:
        raise ValueError(f"{path} is not a prepared file of prepro_labels.py; expected {EXPECTED}")
    words = _words(saved["ix_to_word"], path)
    images = saved["images"]
    if not isinstance(images, list):
        raise ValueError(f"{path}: expected a list of images, got {short_repr(images, 60)}")
    labels_file = _labels_file(path)
    with reading_hdf5(labels_file) as file:
        if absent := [name for name in LABELS if name not in file]:
            raise ValueError(f"{labels_file} has no dataset {', '.join(absent)}; expected {', '.join(LABELS)}")
        labels, starts, ends, lengths = (np.asarray(file[name][()]) for name in LABELS)
    if not len(images) == len(starts) == len(ends) or len(labels) != len(lengths) or labels.ndim != 2:
        raise ValueError(
            f"{path} has {len(images)} images and {labels_file} captions of {len(starts)}: they do not belong together"
        )
    if labels.size and (labels.max() > len(words) or ends.max() > len(labels)):
        raise ValueError(
            f"{labels_file} has word {labels.max()} and {path} {len(words)} words: they do not belong together"
        )
    try:
        entries = _entries(images, labels, starts, ends, lengths, words, media, restval)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} and {labels_file} do not fit together ({error!r}); expected {EXPECTED}") from error
    cleaned = drop_empty_captions(entries)
    kept = tuple(word for word in words if word != UNKNOWN)
    return Dataset(cleaned.media, cleaned.problems, words=kept)


def _entries(
    images: Any,
    labels: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    lengths: np.ndarray,
    words: Sequence[str],
    media: str | Path,
    restval: bool,
) -> list[Medium]:
    """The images with their captions."""
    entries = []
    for image, start, end in zip(images, starts.tolist(), ends.tolist(), strict=True):
        split = str(image.get("split", ""))
        if split == "restval" and not restval:
            continue
        rows = range(max(0, start - 1), end)  # from 1, the last one included
        texts = tuple(" ".join(words[i - 1] for i in labels[row, : lengths[row]].tolist() if i) for row in rows)
        name = str(image.get("file_path") or image.get("filename") or f"{image['id']}.jpg")
        entries.append(
            Medium(str(image["id"]), str(Path(media) / name), "train" if split == "restval" else split, texts)
        )
    return entries


def _json_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [file for file in sorted(path.glob("*.json")) if (path / f"{file.stem}_label.h5").is_file()]
    if len(files) != 1:
        raise FileNotFoundError(f"'{path}' holds {len(files)} pairs NAME.json, NAME_label.h5; expected {EXPECTED}")
    return files[0]


def _labels_file(path: Path) -> Path:
    named = path.with_name(f"{path.stem}_label.h5")
    others = sorted(path.parent.glob("*_label.h5"))
    if not named.is_file() and len(others) != 1:
        raise FileNotFoundError(f"there is no {named}, the file of the labels of {path}; expected {EXPECTED}")
    return named if named.is_file() else others[0]


def _words(table: dict[str, Any], path: Path) -> list[str]:
    """The words in the order of their numbers, which are 1, 2, ...; the unknown word is written as `UNKNOWN`."""
    try:
        words = [str(table[str(number)]) for number in range(1, len(table) + 1)]
    except KeyError as error:
        raise ValueError(f"{path}: ix_to_word lacks the number {error} of {len(table)}; expected 1, 2, ...") from error
    if repeated := [word for word in words if words.count(word) > 1][:1] if len(set(words)) < len(words) else []:
        raise ValueError(f"{path}: ix_to_word has the word {repeated[0]!r} twice")
    return [UNKNOWN if word in ("UNK", "<unk>") else word for word in words]
