"""Reader of caption files in all usual layouts, which are recognised by their content.

Training, extraction, evaluation and scoring read caption files here, so that all have the same layouts and checks.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limner.core.addresses import refuse_address
from limner.core.torch_free import Medium
from limner.data import shapes
from limner.data.dataset import SPLITS
from limner.data.folder import read_folder
from limner.data.layouts.content import read_text
from limner.data.layouts.entry import Entry, Reading, UnknownLayoutError
from limner.data.layouts.entry_filter import EntryFilter
from limner.data.layouts.json_files import parse_json
from limner.data.layouts.text_files import parse_lines
from limner.data.split_names import SPLIT_NAMES, normalise_split_name
from limner.data.stored_captions import read_prepared_captions, read_stored_captions

EXPECTED = (
    "a list of objects with image_id (or video_id, id, file) and caption, like COCO results or LAVIS's lists; COCO "
    "annotations (images, annotations), also VizWiz; Karpathy's JSON (images with sentences); MSR-VTT's (videos, "
    "sentences); VATEX; TextCaps; sentences with times (ActivityNet, YouCook2); an object {id: caption or list of "
    "captions}; JSONL; CSV or TSV whose header names an id or file and a caption; Flickr's results.csv and token files "
    "(name#number<TAB>caption); Conceptual Captions (caption<TAB>address); lines 'id<TAB>caption' (MSVD); one of these "
    "in a .gz or ZIP file; a folder of media with text files or metadata.csv; COCO's folder of captions_train*.json "
    "and captions_val*.json; WebDataset's tars; Parquet files or a Hugging Face data set; cocotalk.json with its "
    "labels; a folder with WORDMAP_*.json; or a micro-world"
)
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.jsonl.gz", "metadata.csv.gz")
DOMAINS = ("in-domain", "near-domain", "out-domain")  # of nocaps, by how much COCO says about what is in an image
SHAPES = "micro-world"  # `CaptionsFile.format` of a folder that `limner shapes` wrote

# Characters that some tool reads as the end of a line, and so as the start of the next caption, or of a string (NUL).
_LINE_ENDS = re.compile("[\0\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_DECIMAL_ID = re.compile(r"\d+\.0")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")  # they cannot be written as UTF-8


@dataclass(frozen=True)
class CaptionsFile:
    """Captions by id, in the order of the file; an id may have none.

    The ids 42 and "42" are the same.  `splits` (id -> split), `files` (id -> path of the medium, as written in the
    file), `times` (id -> start and end of a part of a clip, in seconds) and `groups` (id -> nocaps' domain: in-domain,
    near-domain or out-domain) have only the ids for which the file says so.  `unusable` are the ids whose captions were
    all left out, because the file marks them (VizWiz).  `notes` has one line for each kind of repair, `problems` one
    for each row without an id or caption text.
    """

    path: str
    format: str
    captions: dict[str, tuple[str, ...]]
    splits: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    times: dict[str, tuple[float, float]] = field(default_factory=dict)
    unusable: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)

    def split(self, name: str) -> "CaptionsFile":
        """The captions of one split, in any spelling.

        Raises ValueError, which lists the splits of the file, when it has none.
        """
        wanted = name if name in self.splits.values() else SPLIT_NAMES.get(name.strip().lower(), name)
        chosen = {id: texts for id, texts in self.captions.items() if self.splits.get(id) == wanted}
        if not chosen:
            known = ", ".join(dict.fromkeys(self.splits.values())) or "none, because the file does not name splits"
            raise ValueError(f"{self.path} has no split '{name}'; it has {known}")
        return replace(self, captions=chosen)


def read_captions(path: str | Path, caption_column: str = "") -> CaptionsFile:
    """Read the captions of a file or folder in any of the layouts that `EXPECTED` lists.

    In captions, a character that ends a line is replaced by a blank and a lone surrogate by U+FFFD; all but \\n add a
    note.  `caption_column` names the column of the captions, when it is unusual.  Raises ValueError, with the place and
    what was expected there, and OSError when the path cannot be read.
    """
    return read_entries(path, Reading(caption_column=caption_column))


def read_entries(path: str | Path, reading: Reading) -> CaptionsFile:
    """As `read_captions`, with all options of `Reading`."""
    refuse_address(path)
    path = Path(path)
    try:
        if stored := read_stored_captions(path, reading.caption_column):
            return _collect(path, stored[0], _media_entries(stored[1]), reading)
        if path.is_dir():
            return _collect(path, *_read_folder(path, reading), reading)
        text = read_text(path)
        if text.lstrip()[:1] not in ("[", "{"):
            return _collect(path, *parse_lines(text, reading), reading)
        if path.name == "truth.json" and f'"{shapes.FORMAT}"' in text[:200]:
            return _collect(path, SHAPES, _media_entries(shapes.load_world(path.parent)), reading)
        if prepared := read_prepared_captions(path, text):
            return _collect(path, "cocotalk", _media_entries(prepared), reading)
        return _collect(path, *parse_json(text, reading), reading)
    except UnknownLayoutError as error:
        raise ValueError(f"{path}: {error}; expected {EXPECTED}") from error
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def _read_folder(path: Path, reading: Reading) -> tuple[str, Iterator[Entry]]:
    if (path / "truth.json").is_file():
        return SHAPES, _media_entries(shapes.load_world(path))
    if files := metadata_files(path):
        return "image folder", _metadata_entries(path, files, reading)
    if annotations := coco_files(path):
        return "COCO annotations", _coco_folder_entries(annotations, reading)
    return "folder", _media_entries(read_folder("", path).media)


def metadata_files(folder: Path) -> list[Path]:
    """The files metadata.csv and metadata.jsonl of an image folder as Hugging Face's `datasets` reads it.

    There is one in the folder, or one in each of its subfolders train, val (validation) and test.
    """
    if own := [folder / name for name in METADATA if (folder / name).is_file()]:
        return own[:1]
    parts = sorted(path for path in folder.iterdir() if normalise_split_name(path.name) in SPLITS and path.is_dir())
    return [next(path / name for name in METADATA if (path / name).is_file()) for path in parts
            if any((path / name).is_file() for name in METADATA)]  # fmt: skip


def _metadata_entries(root: Path, files: Sequence[Path], reading: Reading) -> Iterator[Entry]:
    """The entries of metadata files, whose file names are relative to their folder; the id is relative to `root`."""
    reading = replace(reading, file_is_id=True)
    for path in files:
        where, text = path.relative_to(root), read_text(path)
        parse = parse_json if text.lstrip()[:1] in ("[", "{") else parse_lines
        try:
            for entry in parse(text, reading)[1]:
                inside = (where.parent / str(entry.file or entry.id).replace("\\", "/")).as_posix()
                split = entry.split or (where.parts[0] if len(where.parts) > 1 else "")
                yield entry._replace(where=f"{where}, {entry.where}", id=inside, file=inside, split=split)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def coco_files(folder: Path) -> dict[str, Path]:
    """Split -> captions_SPLIT*.json of a folder, as COCO's captions_train2017.json lies beside instances_*.json.

    Raises ValueError when there are several files for one split.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("captions_*.json*")):
        split = normalise_split_name(path.name.partition(".")[0].removeprefix("captions_").rstrip("0123456789"))
        if split in files:
            raise ValueError(f"two files for the split {split}: {files[split]} and {path}; name the one you mean")
        if split in SPLITS:
            files[split] = path
    return files


def _coco_folder_entries(files: Mapping[str, Path], reading: Reading) -> Iterator[Entry]:
    for split, path in files.items():
        try:
            for entry in parse_json(read_text(path), reading)[1]:
                yield entry._replace(where=f"{path.name}, {entry.where}", split=entry.split or split)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error


def _media_entries(media: Iterable[Medium]) -> Iterator[Entry]:
    for medium in media:
        yield Entry(medium.id, medium.id, medium.references, medium.split, medium.path)


# --- checks -----------------------------------------------------------------------------------------------------------


def _collect(path: Path, format: str, entries: Iterable[Entry], reading: Reading) -> CaptionsFile:
    """Check every value, and join the entries of the same id."""
    collector = _Collector(reading)
    for entry in entries:
        collector.add(entry)
    selected = collector.keeps.notes()
    if not collector.captions:
        raise UnknownLayoutError("there are no captions in it")
    collector.read_decimal_ids()
    unusable = frozenset(id for id in collector.marked if not collector.captions[id])
    return CaptionsFile(
        str(path),
        format,
        {id: tuple(texts) for id, texts in collector.captions.items()},
        collector.splits,
        collector.files,
        tuple(f"{path}: {note}" for note in (*selected, *collector.notes())),
        collector.times,
        unusable,
        tuple(collector.problems),
        collector.groups,
    )


class _Collector:
    """Joins the entries of a file by id, checks them, and counts repairs."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.captions: dict[str, list[str]] = {}
        self.splits: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.times: dict[str, tuple[float, float]] = {}
        self.keeps = EntryFilter(reading.where)
        self.restval: set[str] = set()  # ids of Karpathy's split restval, when it is left out
        self.marked: dict[str, None] = {}  # ids with captions that the file marks as unusable
        self.left_out: Counter[str] = Counter()  # reason -> captions
        self.said: dict[str, None] = {}
        self.line_ends = self.surrogates = self.empty_times = 0
        self.problems: list[str] = []

    def add(self, entry: Entry) -> None:
        if self.reading.allow_gaps and (entry.id is None or (isinstance(entry.id, str) and not entry.id.strip())):
            self.problems.append(f"{entry.where}: no file name")
            return
        if entry.problem:
            self.problems.append(entry.problem)
            return
        id, file = _parse_id(entry.id, entry.where), self._file(entry.file, entry.where)
        if file and id == entry.file.strip():
            id = file
        if id in self.restval or (_is_restval(entry.split) and not self.reading.restval):
            self.restval.add(id)
            return
        if not self.keeps(id, entry):
            return
        if entry.start is not None and entry.end is not None:
            if entry.end <= entry.start:
                self.empty_times += 1
                return
            self.times[id] = entry.start, entry.end
        texts = self.captions.setdefault(id, [])
        if self._set_split(id, entry) or self._set_file(id, file, entry.where):
            return
        texts += [self._text(text, id, entry.where) for text in entry.captions]
        self.left_out.update(entry.left_out)
        if entry.left_out:
            self.marked[id] = None
        if entry.note:
            self.said[entry.note] = None
        if entry.fields and (domain := entry.fields.get("domain")) in DOMAINS:
            self.groups[id] = domain

    def _text(self, text: Any, id: str, where: str) -> str:
        if text is None and self.reading.allow_gaps:
            return ""
        if not isinstance(text, str):
            raise ValueError(f"{where}: the caption of {id!r} is {text!r}; a caption must be text")
        self.line_ends += bool(_LINE_ENDS.search(text))
        self.surrogates += bool(_LONE_SURROGATES.search(text))
        return _LONE_SURROGATES.sub("\ufffd", _LINE_ENDS.sub(" ", text)).replace("\n", " ")

    def _set_file(self, id: str, file: str, where: str) -> bool:
        """Keep the file of an id -> whether it has another one, and the reading goes on."""
        if not file or self.files.setdefault(id, file) == file:
            return False
        return self._conflict(f"{where}: {id!r} has two files, {self.files[id]!r} and {file!r}")

    def _set_split(self, id: str, entry: Entry) -> bool:
        """Keep the split of an id -> whether it has another one, and the reading goes on."""
        if entry.split in (None, ""):
            return False
        if not isinstance(entry.split, str):
            raise ValueError(f"{entry.where}: a split must be text, got {entry.split!r}")
        if not (split := "train" if _is_restval(entry.split) else normalise_split_name(entry.split)):
            return False
        if self.splits.setdefault(id, split) == split:
            return False
        return self._conflict(f"{entry.where}: {id!r} is in two splits, {self.splits[id]!r} and {split!r}")

    def _conflict(self, line: str) -> bool:
        """An id contradicts itself: an error, or a problem line and True when the reading goes on."""
        if not self.reading.keep_going:
            raise ValueError(line)
        self.problems.append(line)
        return True

    def _file(self, file: Any, where: str) -> str:
        """The path of a medium, with / for the backslashes of Windows."""
        if file in (None, ""):
            return ""
        if not isinstance(file, str):
            raise ValueError(f"{where}: a file name must be text, got {file!r}")
        return file.strip().replace("\\", "/")

    def read_decimal_ids(self) -> None:
        """Read the ids 42.0, 43.0, ... as 42, 43, ...: pandas writes integers so when a column has gaps."""
        if not all(_DECIMAL_ID.fullmatch(id) for id in self.captions):
            return
        example = next(iter(self.captions))
        self.said[f"the ids are decimal numbers ({example}) and were read as integers ({example[:-2]})"] = None
        self.captions = {id[:-2]: texts for id, texts in self.captions.items()}
        self.splits = {id[:-2]: split for id, split in self.splits.items()}
        self.files = {id[:-2]: file for id, file in self.files.items()}
        self.times = {id[:-2]: time for id, time in self.times.items()}
        self.marked = {id[:-2]: None for id in self.marked}

    def notes(self) -> list[str]:
        """One line for each kind of repair."""
        lines = list(self.said)
        if self.line_ends:
            lines.append(f"{self.line_ends} captions had line ends or NUL in them, which were replaced by blanks")
        if self.surrogates:
            lines.append(
                f"{self.surrogates} captions had half a character (a lone surrogate), which was replaced by U+FFFD"
            )
        lines += [f"{count} captions are {reason} and were left out" for reason, count in self.left_out.items()]
        if self.empty_times:
            lines.append(f"{self.empty_times} sentences end at or before their start time and were left out")
        return lines


def _is_restval(split: Any) -> bool:
    return isinstance(split, str) and split.strip().lower() == "restval"


def _parse_id(value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():  # a column of integers with gaps, as pandas writes it
        return str(int(value))
    if not isinstance(value, str) or not value.strip() or _LONE_SURROGATES.search(value):
        raise ValueError(f"{where}: an id must be an integer or text, got {value!r}")
    return value.strip()
