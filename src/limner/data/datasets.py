"""Registry of dataset readers by name.

A new dataset is one reader and one line here, or `limner.register("dataset", ...)` in another package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from limner.core.fields import NameOf
from limner.core.registry import Registry
from limner.data import (
    cocotalk,
    folder,
    frames_dataset,
    huggingface,
    karpathy,
    msrvtt,
    msvd,
    sftcap,
    shapes,
    show_attend_tell,
    webdataset,
)
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
    restval: bool = True  # coco, cocotalk: restval images join the training split; false leaves them out
    file_column: str = ""  # csv, jsonl, parquet: column of the files when it is unusual; webdataset: their ending
    caption_column: str = (
        ""  # csv, jsonl, parquet, webdataset: name of the column with the captions, when it is unusual
    )
    mapping: str = ""  # msvd: path of youtube_mapping.txt, when it is not beside the annotations
    channels: Literal["RGB", "BGR"] = "RGB"  # show_attend_tell: order of the stored pixels; BGR where cv2 wrote them
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


def _archive(reader: Callable[..., Dataset], config: DataConfig) -> Dataset:
    """Read files that hold media and captions; `media` names them, or `annotations` does."""
    if not (config.annotations or config.media):
        raise FileNotFoundError(f"data.media is empty; expected the files of the {config.name} data set")
    columns = config.file_column, config.caption_column
    if reader is webdataset.read:
        return reader(config.annotations or config.media, *columns)
    return reader(config.annotations or config.media, config.media, *columns)


def _prepared(config: DataConfig) -> Dataset:
    if config.name == "cocotalk":
        _require(config, cocotalk.EXPECTED)
        return cocotalk.read(config.annotations, config.media, config.restval)
    return show_attend_tell.read(config.annotations or config.media, config.channels)


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
    "frames": lambda config: frames_dataset.read(config.annotations, config.media),
    "webdataset": partial(_archive, webdataset.read),
    "parquet": partial(_archive, huggingface.read),
    "huggingface": partial(_archive, huggingface.read),
    "cocotalk": _prepared,
    "show_attend_tell": _prepared,
    "folder": lambda config: folder.read_folder(config.annotations, config.media),
    "shapes": lambda config: Dataset(tuple(shapes.load_world(config.media))),
}


def read_dataset(config: DataConfig) -> Dataset:
    """Read all media of a dataset.

    Raises FileNotFoundError or ValueError, with what was expected, when a file is missing or of another layout.
    """
    dataset = DATASETS[config.name](config)
    if config.splits and config.name != "msvd":  # its reader applies the lists, because a clip of MSVD has two names
        return apply_split_lists(dataset, read_split_lists(config.splits), config.splits)
    return dataset


def read_scenes(config: DataConfig) -> Mapping[str, shapes.Scene]:
    """The scene of each medium by id, which only the micro-world has; {} for other datasets."""
    return shapes.read_truth(config.media) if config.name == "shapes" else {}
