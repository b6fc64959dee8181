"""Reader of Parquet files and of Hugging Face data sets on disk: a folder of Parquet files, or one of `save_to_disk`.

Neither the package `datasets` nor a loading script is used: only Arrow and JSON files are read, and no code runs.
"""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from limner.core.files import parse_json, read_json
from limner.core.torch_free import Medium
from limner.data.archives import open_archive
from limner.data.arrow_tables import ARROW_SUFFIXES, ArrowTable, find_media_column
from limner.data.dataset import Dataset, drop_empty_captions, missing_caption_problems, split_by_hash
from limner.data.layouts.entry import CAPTION_COLUMNS, FILE_COLUMNS
from limner.data.media_folder import visible_below
from limner.data.split_lists import SPLIT_NAMES
from limner.data.webdataset import split_of_path

CAPTION_NAMES = (*CAPTION_COLUMNS, "sentences_raw", "sentences", "raw", "answer", "alt_text", "en")
ID_COLUMNS = ("id", "image_id", "img_id", "imgid", "cocoid", "video_id", "key")
TEXT_FIELDS = ("raw", "caption", "text", "sentence")  # of captions that are objects


def read(source: str | Path, media: str | Path = "", file_column: str = "", caption_column: str = "") -> Dataset:
    """Read Parquet or Arrow files: a file, a folder, or a pattern.

    The column of the media holds bytes, the structure {bytes, path} of `datasets`, or paths below `media`.  A column of
    captions holds a text, a list of texts, or objects with `raw` or `caption`; `caption_0`, `caption_1` ... count too.
    The columns are found by their usual names, or are `file_column` and `caption_column`.  The split is the column
    `split`, else a word of the file's path (`train-00000-of-00002.parquet`, `validation/`), else a hash of the id
    decides.  The id is the column `id`, `image_id` or the like, and rows of one id are joined; else the file name that
    every row stores, if they differ; else FILE/ROW.  Raises ValueError, with the columns of the file, when one is
    missing, and ImportError without pyarrow.
    """
    files = find_files(source)
    entries: list[_Row] = []
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    for file in files:
        table = open_archive(file)
        assert isinstance(table, ArrowTable)
        inside = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        entries += _rows(table, split_of_path(inside), Path(media), file_column, caption_column)
    if not entries:
        raise ValueError(f"{source}: there are no rows in {len(files)} files")
    cleaned = drop_empty_captions(_joined(entries))
    return Dataset(cleaned.media, (*cleaned.problems, *missing_caption_problems(cleaned.media)))


def find_files(source: str | Path) -> list[Path]:
    """The Parquet and Arrow files of a path, folder or pattern, in the order of their names.

    Of a folder that `save_to_disk` wrote, the files that its `state.json` lists.  Raises FileNotFoundError when there
    is none, ValueError when rows were chosen by an index that `save_to_disk` no longer writes.
    """
    root = Path(source)
    if not root.is_dir():
        files = [root] if root.is_file() else sorted(map(Path, glob.glob(str(source))))
    elif states := [path for path in visible_below(root) if path.name == "state.json"]:
        files = [path for state in states for path in _listed(state)]
    else:
        below = (path for path in visible_below(root) if path.suffix.lower() in ARROW_SUFFIXES and path.is_file())
        files = [path for path in below if not path.name.startswith("cache-")]
    if not files:
        raise FileNotFoundError(
            f"no Parquet or Arrow file at '{source}'; expected such files, or a folder of save_to_disk"
        )
    if wrong := [path for path in files if path.suffix.lower() not in ARROW_SUFFIXES]:
        raise ValueError(f"{wrong[0]} is no Parquet or Arrow file; known endings are {', '.join(ARROW_SUFFIXES)}")
    return files


def _listed(state: Path) -> list[Path]:
    saved = read_json(state)
    try:
        if saved.get("_indices_data_files"):
            raise ValueError(f"{state.parent}: its rows are chosen by an index; flatten_indices() and save it again")
        return [state.parent / entry["filename"] for entry in saved["_data_files"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{state} is not a state of a saved data set ({error!r}); expected _data_files") from error


class _Row(NamedTuple):
    medium: Medium  # its id is FILE/ROW
    id: str  # of the id column; "" without one
    stored: str  # file name that is stored beside the bytes; "" without one


def _rows(table: ArrowTable, split: str, media: Path, file_column: str, caption_column: str) -> Iterator[_Row]:
    """The media of one file.  Without a split of its own a medium gets `split`."""
    column = _choose(table, file_column, FILE_COLUMNS, "media", find_media_column(table.schema))
    numbered = [name for name in table.columns if re.fullmatch(r"caption[_ ]?\d+", name.lower())]
    usual = any(name in CAPTION_NAMES for name in table.columns)
    captions = numbered if numbered and not (caption_column or usual) else []
    captions = captions or [_choose(table, caption_column, CAPTION_NAMES, "caption")]
    known = [name for name in ("split", *ID_COLUMNS) if name in table.columns]
    id_column = next((name for name in known if name != "split"), "")
    names, paths = _media_names(table, column, media), table.stored_paths(column)
    stem = table.path.name.partition(".")[0]
    rows = table.values([*captions, *known])
    for number, (row, name, path) in enumerate(zip(rows, names, paths, strict=True)):
        id = "" if row.get(id_column) is None else str(row[id_column])
        own = str(row.get("split") or "").strip().lower()
        own = "train" if own == "restval" else SPLIT_NAMES.get(own, own)
        texts = [text for each in captions for text in _texts(row[each], f"{table.path}, row {number}")]
        stored = PurePosixPath(path or "").name
        fallback = f"{stem}/{number}"
        split_of_row = own or split or split_by_hash(id or stored or fallback)
        yield _Row(Medium(fallback, name, split_of_row, tuple(texts)), id, stored)


def _choose(table: ArrowTable, given: str, usual: Sequence[str], what: str, first: str | None = None) -> str:
    """The column `given`, else `first`, else the first of the usual names.  Raises ValueError when there is none."""
    names = {name.lower(): name for name in reversed(table.columns)}
    if given and given.lower() not in names:
        raise ValueError(f"{table.path} has no column '{given}'; it has {', '.join(table.columns)}")
    column = names[given.lower()] if given else first or next((names[name] for name in usual if name in names), None)
    if column is None:
        raise ValueError(
            f"{table.path} has the columns {', '.join(table.columns)}; none of them is a {what} column: give "
            f"data.{'caption' if what == 'caption' else 'file'}_column"
        )
    return column


def _media_names(table: ArrowTable, column: str, media: Path) -> Iterable[str]:
    """The paths of the media of a file: inside it, or below the folder `media` where it stores only paths."""
    if column == find_media_column(table.schema):
        return (f"{table.path}/{name}" for name in table.media_names(column))
    return (str(media / str(row[column])) for row in table.values([column]))


def _texts(value: Any, where: str) -> tuple[str, ...]:
    """The captions in a cell.  A text that is a JSON list counts as a list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value, where)
        except ValueError:
            value = [value]
    values = value if isinstance(value, list) else [value]
    texts = []
    for each in values:
        field = next((name for name in TEXT_FIELDS if name in each), None) if isinstance(each, dict) else None
        text = each[field] if isinstance(each, dict) and field else each
        if not (text is None or isinstance(text, str)):
            raise ValueError(f"{where}: a caption must be text, got {each!r:.60}")
        texts.append(text or "")
    return tuple(texts)


def _joined(rows: Sequence[_Row]) -> list[Medium]:
    """The media of all rows, with ids.  Rows with one id in one split are one medium, with all their captions.

    Ids that begin anew in each split get the split before them.
    """
    if not all(row.id for row in rows):
        names = [row.stored for row in rows]
        unique = all(names) and len(set(names)) == len(names)
        return [replace(row.medium, id=row.stored) if unique else row.medium for row in rows]
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.id, set()).add(row.medium.split)
    several = any(len(names) > 1 for names in splits.values())
    by_id: dict[str, Medium] = {}
    for row in rows:
        id = f"{row.medium.split}/{row.id}" if several else row.id
        first = by_id.get(id)
        captions = row.medium.references if first is None else first.references + row.medium.references
        by_id[id] = replace(first or row.medium, id=id, references=captions)
    return list(by_id.values())
