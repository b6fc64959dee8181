"""Split lists: files that name the media of the splits train, val and test; they replace the split of the dataset."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from limner.core.files import parse_json
from limner.data.dataset import Dataset
from limner.data.image_ids import medium_name
from limner.data.media_folder import visible_files
from limner.data.split_names import SPLIT_NAMES

# in longer names: Flickr_8k.trainImages.txt, captions_val2014.json, msvd_valid_list.txt
_NAME_IN = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_NAMES)})(?:images|videos|clips|ids)?(?:$|[^a-z])")
SUFFIXES = (".txt", ".list", ".lst", ".json")


def read_split_lists(folder: str | Path) -> dict[str, str]:
    """Read the files `train.txt`, `valid.list`, `test.json`, ... of a folder: id -> split.

    Without them, files with a split in their names are read (Flickr_8k.trainImages.txt).  A file has one id per line,
    or holds a JSON array of ids.  Raises ValueError when the folder has no list, two lists
    are for the same split, or an id is in two lists.
    """
    folder = Path(folder)
    files = visible_files(folder, SUFFIXES) if folder.is_dir() else []
    lists: dict[str, Path] = {}
    exact = any(path.stem.lower() in SPLIT_NAMES for path in files)
    for path in files:
        stem = path.stem.lower()
        match = None if exact else _NAME_IN.search(stem)
        if name := SPLIT_NAMES.get(match[1] if match else stem):
            if name in lists:
                raise ValueError(f"two lists for the split {name}: {lists[name]} and {path}; remove one of them")
            lists[name] = path
    if not lists:
        raise ValueError(
            f"data.splits: '{folder}' holds no split list; expected files train, val, test ending in "
            f"{', '.join(SUFFIXES)}, with one id per line or a JSON array"
        )
    splits: dict[str, str] = {}
    for name, path in lists.items():
        for id in _read_ids(path):
            if splits.setdefault(id, name) != name:
                raise ValueError(f"'{id}' is in two split lists of {folder}: {splits[id]} and {name}")
    return splits


def _read_ids(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    saved = parse_json(text, path)
    if not isinstance(saved, list) or not all(isinstance(id, str | int) for id in saved):
        raise ValueError(f"{path}: expected a JSON array of ids")
    return [str(id) for id in saved]


def apply_split_lists(dataset: Dataset, lists: Mapping[str, str], where: str | Path) -> Dataset:
    """The media that are in one of the lists, with the split of that list; media in no list are left out.

    `lists` maps ids to splits; `where` names their folder in messages.  Ids that are not equal are compared without
    folder and file type.  An id that the dataset lacks adds a problem line.  Raises ValueError when no medium is left.
    """
    known = {medium.id for medium in dataset.media}
    lists = _with_ids_of(dataset, lists)
    problems = [line for line in dataset.problems if (id := line.partition(": ")[0]) not in known or id in lists]
    problems += [
        f"{id}: in the {split} list of {where}, but the annotations do not have it"
        for id, split in lists.items()
        if id not in known
    ]
    media = [replace(medium, split=lists[medium.id]) for medium in dataset.media if medium.id in lists]
    if not media:
        listed, known_ids = ", ".join([*lists][:2]), ", ".join([medium.id for medium in dataset.media][:2])
        raise ValueError(
            f"{where}: none of its {len(lists)} ids ({listed}, ...) is in the dataset ({known_ids}, ...); are these "
            "the lists of another dataset?"
        )
    return replace(dataset, media=tuple(media), problems=tuple(problems))


def _with_ids_of(dataset: Dataset, lists: Mapping[str, str]) -> dict[str, str]:
    """The lists with the ids of the data set, where the two differ in folder or file type only (dog.jpg, dog)."""
    known = {medium.id for medium in dataset.media}
    by_name: dict[str, list[str]] = {}
    for id in known:
        by_name.setdefault(medium_name(id), []).append(id)
    named: dict[str, str] = {}
    for id, split in lists.items():
        found = [] if id in known else by_name.get(medium_name(id), [])
        key = found[0] if len(found) == 1 and found[0] not in lists else id
        if named.setdefault(key, split) != split:
            raise ValueError(f"'{key}' is in two split lists: {named[key]} and {split}")
    return named
