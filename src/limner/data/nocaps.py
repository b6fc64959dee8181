"""Reader of nocaps (Agrawal et al. 2019, arXiv:1812.08658): images of Open Images with objects that COCO lacks.

`nocaps_val_4500_captions.json` is in COCO's format; each image has `open_images_id` and `domain`, which is in-domain,
near-domain or out-domain.  There is no training split; the captions of the test split (10,600 images, with information
in `nocaps_test_image_info.json`) are not published.  `limner score` scores each domain and all of them.
"""

from pathlib import Path

from limner.data import split_files
from limner.data.dataset import Dataset

EXPECTED = "nocaps_val_4500_captions.json, or the folder with it"


def split_of(name: str) -> str:
    """The split of a file by its name.

    >>> split_of("nocaps_val_4500_captions.json"), split_of("nocaps_test_image_info.json"), split_of("readme.json")
    ('val', 'test', '')
    """
    if not name.startswith("nocaps_") or name == "nocaps_val_image_info.json":  # the captions are in the other file
        return ""
    return next((split for split in ("val", "test") if f"_{split}_" in name), "")


def read(annotations: str | Path, media: str | Path = "", caption_column: str = "") -> Dataset:
    """Read the validation split; errors are those of `split_files.read`."""
    path = Path(annotations)
    return split_files.read(path, media, lambda name: split_of(name) or ("" if path.is_dir() else "val"), EXPECTED)
