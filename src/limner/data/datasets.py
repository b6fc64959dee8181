"""Every data set by name.  A new one is one reader and one line here, or `limner.register` in a package of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from limner.core.fields import NameOf
from limner.core.registry import Registry
from limner.data import folder, karpathy, msrvtt, msvd, sftcap, shapes
from limner.data.dataset import Dataset
from limner.data.split_lists import apply_split_lists, read_split_lists

DATASETS: Registry[Callable[["DataConfig"], Dataset]] = Registry("data set", {})  # filled below


@dataclass(frozen=True)
class DataConfig:
    """Where a data set lies.  Paths are relative to the working directory."""

    name: Annotated[str, NameOf(DATASETS)] = "folder"  # kind of data set
    media: str = ""  # folder of pictures or clips; may be left out where features are read
    annotations: str = ""  # caption file; MSR-VTT, MSVD: or the folder of theirs
    splits: str = ""  # folder of split lists (train, val, test), in place of the data set's own split
    restval: bool = True  # COCO: restval pictures join the training split
    file_column: str = ""  # csv, jsonl: when the file has unusual column names
    caption_column: str = ""  # the same of the captions
    mapping: str = ""  # MSVD: youtube_mapping.txt, when it is not beside the annotations
    categories: tuple[str, ...] = ()  # MSR-VTT: only these of category.txt


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
    """All media of a data set.  Raises FileNotFoundError or ValueError that say what was expected."""
    dataset = DATASETS[config.name](config)
    if config.splits and config.name != "msvd":  # whose clips have two names each
        return apply_split_lists(dataset, read_split_lists(config.splits), config.splits)
    return dataset


def read_scenes(config: DataConfig) -> Mapping[str, shapes.Scene]:
    """What is exactly true of each medium, by id: known of the micro-world, empty elsewhere."""
    return shapes.read_truth(config.media) if config.name == "shapes" else {}
