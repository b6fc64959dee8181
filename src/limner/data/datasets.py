"""Every data set by name; a new one is one reader and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from limner.data import folder, karpathy, shapes
from limner.data.dataset import DataSet

Name = Literal["coco", "flickr8k", "flickr30k", "csv", "jsonl", "folder", "shapes"]


@dataclass(frozen=True)
class DataConfig:
    """Where a data set lies.  Paths are relative to the working directory."""

    name: Name = "folder"
    media: str = "."  # folder of pictures or clips
    annotations: str = ""  # caption file
    restval: bool = True  # COCO: restval pictures join the training split
    file_column: str = ""  # csv, jsonl: when the file has unusual column names
    caption_column: str = ""


def _table(reader: Callable[..., DataSet], config: DataConfig) -> DataSet:
    _require_file(config, f"a {config.name.upper()} file with file and caption")
    return reader(config.annotations, config.media, config.file_column, config.caption_column)


def _karpathy(config: DataConfig) -> DataSet:
    _require_file(config, f"Karpathy's dataset_{config.name}.json")
    return karpathy.read(config.annotations, config.media, config.restval)


def _require_file(config: DataConfig, expected: str) -> None:
    if not Path(config.annotations).is_file():
        raise FileNotFoundError(f"data.annotations: no file at '{config.annotations}', expected {expected}")


DATASETS: dict[str, Callable[[DataConfig], DataSet]] = {
    "coco": _karpathy,
    "flickr8k": _karpathy,
    "flickr30k": _karpathy,
    "csv": partial(_table, folder.read_csv),
    "jsonl": partial(_table, folder.read_jsonl),
    "folder": lambda config: folder.read_folder(config.annotations, config.media),
    "shapes": lambda config: DataSet(tuple(shapes.load(config.media))),
}
assert set(DATASETS) == set(get_args(Name))


def read_dataset(config: DataConfig) -> DataSet:
    """All media of a data set.  Raises FileNotFoundError or ValueError that say what was expected."""
    if config.name not in DATASETS:
        raise ValueError(f"unknown data set '{config.name}'; known are {', '.join(DATASETS)}")
    return DATASETS[config.name](config)
