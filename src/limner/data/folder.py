"""Users' own data: a CSV or JSONL file with one caption per row, or a folder of media with text files beside them."""

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from limner.core.torch_free import Medium
from limner.data.dataset import SPLITS, DataSet, drop_empty, hashed_split
from limner.data.media import MEDIA_SUFFIXES

FILE_COLUMNS = ("file", "filename", "path", "image", "video", "file_name", "image_path")
CAPTION_COLUMNS = ("caption", "captions", "text", "description", "sentence")


def read_csv(annotations: str | Path, media: str | Path, file_column: str = "", caption_column: str = "") -> DataSet:
    """Columns file and caption (usual other names are understood, in capitals too), optional split and id; one caption
    per row.

    Rows without a split get one from a hash of their id (about 80/10/10).  Raises ValueError naming the columns found.
    """
    with _text(annotations) as file:
        sample = file.read(4096)
        file.seek(0)
        delimiter = "\t" if sample.split("\n", 1)[0].count("\t") else ";" if ";" in sample.split("\n", 1)[0] else ","
        rows = csv.DictReader(file, delimiter=delimiter)
        try:
            names = rows.fieldnames or []
            file_key = _column(annotations, names, file_column, FILE_COLUMNS, "file")
            caption_key = _column(annotations, names, caption_column, CAPTION_COLUMNS, "caption")
            split, id = _find("split", names) or "split", _find("id", names) or "id"
            lines = ((rows.line_num, row[file_key], [row[caption_key]], row.get(split), row.get(id)) for row in rows)
            return _group(annotations, Path(media), lines)
        except csv.Error as error:
            raise ValueError(
                f"{annotations}, line {rows.line_num + 1}: {error}; has a quote been left open there?"
            ) from error


def read_jsonl(annotations: str | Path, media: str | Path, file_column: str = "", caption_column: str = "") -> DataSet:
    """One object per line with file and caption (or a list `captions`), optional split and id."""

    def lines() -> Iterator[tuple[int, str | None, list[str | None], str | None, str | None]]:
        with _text(annotations) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{annotations}, line {number}: not JSON ({error.msg})") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{annotations}, line {number}: expected an object with file and caption")
                file_key = _column(f"{annotations}, line {number}", list(row), file_column, FILE_COLUMNS, "file")
                caption_key = _column(
                    f"{annotations}, line {number}", list(row), caption_column, CAPTION_COLUMNS, "caption"
                )
                captions = row[caption_key] if isinstance(row[caption_key], list) else [row[caption_key]]
                if not all(text is None or isinstance(text, str) for text in captions):
                    raise ValueError(f"{annotations}, line {number}: a caption is text, got {row[caption_key]!r}")
                split, id = row.get(_find("split", row)), row.get(_find("id", row))
                for what, value in (("file name", row[file_key]), ("split", split)):
                    if not (value is None or isinstance(value, str)):
                        raise ValueError(f"{annotations}, line {number}: a {what} is text, got {value!r}")
                yield number, row[file_key], captions, split, id

    return _group(annotations, Path(media), lines())


def read_folder(annotations: str | Path, media: str | Path) -> DataSet:
    """Pictures and clips below `media` in name order; `dog.txt` beside `dog.jpg` holds its captions, one per line.

    A folder named train, val or test on the way gives the split; otherwise a hash of the id does.  `annotations` is
    a folder for the text files when they are kept apart (empty: beside the media).
    """
    root = Path(media)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; expected one with pictures or clips")
    texts = Path(annotations) if str(annotations) not in ("", ".") else root
    found, problems = [], []
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES):
        relative = path.relative_to(root)
        name = str(relative).encode(errors="backslashreplace").decode()
        if name != str(relative):  # it could stand in no output
            problems.append(f"{name}: the file name is not UTF-8; rename it")
            continue
        text = (texts / relative).with_suffix(".txt")
        captions: tuple[str, ...] = ()
        if text.is_file():
            with _text(text) as file:
                captions = tuple(file.read().splitlines())
        split = next((part for part in relative.parts[:-1] if part in SPLITS), hashed_split(relative.as_posix()))
        found.append(Medium(relative.as_posix(), str(path), split, tuple(line for line in captions if line.strip())))
    if not found:
        raise ValueError(f"no picture or clip below {root}; known endings are {' '.join(sorted(MEDIA_SUFFIXES))}")
    cleaned = drop_empty(found)
    return DataSet(cleaned.media, (*problems, *cleaned.problems))


def _column(where: str | Path, names: Iterable[str], given: str, usual: tuple[str, ...], what: str) -> str:
    names = list(names)
    for name in (given,) if given else usual:
        if found := _find(name, names):
            return found
    if given:
        raise ValueError(f"{where} has no column '{given}'; it has {', '.join(names)}")
    raise ValueError(f"{where} has the columns {names}; none of them is a {what} column (one of {', '.join(usual)})")


def _find(name: str, names: Iterable[str]) -> str:
    """The one of `names` that is `name`, or else is like it but for capitals and blanks around it; "" if none."""
    names = list(names)
    return name if name in names else next((other for other in names if other.strip().lower() == name.lower()), "")


@contextmanager
def _text(path: str | Path) -> Iterator[TextIO]:
    """A UTF-8 file with its line ends as they are."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _group(
    annotations: str | Path,
    root: Path,
    rows: Iterable[tuple[int, str | None, list[str | None], str | None, str | None]],
) -> DataSet:
    """Gather the captions of each file; rows without a file are dropped and reported."""
    captions: dict[str, list[str]] = {}
    about: dict[str, tuple[str, str]] = {}
    problems = []
    for number, name, texts, split, id in rows:
        if not name:
            problems.append(f"line {number}: no file name")
            continue
        key = str(id) if id not in (None, "") else name
        place = (name, split or hashed_split(key))
        if about.setdefault(key, place) != place:
            raise ValueError(f"{annotations}, line {number}: '{key}' has two files or splits: {about[key]}, {place}")
        captions.setdefault(key, []).extend(text or "" for text in texts)
    media = [Medium(key, str(root / name), split, tuple(captions[key])) for key, (name, split) in about.items()]
    cleaned = drop_empty(media)
    return DataSet(cleaned.media, (*problems, *cleaned.problems))
