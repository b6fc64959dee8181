"""Reader of the Karpathy splits: COCO, Flickr8k and Flickr30k (Karpathy and Li 2015, arXiv:1412.2306)."""

from pathlib import Path
from typing import Any

from limner.core.files import read_json
from limner.core.torch_free import Medium
from limner.data.dataset import Dataset, drop_empty_captions


def read(annotations: str | Path, media: str | Path, restval: bool = True) -> Dataset:
    """Read a file of the layout `images[{filename, filepath?, split, sentences[{raw}], cocoid?}]`.

    COCO's `restval` images join the training split (82,783 train + 30,504 restval = 113,287), or are left out when
    `restval` is False.  The id is the `cocoid`, or else the file name without suffix.  Captions are not tokenised.
    Raises ValueError when the file has another layout.
    """
    saved = read_json(annotations)
    if not isinstance(saved, dict) or not isinstance(saved.get("images"), list):
        raise ValueError(f"{annotations} is not in Karpathy's format: expected an object with a list 'images'")
    entries = []
    for index, image in enumerate(saved["images"]):
        try:
            medium = _medium(image, Path(media), restval)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{annotations}: image {index} lacks {error}; expected filename, split, sentences[].raw"
            ) from error
        if medium is not None:
            entries.append(medium)
    return drop_empty_captions(entries)


def coco_id(name: str) -> int | str:
    """The numeric image id of COCO's tools, or `name` itself when it is not such an id.

    >>> coco_id("COCO_val2014_000000000042"), coco_id("42"), coco_id("dog")
    (42, 42, 'dog')
    """
    number = name.rsplit("_", 1)[-1].lstrip("0") or "0" if name.startswith("COCO_") else name
    canonical = number.isascii() and number.isdigit() and str(int(number)) == number
    return int(number) if canonical else name


def _medium(image: dict[str, Any], root: Path, restval: bool) -> Medium | None:
    split = image["split"]
    if split == "restval":
        if not restval:
            return None
        split = "train"
    path = root / image.get("filepath", "") / image["filename"]
    id = str(image["cocoid"]) if "cocoid" in image else Path(image["filename"]).stem
    return Medium(id, str(path), split, tuple(sentence["raw"] for sentence in image["sentences"]))
