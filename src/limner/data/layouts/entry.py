"""`Entry`, what every layout of a caption file yields, and the names of the columns that rows may have."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# The first name that is present is taken; names are compared in small letters.
FILE_COLUMNS = (
    "file",
    "filename",
    "path",
    "image",
    "video",
    "file_name",
    "image_path",
    "video_path",
    "filepath",
    "file_path",
    "image_name",
    "video_name",
    "image_file",
    "img",
)
OWN_ID_COLUMNS = ("image_id", "video_id", "videoid")  # ids of media; in COCO, `id` numbers the annotations
URL_COLUMNS = ("url", "image_url")  # the last resort: then the address is the id
ID_COLUMNS = (*OWN_ID_COLUMNS, "id", *FILE_COLUMNS, *URL_COLUMNS)
CAPTION_COLUMNS = (
    "caption",
    "captions",
    "text",
    "texts",
    "description",
    "descriptions",
    "sentence",
    "sentences",
    "comment",
    "raw",
    "encap",
    "chcap",
)
ENGLISH, CHINESE = "encap", "chcap"  # of VATEX
SPLIT_COLUMNS = ("split",)


class UnknownLayoutError(ValueError):
    """A file has none of the known layouts; whoever catches it adds which ones are known."""


class Entry(NamedTuple):
    """What one row or object of a file says about one image or clip.

    where       its place in the file, for messages
    left_out    captions that the layout marks as unusable, by reason
    start, end  seconds, when the captions are those of a part of a clip
    fields      all fields of the row or object; None: it belongs to an image that another entry describes, or the
                layout has no fields
    problem     why the entry is left out, when `Reading.keep_going` goes on after what is otherwise an error
    """

    where: str
    id: Any
    captions: Sequence[Any] = ()
    split: Any = None
    file: Any = None
    left_out: Sequence[str] = ()
    start: float | None = None
    end: float | None = None
    note: str = ""  # about the file: said once, however many entries have it
    fields: Mapping[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    file_column, caption_column  names of columns, when they are unusual
    file_is_id  take the id of a row from `id` or the file name, as data sets do, and not from `image_id` first
    restval     Karpathy's restval images join the training split; False leaves them out
    where       only entries whose fields have one of these values, as texts
    allow_gaps  a row without an id is left out and adds a problem line, and a caption may be null, which is empty;
                otherwise both are errors
    keep_going  an id that occurs twice where it must not, or has two files or two splits, keeps the first and adds a
                problem line; otherwise it is an error
    """

    file_column: str = ""
    caption_column: str = ""
    file_is_id: bool = False
    restval: bool = True
    allow_gaps: bool = False
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep_going: bool = False


@dataclass(frozen=True)
class Columns:
    """The columns of a row: those of the id and the captions, and "" or () for others that it lacks."""

    ids: tuple[str, ...]  # the first one that is not empty is the id
    captions: tuple[str, ...]
    file: str = ""
    split: str = ""
    note: str = ""


def find_columns(names: Iterable[Any], reading: Reading, where: str) -> Columns:
    """Choose the columns of a row by their names.

    Raises ValueError, which lists the names, when there is no id or file, or no caption.
    """
    known = [name for name in names if isinstance(name, str) and name.strip()]
    file = _chosen(known, reading.file_column, where) if reading.file_column else column(FILE_COLUMNS, known)
    captions, note = _caption_columns(known)
    if reading.caption_column:
        captions, note = (_chosen(known, reading.caption_column, where),), ""
    ids = _id_columns(known, file, reading)
    if not ids:
        raise ValueError(
            f"{where} has the columns {known}; none of them is a file or id column (one of {', '.join(ID_COLUMNS)})"
        )
    if not captions:
        raise ValueError(
            f"{where} has the columns {known}; none of them is a caption column (one of {', '.join(CAPTION_COLUMNS)})"
        )
    return Columns(ids, captions, file, column(SPLIT_COLUMNS, known), note)


def is_row(names: Iterable[Any], reading: Reading) -> bool:
    """Whether these are the columns of a row with an id or file, and a caption."""
    try:
        find_columns(names, reading, "")
    except ValueError:
        return False
    return True


def _id_columns(names: Sequence[str], file: str, reading: Reading) -> tuple[str, ...]:
    own = column(OWN_ID_COLUMNS, names)
    other = file or column(URL_COLUMNS, names)
    if not reading.file_is_id:
        chosen = [own or column(("id",), names) or other]
    else:  # beside an image_id, `id` numbers the captions
        chosen = [other or own] if own else [column(("id",), names), other]
    return tuple(name for name in chosen if name)


def _caption_columns(names: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The columns with captions: one, and those that have its name with a number; and what was chosen from others."""
    plain = column(CAPTION_COLUMNS, names)
    for base in (plain.strip().lower(),) if plain else CAPTION_COLUMNS:
        pattern = re.compile(rf"{re.escape(base)}[ _.-]?\d+")
        numbered = tuple(name for name in names if pattern.fullmatch(name.strip().lower()))
        if plain or numbered:
            both = column((ENGLISH,), names) and column((CHINESE,), names)
            note = "the English captions were read; the column of the Chinese ones is chCap" if both else ""
            return (*([plain] if plain else []), *numbered), note if base == ENGLISH else ""
    return (), ""


def _chosen(names: Sequence[str], wanted: str, where: str) -> str:
    """The column called `wanted`, or equal to it without case and outer blanks.  Raises ValueError without one."""
    if wanted in names:
        return wanted
    if not (found := column((wanted.lower(),), names)):
        raise ValueError(f"{where} has no column '{wanted}'; it has {', '.join(names)}")
    return found


def column(wanted: Sequence[str], names: Iterable[str]) -> str:
    """The first of `wanted` that is in `names`, in upper or lower case; "" when none is.

    >>> column(("file", "image"), ["Image", "Caption"])
    'Image'
    """
    names = list(names)
    known = {name.strip().lower(): name for name in reversed(names)} | {name: name for name in names}
    return next((known[name] for name in wanted if name in known), "")


def objects(rows: Any, where: str) -> list[dict[str, Any]]:
    """`rows`, which must be a list of objects.  Raises ValueError for anything else."""
    if not isinstance(rows, list | tuple) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{where}: expected a list of objects, got {shorten(rows)}")
    return list(rows)


def get(row: dict[str, Any], key: str, where: str) -> Any:
    """The value of a key that a row must have.  Raises ValueError, which lists its keys, when it has not."""
    if key not in row:
        raise ValueError(f"{where} has {list(row)}, but no '{key}'")
    return row[key]


def as_list(value: Any) -> list[Any]:
    """A list as it is, another value as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def field_texts(value: Any) -> tuple[str, ...]:
    """The texts with which a field is compared: of a value one, of a list one for each item.

    >>> field_texts(4), field_texts(["a", True])
    (('4',), ('a', 'true'))
    """
    return tuple(item if isinstance(item, str) else json.dumps(item) for item in as_list(value))


def shorten(value: Any) -> str:
    """A value for messages, in at most 60 characters."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
