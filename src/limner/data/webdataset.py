"""Reader of WebDataset tars: files with the same name before the first dot are one sample.

`000001.jpg` with `000001.txt` or `000001.json` is an image with its captions, as img2dataset writes them.
https://github.com/webdataset/webdataset
"""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limner.core.files import parse_json
from limner.core.torch_free import Medium
from limner.data.archives import TarIndex, open_archive
from limner.data.dataset import Dataset, drop_empty_captions, missing_caption_problems, split_by_hash
from limner.data.layouts.entry import CAPTION_COLUMNS
from limner.data.media_folder import visible_below
from limner.data.recognition import promises_medium
from limner.data.split_lists import SPLIT_NAMES
from limner.data.tar_files import TAR_SUFFIXES

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def read(source: str | Path, file_column: str = "", caption_column: str = "") -> Dataset:
    """Read the tars of a folder, of a pattern (`shard-{000000..000099}.tar`, `shard-*.tar`), or a single one.

    A text file has one caption per line; else a JSON file has `caption`, `text` or another usual name, or the name
    `caption_column`.  The split is the field `split` of the JSON file, else a word of the tar's path below the folder
    (`train-000000.tar`, `val/00000.tar`), else a hash of the id decides.  The id is the name of the sample; when two
    tars have the same name, the tar's name stands before it.  `file_column` is the ending of the medium, if a sample
    has several.  Raises ValueError when there is no tar, or none has an image or clip.
    """
    tars = find_tars(source)
    samples: list[tuple[str, Medium]] = []
    problems: list[str] = []
    for tar in tars:
        index = open_archive(tar)
        assert isinstance(index, TarIndex)
        problems += index.problems
        found, some = _samples(index, tar, caption_column, file_column)
        problems += some
        samples += [(tar.name.partition(".")[0], medium) for medium in found]
    if not samples:
        raise ValueError(
            f"{source}: no image or clip in {len(tars)} tars; expected samples like 000001.jpg, 000001.txt"
        )
    media = [medium for _, medium in samples]
    if len({medium.id for medium in media}) < len(media):
        media = [_with_id(medium, f"{shard}/{medium.id}") for shard, medium in samples]
    cleaned = drop_empty_captions(_with_splits(media, Path(source)))
    return Dataset(cleaned.media, (*problems, *cleaned.problems, *missing_caption_problems(cleaned.media)))


def find_tars(source: str | Path) -> list[Path]:
    """The tars of a folder, pattern or path, ordered by name.  Raises FileNotFoundError when there is none."""
    text = str(source)
    if Path(text).is_dir():
        found = [path for path in visible_below(Path(text)) if path.name.lower().endswith(TAR_SUFFIXES)]
        tars = [path for path in found if path.is_file()]
    elif braces := _BRACES.search(text):
        first, last = braces.groups()
        numbers = range(int(first), int(last) + 1)
        names = [f"{text[: braces.start()]}{number:0{len(first)}d}{text[braces.end() :]}" for number in numbers]
        tars = [Path(name) for name in names]
        if absent := [path for path in tars if not path.is_file()]:
            raise FileNotFoundError(
                f"{source}: {len(absent)} of {len(tars)} tars do not exist, the first is {absent[0]}"
            )
    else:
        tars = [Path(text)] if Path(text).is_file() else sorted(map(Path, glob.glob(text)))
    if not tars:
        raise FileNotFoundError(
            f"no tar at '{source}'; expected a tar, a folder of tars, or shard-{{000000..000099}}.tar"
        )
    return tars


def _samples(index: TarIndex, tar: Path, caption_column: str, ending: str) -> tuple[list[Medium], list[str]]:
    """The samples of one tar, and a line for each caption file that cannot be read or has no medium."""
    groups: dict[str, dict[str, str]] = {}  # key -> ending -> name in the tar
    for name in index.places:
        folder, slash, file = name.rpartition("/")
        stem, _, rest = file.partition(".")
        groups.setdefault(folder + slash + stem, {})[f".{rest.lower()}"] = name
    media, problems, orphans = [], [], []
    for key, files in groups.items():
        endings = (f".{ending.lstrip('.')}",) if ending else tuple(files)
        candidates = sorted((files[end] for end in endings if end in files), key=lambda name: not promises_medium(name))
        medium = next((name for name in candidates if index.is_medium(name)), None)
        if medium is None:
            orphans += [key] if {".txt", ".json"} & files.keys() else []
            continue
        try:
            captions, fields = _captions(index, files, caption_column)
        except ValueError as error:
            captions, fields = (), {}
            problems.append(f"{key}: {error}")
        split = SPLIT_NAMES.get(str(fields.get("split", "")).lower(), "")
        media.append(Medium(key, f"{tar}/{medium}", split, captions))
    if orphans:
        problems.append(f"{tar}: {len(orphans)} samples have no image or clip, the first is {orphans[0]}")
    return media, problems


def _captions(index: TarIndex, files: dict[str, str], column: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The captions of a sample, and the fields of its JSON file.  Raises ValueError when a file is not as expected."""
    fields: Any = {}
    if ".json" in files:
        fields = parse_json(index.read(files[".json"]), f"{index.path}/{files['.json']}")
        fields = {"caption": fields} if isinstance(fields, str | list) else fields
        if not isinstance(fields, dict):
            raise ValueError(f"{index.path}/{files['.json']}: expected an object with a caption, got {fields!r:.40}")
    if ".txt" in files and not column:
        try:
            lines = index.read(files[".txt"]).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{index.path}/{files['.txt']} is not UTF-8 text ({error.reason})") from error
        return tuple(line for line in lines if line.strip()), fields
    name = next((name for name in ((column,) if column else CAPTION_COLUMNS) if name in fields), None)
    if name is None:
        return (), fields
    values = (
        fields[name] if isinstance(fields[name], Sequence) and not isinstance(fields[name], str) else [fields[name]]
    )
    texts = [value.get("raw", value.get("caption")) if isinstance(value, dict) else value for value in values]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"{index.path}/{files['.json']}: a caption must be text, got {fields[name]!r:.60}")
    return tuple(text for text in texts if text), fields


def _with_id(medium: Medium, id: str) -> Medium:
    return Medium(id, medium.path, medium.split, medium.references)


def split_of_path(path: Path) -> str:
    """The split that a word of a path names, or "".

    >>> split_of_path(Path("cc3m/validation/00001.tar")), split_of_path(Path("train-00000-of-00002.parquet"))
    ('val', 'train')
    """
    for part in reversed(path.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return ""


def _with_splits(media: Sequence[Medium], source: Path) -> list[Medium]:
    """The media with a split each: their own, that of the tar's path, or by a hash of the id."""
    root = source if source.is_dir() else source.parent
    by_tar: dict[Path, str] = {}
    made = []
    for medium in media:
        tar = next(parent for parent in Path(medium.path).parents if parent.name.lower().endswith(TAR_SUFFIXES))
        if tar not in by_tar:
            by_tar[tar] = split_of_path(tar.relative_to(root) if tar.is_relative_to(root) else Path(tar.name))
        split = medium.split or by_tar[tar] or split_by_hash(medium.id)
        made.append(Medium(medium.id, medium.path, split, medium.references))
    return made
