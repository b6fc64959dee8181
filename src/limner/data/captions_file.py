"""Caption files of the usual layouts, recognised by their content: captions by id, whichever tool wrote them."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from limner.core.torch_free import Medium
from limner.data import shapes
from limner.data.folder import CAPTION_COLUMNS, FILE_COLUMNS, read_folder

ID_COLUMNS = ("image_id", "video_id", "id", *FILE_COLUMNS)  # the first that is there; COCO's `id` counts annotations
EXPECTED = (
    "a list of objects with image_id (or video_id, id, file) and caption, as COCO results are; COCO annotations "
    "(images, annotations); Karpathy's JSON (images with sentences); MSR-VTT's (videos, sentences); an object {id: "
    "caption or list of captions}; JSONL; CSV or TSV whose header names an id or file and a caption; lines "
    "'id<TAB>caption' (MSVD); one of these in a ZIP file; a folder of media with text files, or a micro-world"
)
SHAPES = "micro-world"  # CaptionsFile.format of a folder made by `limner shapes`
TEXT_ENDINGS = (".json", ".jsonl", ".csv", ".tsv")
ZIP_MAGIC = b"PK\x03\x04"

# What some tool takes for the end of a line, and so for the next caption; NUL ends strings elsewhere.
_BREAK = re.compile("[\0\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_HALF = re.compile("[\ud800-\udfff]")  # lone surrogates cannot be written as UTF-8


@dataclass(frozen=True)
class CaptionsFile:
    """Captions by id, in the order of the file; an id may have none.

    A number as id is its decimal text: 42 and "42" are one.  `splits` and `files` (media, as the file names them) hold
    the ids of which the file says so.  `notes` tell what was mended while reading.
    """

    path: str
    format: str
    captions: dict[str, tuple[str, ...]]
    splits: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> "CaptionsFile":
        """The ids of one split.  Raises ValueError that lists the splits there are."""
        chosen = {id: texts for id, texts in self.captions.items() if self.splits.get(id) == name}
        if not chosen:
            known = ", ".join(dict.fromkeys(self.splits.values())) or "none: it says nothing about splits"
            raise ValueError(f"{self.path} has no split '{name}'; it has {known}")
        return replace(self, captions=chosen)


class _Entry(NamedTuple):
    """What one place of a file says about one id."""

    where: str
    id: Any
    captions: Sequence[Any] = ()
    split: Any = None
    file: Any = None


def read_captions(path: str | Path) -> CaptionsFile:
    """Read a file or folder of any layout in `EXPECTED`.

    In captions, characters that end a line become blanks and lone surrogates become U+FFFD; all but \\n are noted.
    Raises ValueError that names the place and what was expected there, OSError when the path cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _gather(path, *_folder(path))
        text = _text(path)
        return _gather(path, *(_json(text, path) if text.lstrip()[:1] in ("[", "{") else _lines(text)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _gather(path: Path, format: str, entries: Iterable[_Entry]) -> CaptionsFile:
    """Put together what entries say of the same id, and check every value."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    files: dict[str, str] = {}
    broken = halves = 0
    for entry in entries:
        id = _id(entry.id, entry.where)
        known = captions.setdefault(id, [])
        for text in entry.captions:
            if not isinstance(text, str):
                raise ValueError(f"{entry.where}: the caption of {id!r} is {text!r}; a caption is text")
            broken += bool(_BREAK.search(text))
            halves += bool(_HALF.search(text))
            known.append(_HALF.sub("\ufffd", _BREAK.sub(" ", text)).replace("\n", " "))
        if entry.split not in (None, "") and splits.setdefault(id, str(entry.split)) != str(entry.split):
            raise ValueError(f"{entry.where}: {id!r} is in two splits, {splits[id]!r} and {entry.split!r}")
        if isinstance(entry.file, str) and entry.file:
            files[id] = entry.file
    if not captions:
        raise ValueError(f"there are no captions in it; expected {EXPECTED}")
    notes = []
    if broken:
        notes.append(f"{path}: {broken} captions held line ends or NUL, which are read as blanks")
    if halves:
        notes.append(f"{path}: {halves} captions held half a character (a lone surrogate), which is read as U+FFFD")
    found = {id: tuple(texts) for id, texts in captions.items()}
    return CaptionsFile(str(path), format, found, splits, files, tuple(notes))


def _id(value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip() or _HALF.search(value):
        raise ValueError(f"{where}: an id is a whole number or text, got {value!r}")
    return value.strip()


# --- where the text comes from ----------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """The text of a file, or of the only caption file in a ZIP."""
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
            raise ValueError(f"a damaged ZIP file ({error}); fetch it again") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def _is_caption_file(member: str) -> bool:
    return member.lower().endswith(TEXT_ENDINGS) and not member.startswith("__MACOSX")


def _folder(path: Path) -> tuple[str, Iterator[_Entry]]:
    if (path / "truth.json").is_file():
        return SHAPES, _media(shapes.load(path))
    return "folder", _media(read_folder("", path).media)


def _media(media: Iterable[Medium]) -> Iterator[_Entry]:
    for medium in media:
        yield _Entry(medium.id, medium.id, medium.references, medium.split, medium.path)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(text: str, path: Path) -> tuple[str, Iterable[_Entry]]:
    try:
        saved = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"not JSON ({error}); is the file cut off?") from error
        return "JSONL", _rows(_jsonl(text))
    except RecursionError as error:
        raise ValueError(f"JSON of too many levels; expected {EXPECTED}") from error
    if isinstance(saved, list):
        return "COCO results", _rows((f"item {k}", row) for k, row in enumerate(saved))
    if saved.get("format") == shapes.FORMAT:
        return SHAPES, _media(shapes.load(path.parent))
    return _object(saved)


def _object(saved: dict[str, Any]) -> tuple[str, Iterable[_Entry]]:
    if _column(ID_COLUMNS, saved) and _column(CAPTION_COLUMNS, saved):
        return "JSONL", _rows([("line 1", saved)])
    lists = {key for key, value in saved.items() if isinstance(value, list) and not isinstance((value or [0])[0], str)}
    if "annotations" in lists:
        return "COCO annotations", _coco(saved)
    if {"videos", "sentences"} <= lists:
        return "MSR-VTT", _msrvtt(saved)
    if "images" in lists:
        return "Karpathy", _karpathy(saved)
    return "JSON", _plain(saved)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):  # json alone keeps the last one and says nothing
        twice = next(key for k, (key, _) in enumerate(pairs) if key in dict(pairs[:k]))
        raise ValueError(f"the key {twice!r} stands twice in one object; remove one of the two")
    return made


def _jsonl(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would cut a caption at U+2028
        if line.strip():
            try:
                yield f"line {number}", json.loads(line, object_pairs_hook=_once)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: not JSON ({error.msg}); is the file cut off?") from error


def _rows(rows: Iterable[tuple[str, Any]]) -> Iterator[_Entry]:
    """Objects that name an id and a caption, or a list of captions."""
    for where, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object with an id and a caption, got {_shown(row)}")
        id, caption = _column(ID_COLUMNS, row), _column(CAPTION_COLUMNS, row)
        if not id or not caption:
            raise ValueError(f"{where} has {list(row)}; expected one of {ID_COLUMNS} and one of {CAPTION_COLUMNS}")
        file = _column(FILE_COLUMNS, row)
        texts = row[caption] if isinstance(row[caption], list) else [row[caption]]
        yield _Entry(where, row[id], texts, row.get("split"), row[file] if file else None)


def _coco(saved: dict[str, Any]) -> Iterator[_Entry]:
    """The images first: coco-caption scores in their order, and its tokens depend on the order."""
    for k, image in enumerate(_objects(saved.get("images", ()), "images")):
        yield _Entry(f"images[{k}]", _get(image, "id", f"images[{k}]"), file=image.get("file_name"))
    for k, row in enumerate(_objects(saved["annotations"], "annotations")):
        where = f"annotations[{k}]"
        yield _Entry(where, _get(row, "image_id", where), [_get(row, "caption", where)])


def _msrvtt(saved: dict[str, Any]) -> Iterator[_Entry]:
    for k, video in enumerate(_objects(saved["videos"], "videos")):
        split = "val" if video.get("split") == "validate" else video.get("split")
        yield _Entry(f"videos[{k}]", _get(video, "video_id", f"videos[{k}]"), split=split)
    for k, row in enumerate(_objects(saved["sentences"], "sentences")):
        where = f"sentences[{k}]"
        yield _Entry(where, _get(row, "video_id", where), [_get(row, "caption", where)])


def _karpathy(saved: dict[str, Any]) -> Iterator[_Entry]:
    """Ids and splits as in `limner.data.karpathy`; all captions are kept, as coco-caption keeps them."""
    seen = set()
    for k, image in enumerate(saved["images"]):
        where = f"images[{k}]"
        name = _get(image, "filename", where)
        id = image["cocoid"] if "cocoid" in image else Path(name).stem
        if id in seen:
            raise ValueError(f"{where}: {id!r} stands twice; ids must be unique")
        seen.add(id)
        split = "train" if image.get("split") == "restval" else image.get("split")
        texts = [_get(row, "raw", where) for row in _objects(_get(image, "sentences", where), f"{where}.sentences")]
        yield _Entry(where, id, texts, split, str(Path(image.get("filepath", ""), name)))


def _plain(saved: dict[str, Any]) -> Iterator[_Entry]:
    """{id: caption}, {id: [caption, ...]} or {id: [{"caption": caption}, ...]}."""
    for id, value in saved.items():
        texts = [text.get("caption") if isinstance(text, dict) else text for text in _listed(value)]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"under {id!r} stands {_shown(value)}, which is no caption and no list of captions; expected {EXPECTED}"
            )
        yield _Entry(f"key {id!r}", id, texts)


def _objects(rows: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list | tuple) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{where}: expected a list of objects, got {_shown(rows)}")
    return list(rows)


def _get(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise ValueError(f"{where} has {list(row)}, but no '{key}'")
    return row[key]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


# --- text with a caption a line ---------------------------------------------------------------------------------------


def _lines(text: str) -> tuple[str, Iterable[_Entry]]:
    first = next((line for line in text.split("\n") if line.strip()), "").rstrip("\r")
    delimiter = "\t" if "\t" in first else ";" if ";" in first else ","
    header = [field.strip().strip('"') for field in first.split(delimiter)]
    if _column(ID_COLUMNS, header) and _column(CAPTION_COLUMNS, header):
        return "CSV", _csv(text, delimiter)
    if "\t" in first:
        return "sentences", _sentences(text)
    raise ValueError(f"it begins with {first[:80]!r}, which is no caption file that is known; expected {EXPECTED}")


def _csv(text: str, delimiter: str) -> Iterator[_Entry]:
    rows = csv.DictReader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter, strict=True)
    try:
        names = list(rows.fieldnames or ())
        id, caption = _column(ID_COLUMNS, names), _column(CAPTION_COLUMNS, names)
        if not id or not caption:  # a quote in the header
            raise ValueError(f"line 1: the columns are {names}; expected one of {ID_COLUMNS} and of {CAPTION_COLUMNS}")
        file, split = _column(FILE_COLUMNS, names), _column(("split",), names)
        for row in rows:
            # a caption with a comma and without quotes would be cut short
            if None in row or None in row.values():
                count = len(names) + len(row.get(None) or ()) - sum(value is None for value in row.values())
                raise ValueError(
                    f"line {rows.line_num}: {count} fields where the header has {len(names)}; "
                    f"put captions that hold {delimiter!r} in double quotes"
                )
            yield _Entry(f"line {rows.line_num}", row[id], [row[caption]], row.get(split), row.get(file))
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num + 1}: {error}; has a quote been left open?") from error


def _sentences(text: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            id, tab, caption = line.removesuffix("\r").partition("\t")
            if not tab:
                raise ValueError(f"line {number}: expected 'id<TAB>caption', got {_shown(line)}")
            yield _Entry(f"line {number}", id, [caption])


def _column(wanted: Sequence[str], names: Iterable[str]) -> str:
    """The first of `wanted` that is among `names`, in whatever capitals; "" if none is."""
    known = {name.strip().lower(): name for name in reversed(list(names)) if name}
    return next((known[name] for name in wanted if name in known), "")
