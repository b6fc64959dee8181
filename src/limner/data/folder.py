"""Readers of your own data: a CSV or JSONL file with captions, or a folder of media with a text file for each."""

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from limner.core.torch_free import Medium
from limner.data.dataset import SPLITS, Dataset, drop_empty_captions, split_by_hash
from limner.data.media_folder import media_below

FILE_COLUMNS = ("file", "filename", "path", "image", "video", "file_name", "image_path")
CAPTION_COLUMNS = ("caption", "captions", "text", "description", "sentence")


def read_csv(annotations: str | Path, media: str | Path, file_column: str = "", caption_column: str = "") -> Dataset:
    """Read a table with one caption per row: columns file and caption, and optionally split and id.

    Other usual column names are accepted too, in upper or lower case; for any other name give `file_column` and
    `caption_column`.  Fields are separated by comma, semicolon or tab.  A row without a split gets one from a hash of
    its id (about 80/10/10).  Raises ValueError, with the columns of the file, when a column is missing.
    """
    with _open_text(annotations) as file:
        sample = file.read(4096)
        file.seek(0)
        delimiter = "\t" if sample.split("\n", 1)[0].count("\t") else ";" if ";" in sample.split("\n", 1)[0] else ","
        rows = csv.DictReader(file, delimiter=delimiter)
        try:
            names = rows.fieldnames or []
            file_key = _choose_column(annotations, names, file_column, FILE_COLUMNS, "file")
            caption_key = _choose_column(annotations, names, caption_column, CAPTION_COLUMNS, "caption")
            split, id = _match_name("split", names) or "split", _match_name("id", names) or "id"
            lines = ((rows.line_num, row[file_key], [row[caption_key]], row.get(split), row.get(id)) for row in rows)
            return _group_by_medium(annotations, Path(media), lines)
        except csv.Error as error:
            raise ValueError(
                f"{annotations}, line {rows.line_num + 1}: {error}; is a quote not closed there?"
            ) from error


def read_jsonl(annotations: str | Path, media: str | Path, file_column: str = "", caption_column: str = "") -> Dataset:
    """Read a file with one JSON object per line: file and caption (or a list `captions`), optionally split and id.

    Column names, splits and errors are those of `read_csv`.
    """

    def lines() -> Iterator[tuple[int, str | None, list[str | None], str | None, str | None]]:
        with _open_text(annotations) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{annotations}, line {number}: not JSON ({error.msg})") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{annotations}, line {number}: expected an object with file and caption")
                file_key = _choose_column(f"{annotations}, line {number}", list(row), file_column, FILE_COLUMNS, "file")
                caption_key = _choose_column(
                    f"{annotations}, line {number}", list(row), caption_column, CAPTION_COLUMNS, "caption"
                )
                captions = row[caption_key] if isinstance(row[caption_key], list) else [row[caption_key]]
                if not all(text is None or isinstance(text, str) for text in captions):
                    raise ValueError(f"{annotations}, line {number}: a caption must be text, got {row[caption_key]!r}")
                split, id = row.get(_match_name("split", row)), row.get(_match_name("id", row))
                for what, value in (("file name", row[file_key]), ("split", split)):
                    if not (value is None or isinstance(value, str)):
                        raise ValueError(f"{annotations}, line {number}: a {what} must be text, got {value!r}")
                yield number, row[file_key], captions, split, id

    return _group_by_medium(annotations, Path(media), lines())


def read_folder(annotations: str | Path, media: str | Path) -> Dataset:
    """Read the images and clips below the folder `media`, ordered by name; `dog.txt` holds the captions of `dog.jpg`.

    A text file has one caption per line.  It lies beside its medium, or in the same place below the folder
    `annotations` when that is given.  A parent folder named train, val or test gives the split, otherwise a hash of
    the id does.  The id is the path below `media`.  Raises ValueError when there are no media.
    """
    root = Path(media)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; expected a folder with images or clips")
    texts = Path(annotations) if str(annotations) not in ("", ".") else root
    below = media_below(root)
    entries, problems = [], list(below.problems)
    for path in below.media:
        relative = path.relative_to(root)
        name = str(relative).encode(errors="backslashreplace").decode()
        if name != str(relative):  # such a name cannot be written to JSON or a terminal
            problems.append(f"{name}: the file name is not UTF-8; rename it")
            continue
        text = (texts / relative).with_suffix(".txt")
        captions: tuple[str, ...] = ()
        if text.is_file():
            with _open_text(text) as file:
                captions = tuple(file.read().splitlines())
        split = next((part for part in relative.parts[:-1] if part in SPLITS), split_by_hash(relative.as_posix()))
        entries.append(Medium(relative.as_posix(), str(path), split, tuple(line for line in captions if line.strip())))
    if not entries:
        raise ValueError(f"no image or clip below {root}{'; ' + below.note(root) if below.others else ''}")
    cleaned = drop_empty_captions(entries)
    return Dataset(cleaned.media, (*problems, *cleaned.problems))


def _choose_column(where: str | Path, names: Iterable[str], given: str, usual: tuple[str, ...], what: str) -> str:
    """The column called `given`, or else the first of the `usual` names.  Raises ValueError when there is none."""
    names = list(names)
    for name in (given,) if given else usual:
        if column := _match_name(name, names):
            return column
    if given:
        raise ValueError(f"{where} has no column '{given}'; it has {', '.join(names)}")
    raise ValueError(f"{where} has the columns {names}; none of them is a {what} column (one of {', '.join(usual)})")


def _match_name(name: str, names: Iterable[str]) -> str:
    """The entry of `names` that equals `name`, or else equals it without case and outer blanks; "" if there is none."""
    names = list(names)
    return name if name in names else next((other for other in names if other.strip().lower() == name.lower()), "")


@contextmanager
def _open_text(path: str | Path) -> Iterator[TextIO]:
    """Open a UTF-8 file; line ends are not converted.  Raises ValueError when it is not UTF-8."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _group_by_medium(
    annotations: str | Path,
    root: Path,
    rows: Iterable[tuple[int, str | None, list[str | None], str | None, str | None]],
) -> Dataset:
    """Collect the captions of each medium from rows of (line number, file, captions, split, id).

    A row without a file name is dropped and adds a problem line.
    """
    captions: dict[str, list[str]] = {}
    locations: dict[str, tuple[str, str]] = {}  # id -> file name, split
    problems = []
    for number, name, texts, split, id in rows:
        if not name:
            problems.append(f"line {number}: no file name")
            continue
        key = str(id) if id not in (None, "") else name
        location = (name, split or split_by_hash(key))
        if locations.setdefault(key, location) != location:
            raise ValueError(
                f"{annotations}, line {number}: '{key}' has two files or splits: {locations[key]}, {location}"
            )
        captions.setdefault(key, []).extend(text or "" for text in texts)
    media = [Medium(key, str(root / name), split, tuple(captions[key])) for key, (name, split) in locations.items()]
    cleaned = drop_empty_captions(media)
    return Dataset(cleaned.media, (*problems, *cleaned.problems))
