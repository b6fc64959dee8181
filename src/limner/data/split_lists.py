"""Split lists: files train, val and test that name the media of each split, in place of a data set's own split."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from limner.core.files import read_json
from limner.data.dataset import DataSet

NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
}
SUFFIXES = (".txt", ".list", ".lst", ".json")


def split_name(text: str) -> str:
    """How others spell a split: `validate` is val.  Raises ValueError for what is none."""
    if text.strip().lower() not in NAMES:
        raise ValueError(f"'{text}' is no split; known are {', '.join(NAMES)}")
    return NAMES[text.strip().lower()]


def read_lists(folder: str | Path) -> dict[str, str]:
    """`train.txt`, `valid.list`, `test.json`, ... in a folder -> the split of every id.

    A file is a JSON array, or has an id per line.  Raises ValueError when there is none, when two are for one split,
    or when an id is in two.
    """
    folder = Path(folder)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() in SUFFIXES and (name := NAMES.get(path.stem.lower())):
            if name in found:
                raise ValueError(f"two lists for the split {name}: {found[name]} and {path}; remove one of them")
            found[name] = path
    if not found:
        raise ValueError(
            f"data.splits: '{folder}' holds no split list; expected files train, val, test ending in "
            f"{', '.join(SUFFIXES)}, with an id per line or a JSON array"
        )
    splits: dict[str, str] = {}
    for name, path in found.items():
        for id in _ids(path):
            if splits.setdefault(id, name) != name:
                raise ValueError(f"'{id}' is in two split lists of {folder}: {splits[id]} and {name}")
    return splits


def _ids(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        saved = json.loads(text)
    except json.JSONDecodeError:
        saved = read_json(path)  # says which file is no JSON
    if not isinstance(saved, list) or not all(isinstance(id, str | int) for id in saved):
        raise ValueError(f"{path}: expected a JSON array of ids")
    return [str(id) for id in saved]


def use_lists(dataset: DataSet, lists: Mapping[str, str], where: str | Path) -> DataSet:
    """The media that are in a list, with its split.  Ids that the data set lacks are reported; what is in no list is
    left out."""
    known = {medium.id for medium in dataset.media}
    problems = [line for line in dataset.problems if (id := line.partition(": ")[0]) not in known or id in lists]
    problems += [
        f"{id}: in the {split} list of {where}, but the annotations do not have it"
        for id, split in lists.items()
        if id not in known
    ]
    media = [replace(medium, split=lists[medium.id]) for medium in dataset.media if medium.id in lists]
    if not media:
        some = ", ".join([*lists][:2]), ", ".join([medium.id for medium in dataset.media][:2])
        raise ValueError(f"{where}: none of its {len(lists)} ids ({some[0]}, ...) is in the data set ({some[1]}, ...)")
    return DataSet(tuple(media), tuple(problems))
