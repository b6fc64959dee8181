"""Reader of Flickr30k (Young et al. 2014, doi:10.1162/tacl_a_00166): 31,783 images with five captions each.

The captions are in `results_20130124.token` (`name.jpg#number<TAB>caption`) or `results.csv`, which name no splits.
Karpathy's `dataset_flickr30k.json` has the split that papers on captioning use (29,000, 1,014 and 1,000 images).  The
lists train.txt, val.txt and test.txt of Flickr30k Entities (29,783, 1,000 and 1,000) are another split.
"""

from dataclasses import replace
from pathlib import Path

from limner.data.captions_file import read_captions
from limner.data.dataset import Dataset
from limner.data.split_lists import apply_split_lists, read_split_lists

EXPECTED = "dataset_flickr30k.json (Karpathy's), results_20130124.token or results.csv, or the folder with one of them"
FILES = ("dataset_flickr30k.json", "results_20130124.token", "results.csv")
LISTS = ("train.txt", "val.txt", "test.txt")


def captions_file(annotations: str | Path) -> Path:
    """The file to read: the given one, or the first of `FILES` in a folder.  Raises ValueError when it has none."""
    path = Path(annotations)
    if not path.is_dir():
        return path
    known = [path / name for name in FILES if (path / name).is_file()]
    if not known:
        raise ValueError(f"{path}: expected {EXPECTED}")
    return known[0]


def with_split(dataset: Dataset, path: Path) -> Dataset:
    """The data set of the file `path` with the split of Flickr30k.

    It is the one in the file, or that of the lists train.txt, val.txt and test.txt beside it.  Without either a hash of
    the id has decided, and a note says that such scores cannot be compared.
    """
    if path.is_dir() or read_captions(path).splits:
        return dataset
    if all((path.parent / name).is_file() for name in LISTS):
        return apply_split_lists(dataset, read_split_lists(path.parent), path.parent)
    note = (
        f"{path} names no splits, so a hash of the id decides: scores are not comparable with published ones; take "
        "Karpathy's dataset_flickr30k.json, or name the folder of the lists as data.splits"
    )
    return replace(dataset, notes=(*dataset.notes, note))
