"""Karpathy JSON: COCO, Flickr8k and Flickr30k (Karpathy and Li 2015, arXiv:1412.2306)."""

from pathlib import Path
from typing import Any

from limner.core.files import read_json
from limner.core.torch_free import Medium
from limner.data.dataset import DataSet, drop_empty


def read(annotations: str | Path, media: str | Path, restval: bool = True) -> DataSet:
    """`images[{filename, filepath?, split, sentences[{raw}], cocoid?}]` -> media with raw captions.

    COCO's `restval` pictures join the training split unless `restval` is False; then they are left out
    (113,287 = 82,783 train + 30,504 restval).  An id is the `cocoid` where there is one, else the file name's stem.
    Raises ValueError when the file has another layout.
    """
    saved = read_json(annotations)
    if not isinstance(saved, dict) or not isinstance(saved.get("images"), list):
        raise ValueError(f"{annotations} is not in Karpathy's format: expected an object with a list 'images'")
    found = []
    for index, image in enumerate(saved["images"]):
        try:
            medium = _medium(image, Path(media), restval)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{annotations}: image {index} lacks {error}; expected filename, split, sentences[].raw"
            ) from error
        if medium is not None:
            found.append(medium)
    return drop_empty(found)


def coco_id(name: str) -> int | str:
    """The number by which COCO's tools know a picture, if `name` is one: 42 for 42 and COCO_val2014_000000000042."""
    number = name.rsplit("_", 1)[-1].lstrip("0") or "0" if name.startswith("COCO_") else name
    plain = number.isascii() and number.isdigit() and str(int(number)) == number
    return int(number) if plain else name


def _medium(image: dict[str, Any], root: Path, restval: bool) -> Medium | None:
    split = image["split"]
    if split == "restval":
        if not restval:
            return None
        split = "train"
    path = root / image.get("filepath", "") / image["filename"]
    id = str(image["cocoid"]) if "cocoid" in image else Path(image["filename"]).stem
    return Medium(id, str(path), split, tuple(sentence["raw"] for sentence in image["sentences"]))
