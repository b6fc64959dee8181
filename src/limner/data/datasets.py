"""Registry of dataset readers by name.

A new dataset is one reader and one line here, or `limner.register("dataset", ...)` in another package.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal, cast

from limner.core.addresses import refuse_address
from limner.core.fields import NameOf, PositiveFraction
from limner.core.registry import Registry
from limner.core.torch_free import Medium
from limner.data import (
    caption_dataset,
    cocotalk,
    flickr30k,
    frames_dataset,
    huggingface,
    msrvtt,
    msvd,
    nocaps,
    sftcap,
    shapes,
    show_attend_tell,
    textcaps,
    vatex,
    vizwiz,
    webdataset,
)
from limner.data.dataset import SPLITS, Dataset
from limner.data.mixture import unite
from limner.data.split_lists import apply_split_lists, read_split_lists
from limner.data.split_names import normalise_split_name

FieldValue = str | int | float | bool
DATASETS: Registry[Callable[["DataConfig"], Dataset]] = Registry("dataset", {})  # filled below


@dataclass(frozen=True)
class DataConfig:
    """The recipe's field `data`: kind and files of a dataset.  Paths are relative to the working directory.

    `data` may be a list of such data sets, which are trained on together.  Each has a label of its own.
    """

    name: Annotated[str, NameOf(DATASETS)] = "folder"  # kind of dataset
    media: str = ""  # folder of images or clips; may be empty when stored features are read
    annotations: str = ""  # caption file; for msrvtt, msvd and sftcap also the folder of the annotations
    splits: str = ""  # folder of split lists (train, val, test), which replace the split of the dataset
    default_split: str = ""  # split of media for which the caption file names none; empty: a hash of the id decides
    restval: bool = True  # restval images of Karpathy's split join the training split; false leaves them out
    file_column: str = ""  # name of the column with the files, when it is unusual; webdataset: their ending
    caption_column: str = ""  # name of the column with the captions, when it is unusual (VATEX's Chinese: chCap)
    mapping: str = ""  # msvd: path of youtube_mapping.txt, when it is not beside the annotations
    channels: Literal["RGB", "BGR"] = "RGB"  # show_attend_tell: order of the stored pixels; BGR where cv2 wrote them
    categories: tuple[str, ...] = ()  # msrvtt: only these categories, by names of category.txt or by number
    # only the entries of a caption file whose fields have one of these values, as in {license: [4, 5, 7]}
    where: dict[str, FieldValue | tuple[FieldValue, ...]] = field(default_factory=dict)
    # stands before the ids of the media, LABEL/ID; in a list of data sets, empty is the name
    label: str = ""
    # share of the training examples that an epoch has, drawn without replacement: another part in each epoch
    share: PositiveFraction = 1.0


def _captions(config: DataConfig, keep_going: bool = False) -> Dataset:
    _require(config, "a caption file, which may have any layout that `limner score` reads")
    return caption_dataset.read(
        config.annotations,
        config.media,
        config.file_column,
        config.caption_column,
        config.restval,
        config.default_split,
        config.where,
        keep_going,
    )


def _msrvtt(config: DataConfig) -> Dataset:
    _require(config, "MSR-VTT's videodatainfo JSON, a ZIP with it, or their folder")
    return msrvtt.read(config.annotations, config.media, config.categories)


def _msvd(config: DataConfig) -> Dataset:
    _require(config, f"{msvd.EXPECTED}")
    return msvd.read(config.annotations, config.media, config.mapping, config.splits)


def _sftcap(config: DataConfig) -> Dataset:
    _require(config, "a folder with splits/NAME_train_list.pkl, ... and language/NAME_caption.json")
    return sftcap.read(config.annotations, config.media)


def _flickr30k(config: DataConfig) -> Dataset:
    _require(config, flickr30k.EXPECTED)
    path = flickr30k.captions_file(config.annotations)
    dataset = _captions(replace(config, annotations=str(path)))
    return dataset if config.splits or config.default_split else flickr30k.with_split(dataset, path)


def _published(reader: ModuleType, config: DataConfig) -> Dataset:
    """Read the files of a data set as its authors publish them: one of them, or the folder of all."""
    _require(config, reader.EXPECTED)
    return cast(Dataset, reader.read(config.annotations, config.media, config.caption_column))


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


DATASETS |= {
    "captions": _captions,
    "coco": _captions,  # this and the next three are `captions`, under the name of what is usually in the file
    "flickr8k": _captions,
    "flickr30k": _flickr30k,
    "csv": _captions,
    "jsonl": _captions,
    "msrvtt": _msrvtt,
    "msvd": _msvd,
    "nocaps": partial(_published, nocaps),
    "textcaps": partial(_published, textcaps),
    "vizwiz": partial(_published, vizwiz),
    "vatex": partial(_published, vatex),
    "sftcap": _sftcap,
    "frames": lambda config: frames_dataset.read(config.annotations, config.media),
    "webdataset": partial(_archive, webdataset.read),
    "parquet": partial(_archive, huggingface.read),
    "huggingface": partial(_archive, huggingface.read),
    "cocotalk": _prepared,
    "show_attend_tell": _prepared,
    "folder": lambda config: caption_dataset.read_folder(config.annotations, config.media),
    "shapes": lambda config: Dataset(tuple(shapes.load_world(config.media))),
}


def data_parts(data: DataConfig | Sequence[DataConfig]) -> dict[str, DataConfig]:
    """The data sets of a recipe by their labels; a single one that has no label has the label "".

    Raises ValueError when two data sets have the same label, or a label cannot stand before an id.

    >>> list(data_parts([DataConfig("coco", "images"), DataConfig("csv", "photos", label="mine")]))
    ['coco', 'mine']
    """
    if isinstance(data, DataConfig):
        labels = [data.label]
        parts = [data]
    else:
        labels, parts = [part.label or part.name for part in data], list(data)
    for label in labels:
        if label and not re.fullmatch(r"\w[\w.-]*", label):
            raise ValueError(
                f"the label '{label}' of a data set cannot stand before ids: expected letters, digits, '_', '-' and '.'"
            )
        if labels.count(label) > 1:
            raise ValueError(
                f"{labels.count(label)} data sets have the label '{label}': give each a `label` of its own, as in "
                f"{{name: {parts[labels.index(label)].name}, label: {label}2, ...}}"
            )
    return dict(zip(labels, parts, strict=True))


def read_dataset(data: DataConfig | Sequence[DataConfig], keep_going: bool = False) -> Dataset:
    """Read all media of a data set, or of several ones as one.

    In a list of data sets, and where a label is given, ids are LABEL/ID.  With `keep_going`, an id that a caption file
    gives two files or two splits keeps the first and adds a problem line; otherwise it is an error.  Raises
    FileNotFoundError or ValueError, with what was expected, when a file is missing or of another layout, or is in two
    data sets.
    """
    parts = {label: _read_part(part, keep_going) for label, part in data_parts(data).items()}
    return parts[""] if "" in parts else unite(parts)


def _read_part(config: DataConfig, keep_going: bool) -> Dataset:
    """Read all media of one data set, with its own ids."""
    for path in (config.media, config.annotations, config.splits, config.mapping):
        refuse_address(path)
    if config.where and DATASETS[config.name] not in (_captions, _flickr30k):
        readers = ", ".join(name for name, reader in DATASETS.items() if reader in (_captions, _flickr30k))
        raise ValueError(
            f"data.where chooses entries of a caption file: it needs a name of {readers}, not {config.name}"
        )
    reader = DATASETS[config.name]
    dataset = normalise_splits(_captions(config, keep_going) if reader is _captions else reader(config))
    if config.splits and config.name != "msvd":  # its reader applies the lists, because a clip of MSVD has two names
        dataset = apply_split_lists(dataset, read_split_lists(config.splits), config.splits)
    return replace(dataset, notes=(*dataset.notes, *_files_in_two_splits(dataset)))


def _files_in_two_splits(dataset: Dataset) -> list[str]:
    """A note that counts the files that are in two splits, under different ids: a test would be on training data."""
    first: dict[str, Medium] = {}
    shared: dict[str, Medium] = {}  # path -> a medium of another split than the first one with this path
    for medium in dataset.media:
        if medium.path and first.setdefault(medium.path, medium).split != medium.split:
            shared.setdefault(medium.path, medium)
    if not shared:
        return []
    path, other = next(iter(shared.items()))
    return [
        f"{len(shared)} file{'s are' if len(shared) > 1 else ' is'} in two splits under different ids: {path} is "
        f"'{first[path].id}' in {first[path].split} and '{other.id}' in {other.split}; scores on a split whose files "
        "were trained on mean little"
    ]


def normalise_splits(dataset: Dataset) -> Dataset:
    """The data set with usual spellings of train, val and test (Training, valid, dev) replaced by these names.

    A split with another name keeps it, and adds a note, because no command reads it unless it is named.
    """
    media = tuple(replace(medium, split=normalise_split_name(medium.split)) for medium in dataset.media)
    others = Counter(medium.split for medium in media if medium.split and medium.split not in SPLITS)
    lines = [
        f"the split '{split}' of {count} media is not one of {', '.join(SPLITS)}; it is only read where it is named"
        for split, count in others.items()
    ]
    return replace(dataset, media=media, notes=(*dataset.notes, *lines))


def read_scenes(data: DataConfig | Sequence[DataConfig]) -> Mapping[str, shapes.Scene]:
    """The scene of each medium by id, which only the micro-world has; {} for other datasets."""
    scenes: dict[str, shapes.Scene] = {}
    for label, part in data_parts(data).items():
        truth = shapes.read_truth(part.media) if part.name == "shapes" else {}
        scenes |= {f"{label}/{id}" if label else id: scene for id, scene in truth.items()}
    return scenes
