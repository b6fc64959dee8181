"""Reader of TextCaps (Sidorov et al. 2020, arXiv:2003.12462): captions that read the text in an image.

`TextCaps_0.1_train.json` and `TextCaps_0.1_val.json` hold {"data": [...]}; a row is one
caption, with `image_id`, `caption_str`, all `reference_strs` of the image and its `set_name`.  The images of both are
in the folder train_images.  The captions of the test split are not published.
"""

import re
from pathlib import Path

from limner.data import split_files
from limner.data.dataset import Dataset

EXPECTED = "TextCaps_0.1_train.json and TextCaps_0.1_val.json, one of them or the folder with both"


def split_of(name: str) -> str:
    """The split of a file by its name.

    >>> split_of("TextCaps_0.1_val.json"), split_of("TextVQA_0.5.1_val.json")
    ('val', '')
    """
    match = re.match(r"TextCaps_[\d.]+_(train|val|test)\b", name)
    return match[1] if match else ""


def read(annotations: str | Path, media: str | Path = "", caption_column: str = "") -> Dataset:
    """Read a file or the folder of all; the split is that of the names, else `set_name`."""
    return split_files.read(annotations, media, split_of, EXPECTED)
