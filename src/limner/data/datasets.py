"""Registry of dataset readers by name.

A new dataset is one reader and one line here, or `limner.register("dataset", ...)` in another package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from limner.core.addresses import refuse_address
from limner.core.fields import NameOf
from limner.core.registry import Registry
from limner.data import folder, karpathy, msrvtt, msvd, sftcap, shapes
from limner.data.dataset import Dataset
from limner.data.split_lists import apply_split_lists, read_split_lists

DATASETS: Registry[Callable[["DataConfig"], Dataset]] = Registry("dataset", {})  # filled below


@dataclass(frozen=True)
class DataConfig:
    """The recipe's field `data`: kind and files of a dataset.  Paths are relative to the working directory."""

    name: Annotated[str, NameOf(DATASETS)] = "folder"  # kind of dataset
    media: str = ""  # folder of images or clips; may be empty when stored features are read
    annotations: str = ""  # caption file; for msrvtt, msvd and sftcap also the folder of the annotations
    splits: str = ""  # folder of split lists (train, val, test), which replace the split of the dataset
    restval: bool = True  # coco: restval images join the training split; false leaves them out
    file_column: str = ""  # csv, jsonl: name of the column with the file names, when it is unusual
    caption_column: str = ""  # csv, jsonl: name of the column with the captions, when it is unusual
    mapping: str = ""  # msvd: path of youtube_mapping.txt, when it is not beside the annotations
    categories: tuple[str, ...] = ()  # msrvtt: only these categories, by names of category.txt or by number


def _table(reader: Callable[..., Dataset], config: DataConfig) -> Dataset:
    _require_file(config, f"a {config.name.upper()} file with file and caption")
    return reader(config.annotations, config.media, config.file_column, config.caption_column)


def _karpathy(config: DataConfig) -> Dataset:
    _require_file(config, f"Karpathy's dataset_{config.name}.json")
    return karpathy.read(config.annotations, config.media, config.restval)


def _msrvtt(config: DataConfig) -> Dataset:
    _require(config, "MSR-VTT's videodatainfo JSON, a ZIP with it, or their folder")
    return msrvtt.read(config.annotations, config.media, config.categories)


def _msvd(config: DataConfig) -> Dataset:
    _require(config, f"{msvd.EXPECTED}")
    return msvd.read(config.annotations, config.media, config.mapping, config.splits)


def _sftcap(config: DataConfig) -> Dataset:
    _require(config, "a folder with splits/NAME_train_list.pkl, ... and language/NAME_caption.json")
    return sftcap.read(config.annotations, config.media)


def _require(config: DataConfig, expected: str) -> None:
    if not config.annotations or not Path(config.annotations).exists():
        raise FileNotFoundError(f"data.annotations: nothing at '{config.annotations}', expected {expected}")


def _require_file(config: DataConfig, expected: str) -> None:
    if not Path(config.annotations).is_file():
        raise FileNotFoundError(f"data.annotations: no file at '{config.annotations}', expected {expected}")


DATASETS |= {
    "coco": _karpathy,
    "flickr8k": _karpathy,
    "flickr30k": _karpathy,
    "csv": partial(_table, folder.read_csv),
    "jsonl": partial(_table, folder.read_jsonl),
    "msrvtt": _msrvtt,
    "msvd": _msvd,
    "sftcap": _sftcap,
    "folder": lambda config: folder.read_folder(config.annotations, config.media),
    "shapes": lambda config: Dataset(tuple(shapes.load_world(config.media))),
}


def read_dataset(config: DataConfig) -> Dataset:
    """Read all media of a dataset.

    Raises FileNotFoundError or ValueError, with what was expected, when a file is missing or of another layout.
    """
    for path in (config.media, config.annotations, config.splits, config.mapping):
        refuse_address(path)
    dataset = DATASETS[config.name](config)
    if config.splits and config.name != "msvd":  # its reader applies the lists, because a clip of MSVD has two names
        return apply_split_lists(dataset, read_split_lists(config.splits), config.splits)
    return dataset


def read_scenes(config: DataConfig) -> Mapping[str, shapes.Scene]:
    """The scene of each medium by id, which only the micro-world has; {} for other datasets."""
    return shapes.read_truth(config.media) if config.name == "shapes" else {}
