"""Reader of caption files in all usual layouts, which are recognised by their content."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from limner.core.addresses import refuse_address
from limner.core.torch_free import Medium
from limner.data import shapes
from limner.data.folder import CAPTION_COLUMNS, FILE_COLUMNS, read_folder

# the first one present is taken; in COCO, `id` numbers the annotations
ID_COLUMNS = ("image_id", "video_id", "id", *FILE_COLUMNS)
EXPECTED = (
    "a list of objects with image_id (or video_id, id, file) and caption, like COCO results; COCO annotations "
    "(images, annotations); Karpathy's JSON (images with sentences); MSR-VTT's (videos, sentences); an object {id: "
    "caption or list of captions}; JSONL; CSV or TSV whose header names an id or file and a caption; lines "
    "'id<TAB>caption' (MSVD); one of these in a ZIP file; a folder of media with text files; or a micro-world"
)
SHAPES = "micro-world"  # `CaptionsFile.format` of a folder that `limner shapes` wrote
CAPTION_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
ZIP_MAGIC = b"PK\x03\x04"

# Characters that some tool reads as the end of a line, and so as the start of the next caption, or of a string (NUL).
_LINE_ENDS = re.compile("[\0\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")  # they cannot be written as UTF-8


@dataclass(frozen=True)
class CaptionsFile:
    """Captions by id, in the order of the file; an id may have none.

    The ids 42 and "42" are the same.  `splits` (id -> split) and `files` (id -> path of the medium, as written in the
    file) have only the ids for which the file says so.  `notes` has one line for each kind of repair.
    """

    path: str
    format: str
    captions: dict[str, tuple[str, ...]]
    splits: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> "CaptionsFile":
        """The captions of one split.  Raises ValueError, which lists the splits of the file, when it has none."""
        chosen = {id: texts for id, texts in self.captions.items() if self.splits.get(id) == name}
        if not chosen:
            known = ", ".join(dict.fromkeys(self.splits.values())) or "none, because the file does not name splits"
            raise ValueError(f"{self.path} has no split '{name}'; it has {known}")
        return replace(self, captions=chosen)


class _Entry(NamedTuple):
    """What one row or object of a file says about one id; `where` is its place, for messages."""

    where: str
    id: Any
    captions: Sequence[Any] = ()
    split: Any = None
    file: Any = None


def read_captions(path: str | Path) -> CaptionsFile:
    """Read the captions of a file or folder in any of the layouts that `EXPECTED` lists.

    In captions, a character that ends a line is replaced by a blank and a lone surrogate by U+FFFD; all but \\n add a
    note.  Raises ValueError, with the place and what was expected there, and OSError when the path cannot be read.
    """
    refuse_address(path)
    path = Path(path)
    try:
        if path.is_dir():
            return _collect(path, *_read_folder(path))
        text = _read_text(path)
        return _collect(path, *(_parse_json(text, path) if text.lstrip()[:1] in ("[", "{") else _parse_lines(text)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _collect(path: Path, format: str, entries: Iterable[_Entry]) -> CaptionsFile:
    """Check every value, and join the entries of the same id."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    files: dict[str, str] = {}
    line_ends = surrogates = 0  # captions with such characters
    for entry in entries:
        id = _parse_id(entry.id, entry.where)
        texts = captions.setdefault(id, [])
        for text in entry.captions:
            if not isinstance(text, str):
                raise ValueError(f"{entry.where}: the caption of {id!r} is {text!r}; a caption must be text")
            line_ends += bool(_LINE_ENDS.search(text))
            surrogates += bool(_LONE_SURROGATES.search(text))
            texts.append(_LONE_SURROGATES.sub("\ufffd", _LINE_ENDS.sub(" ", text)).replace("\n", " "))
        if entry.split not in (None, "") and splits.setdefault(id, str(entry.split)) != str(entry.split):
            raise ValueError(f"{entry.where}: {id!r} is in two splits, {splits[id]!r} and {entry.split!r}")
        if isinstance(entry.file, str) and entry.file:
            files[id] = entry.file
    if not captions:
        raise ValueError(f"there are no captions in it; expected {EXPECTED}")
    notes = []
    if line_ends:
        notes.append(f"{path}: {line_ends} captions had line ends or NUL in them, which were replaced by blanks")
    if surrogates:
        notes.append(
            f"{path}: {surrogates} captions had half a character (a lone surrogate), which was replaced by U+FFFD"
        )
    collected = {id: tuple(texts) for id, texts in captions.items()}
    return CaptionsFile(str(path), format, collected, splits, files, tuple(notes))


def _parse_id(value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip() or _LONE_SURROGATES.search(value):
        raise ValueError(f"{where}: an id must be an integer or text, got {value!r}")
    return value.strip()


# --- files and folders ------------------------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    """The text of a file; of a ZIP file, of the one caption file in it."""
    data = path.read_bytes()
    if data.startswith(ZIP_MAGIC):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [member for member in archive.namelist() if _is_caption_file(member)]
                if len(members) != 1:
                    raise ValueError(
                        f"the ZIP holds {len(members)} caption files {members[:8]}; unpack the one you mean"
                    )
                data = archive.read(members[0])
        except zipfile.BadZipFile as error:
            raise ValueError(f"the ZIP file is damaged ({error}); download it again") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def _is_caption_file(member: str) -> bool:
    return member.lower().endswith(CAPTION_SUFFIXES) and not member.startswith("__MACOSX")


def _read_folder(path: Path) -> tuple[str, Iterator[_Entry]]:
    if (path / "truth.json").is_file():
        return SHAPES, _media_entries(shapes.load_world(path))
    return "folder", _media_entries(read_folder("", path).media)


def _media_entries(media: Iterable[Medium]) -> Iterator[_Entry]:
    for medium in media:
        yield _Entry(medium.id, medium.id, medium.references, medium.split, medium.path)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _parse_json(text: str, path: Path) -> tuple[str, Iterable[_Entry]]:
    try:
        saved = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"not JSON ({error}); is the file truncated?") from error
        return "JSONL", _row_entries(_parse_jsonl(text))
    except RecursionError as error:
        raise ValueError(f"the JSON is nested too deeply; expected {EXPECTED}") from error
    if isinstance(saved, list):
        return "COCO results", _row_entries((f"item {k}", row) for k, row in enumerate(saved))
    if saved.get("format") == shapes.FORMAT:
        return SHAPES, _media_entries(shapes.load_world(path.parent))
    return _parse_object(saved)


def _parse_object(saved: dict[str, Any]) -> tuple[str, Iterable[_Entry]]:
    if _column(ID_COLUMNS, saved) and _column(CAPTION_COLUMNS, saved):
        return "JSONL", _row_entries([("line 1", saved)])
    lists = {key for key, value in saved.items() if isinstance(value, list) and not isinstance((value or [0])[0], str)}
    if "annotations" in lists:
        return "COCO annotations", _coco_entries(saved)
    if {"videos", "sentences"} <= lists:
        return "MSR-VTT", _msrvtt_entries(saved)
    if "images" in lists:
        return "Karpathy", _karpathy_entries(saved)
    return "JSON", _mapping_entries(saved)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.  Raises ValueError for a repeated key, of which `json` would silently keep the last one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = next(key for k, (key, _) in enumerate(pairs) if key in dict(pairs[:k]))
        raise ValueError(f"the key {repeated!r} occurs twice in one object; remove one of the two")
    return made


def _parse_jsonl(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # `splitlines` would split a caption at U+2028
        if line.strip():
            try:
                yield f"line {number}", json.loads(line, object_pairs_hook=_unique_keys)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: not JSON ({error.msg}); is the file truncated?") from error


def _row_entries(rows: Iterable[tuple[str, Any]]) -> Iterator[_Entry]:
    """Entries of objects with an id and a caption, or a list of captions."""
    for where, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object with an id and a caption, got {_shorten(row)}")
        id, caption = _column(ID_COLUMNS, row), _column(CAPTION_COLUMNS, row)
        if not id or not caption:
            raise ValueError(f"{where} has {list(row)}; expected one of {ID_COLUMNS} and one of {CAPTION_COLUMNS}")
        file = _column(FILE_COLUMNS, row)
        texts = row[caption] if isinstance(row[caption], list) else [row[caption]]
        yield _Entry(where, row[id], texts, row.get("split"), row[file] if file else None)


def _coco_entries(saved: dict[str, Any]) -> Iterator[_Entry]:
    """Images first, because coco-caption scores in their order, and its tokens depend on the order."""
    for k, image in enumerate(_objects(saved.get("images", ()), "images")):
        yield _Entry(f"images[{k}]", _get(image, "id", f"images[{k}]"), file=image.get("file_name"))
    for k, row in enumerate(_objects(saved["annotations"], "annotations")):
        where = f"annotations[{k}]"
        yield _Entry(where, _get(row, "image_id", where), [_get(row, "caption", where)])


def _msrvtt_entries(saved: dict[str, Any]) -> Iterator[_Entry]:
    for k, video in enumerate(_objects(saved["videos"], "videos")):
        split = "val" if video.get("split") == "validate" else video.get("split")
        yield _Entry(f"videos[{k}]", _get(video, "video_id", f"videos[{k}]"), split=split)
    for k, row in enumerate(_objects(saved["sentences"], "sentences")):
        where = f"sentences[{k}]"
        yield _Entry(where, _get(row, "video_id", where), [_get(row, "caption", where)])


def _karpathy_entries(saved: dict[str, Any]) -> Iterator[_Entry]:
    """Ids and splits as in `limner.data.karpathy`; empty captions are kept, as coco-caption keeps them."""
    seen = set()
    for k, image in enumerate(saved["images"]):
        where = f"images[{k}]"
        name = _get(image, "filename", where)
        id = image["cocoid"] if "cocoid" in image else Path(name).stem
        if id in seen:
            raise ValueError(f"{where}: {id!r} occurs twice; ids must be unique")
        seen.add(id)
        split = "train" if image.get("split") == "restval" else image.get("split")
        texts = [_get(row, "raw", where) for row in _objects(_get(image, "sentences", where), f"{where}.sentences")]
        yield _Entry(where, id, texts, split, str(Path(image.get("filepath", ""), name)))


def _mapping_entries(saved: dict[str, Any]) -> Iterator[_Entry]:
    """Entries of {id: caption}, {id: [caption, ...]} or {id: [{"caption": caption}, ...]}."""
    for id, value in saved.items():
        texts = [text.get("caption") if isinstance(text, dict) else text for text in _as_list(value)]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"the value of {id!r} is {_shorten(value)}, not a caption or a list of captions; expected {EXPECTED}"
            )
        yield _Entry(f"key {id!r}", id, texts)


def _objects(rows: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list | tuple) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{where}: expected a list of objects, got {_shorten(rows)}")
    return list(rows)


def _get(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise ValueError(f"{where} has {list(row)}, but no '{key}'")
    return row[key]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


# --- text with one caption per line -----------------------------------------------------------------------------------


def _parse_lines(text: str) -> tuple[str, Iterable[_Entry]]:
    first = next((line for line in text.split("\n") if line.strip()), "").rstrip("\r")
    delimiter = "\t" if "\t" in first else ";" if ";" in first else ","
    header = [field.strip().strip('"') for field in first.split(delimiter)]
    if _column(ID_COLUMNS, header) and _column(CAPTION_COLUMNS, header):
        return "CSV", _csv_entries(text, delimiter)
    if "\t" in first:
        return "sentences", _tab_entries(text)
    raise ValueError(f"it begins with {first[:80]!r}, which is not a known layout; expected {EXPECTED}")


def _csv_entries(text: str, delimiter: str) -> Iterator[_Entry]:
    rows = csv.DictReader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter, strict=True)
    try:
        names = list(rows.fieldnames or ())
        id, caption = _column(ID_COLUMNS, names), _column(CAPTION_COLUMNS, names)
        if not id or not caption:  # the header has quotes that the check before did not see
            raise ValueError(f"line 1: the columns are {names}; expected one of {ID_COLUMNS} and of {CAPTION_COLUMNS}")
        file, split = _column(FILE_COLUMNS, names), _column(("split",), names)
        for row in rows:
            # a caption that has a comma and no quotes would be truncated
            if None in row or None in row.values():
                count = len(names) + len(row.get(None) or ()) - sum(value is None for value in row.values())
                raise ValueError(
                    f"line {rows.line_num}: {count} fields where the header has {len(names)}; "
                    f"put captions that have {delimiter!r} in them in double quotes"
                )
            yield _Entry(f"line {rows.line_num}", row[id], [row[caption]], row.get(split), row.get(file))
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num + 1}: {error}; is a quote not closed?") from error


def _tab_entries(text: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            id, tab, caption = line.removesuffix("\r").partition("\t")
            if not tab:
                raise ValueError(f"line {number}: expected 'id<TAB>caption', got {_shorten(line)}")
            yield _Entry(f"line {number}", id, [caption])


def _column(wanted: Sequence[str], names: Iterable[str]) -> str:
    """The first of `wanted` that is in `names`, in upper or lower case; "" when none is."""
    known = {name.strip().lower(): name for name in reversed(list(names)) if name}
    return next((known[name] for name in wanted if name in known), "")
