"""Reader of VATEX (Wang et al. 2019, arXiv:1904.03493): clips with ten English and ten Chinese captions each.

`vatex_training_v1.0.json`, `vatex_validation_v1.0.json` and
`vatex_public_test_english_v1.1.json` are lists of {"videoID", "enCap", "chCap"};
`vatex_private_test_without_annotations.json` has no captions.  The videoID is the YouTube id with the first and the
last second of the clip, NAME_000010_000020: the name of its file.
"""

from pathlib import Path

from limner.data import split_files
from limner.data.dataset import Dataset

EXPECTED = (
    "vatex_training_v1.0.json, vatex_validation_v1.0.json and vatex_public_test_english_v1.1.json, one or a folder"
)
SPLITS = {"training": "train", "validation": "val", "public_test": "test", "private_test": "private test"}


def split_of(name: str) -> str:
    """The split of a file by its name; the public test split is `test`.

    >>> split_of("vatex_public_test_english_v1.1.json"), split_of("vatex.json")
    ('test', '')
    """
    return next((split for part, split in SPLITS.items() if name.startswith(f"vatex_{part}")), "")


def read(annotations: str | Path, media: str | Path = "", caption_column: str = "") -> Dataset:
    """Read a file or the folder of all: the English captions, or with `caption_column` "chCap" the Chinese ones."""
    return split_files.read(annotations, media, split_of, EXPECTED, caption_column)
