"""Reader of VizWiz-Captions (Gurari et al. 2020, arXiv:2002.08565): photographs that blind people took.

`train.json`, `val.json` and `test.json` (without captions) are in COCO's format.  A
caption that is marked as `is_rejected` or `is_precanned` is no reference, as in the evaluation of its challenge.
"""

from pathlib import Path

from limner.data import split_files
from limner.data.dataset import Dataset

EXPECTED = "train.json, val.json and test.json of its annotations, one of them or the folder with all"


def split_of(name: str) -> str:
    """The split of a file by its name.

    >>> split_of("val.json"), split_of("other.json")
    ('val', '')
    """
    stem = name.partition(".")[0].removeprefix("VizWiz_").removeprefix("captions_")
    return stem if stem in ("train", "val", "test") else ""


def read(annotations: str | Path, media: str | Path = "", caption_column: str = "") -> Dataset:
    """Read a file or the folder of all; a file with another name is of the training split."""
    return split_files.read(annotations, media, split_of, EXPECTED)
