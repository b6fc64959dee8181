"""Rows of captions: written one by one while a command runs, then as CSV, JSONL, JSON (COCO results) or a report."""

import csv
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from limner.apps.shared.arguments import WrongArguments
from limner.core.files import parse_json, read_json, write_text
from limner.core.messages import short_repr
from limner.data.arrow_tables import import_pyarrow
from limner.data.formulas import mark_formula, unmark_formula
from limner.data.image_ids import coco_id

Row = dict[str, Any]
TEXTS = ("file", "caption", "withheld")  # fields whose text is free
FIELDS: dict[str, Any] = {
    "file": str,
    "caption": str,
    "logprob": (float, type(None)),  # None: a server told none
    "finished": bool,
}
# what the rows of a data set's media have besides, in `limner distill`
OF_MEDIA = {
    "id": str,  # of the medium in its data set
    "problem": str,  # why there is no caption
    "answer": str,  # what a server answered in place of a caption
}
TIMES = ("start", "end")  # seconds; only rows of videos have them
# only rows of calibrated models have these; field -> its value from that of JSON or from the text of a CSV cell
CONFIDENCE: dict[str, Callable[[Any], Any]] = {
    "confidence": float,
    "unfamiliar": lambda value: {"True": True, "False": False}.get(value, value),
    "withheld": str,
}
REPLACES = "replaces"  # in the first line of a side file: the output that is there is discarded, also by --resume
REPORT = ".html"
METADATA = "metadata.jsonl"  # the name of an output with the captions of an image folder
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
DATA = '<script type="application/json" id="captions">', "</script>"


def printable(file: str) -> str:
    r"""A file name as text.

    Bytes that are not UTF-8 become \xff, and control characters \x1b: no name breaks a table or steers a terminal, and
    different names stay different.
    """
    text = os.fsencode(file).decode("utf-8", errors="backslashreplace")
    return CONTROLS.sub(lambda char: char[0].encode("unicode_escape").decode(), text)


def row_key(row: Row) -> Hashable:
    """What identifies a row: the id in its data set, or else its file, and for a part of a video its start."""
    if "id" in row:
        return ("id", row["id"])
    return (row["file"], row["start"]) if "start" in row else row["file"]


def side_file(out: Path) -> Path:
    """The file next to an unfinished output that holds its rows."""
    return out.with_name(out.name + ".partial")


class Journal:
    """The rows of an output file.

    Rows go to a side file as they come, so that an interrupted command loses nothing; `finish` writes the real output
    from them.  The first line of the side file is the provenance: what made the rows.
    """

    def __init__(
        self,
        out: Path | None,
        resume: bool,
        provenance: dict[str, Any],
        overwrite: bool = False,
        finished_known: bool = False,
        keep_finished: bool = True,
        csv_safe: bool = True,
    ):
        """`out` None keeps the rows in memory only.

        `finished_known`: the caller knows what made a finished output.  `keep_finished`: `resume` keeps the rows of a
        finished output, and not only those of an interrupted command.  `csv_safe`: a finished CSV file has apostrophes
        before formulas.

        Raises FileExistsError when a finished output would be overwritten, ValueError when the rows of an interrupted
        command would be lost or have another provenance, and when a file was not written by this command.
        """
        self.out = out
        self.path = side_file(out) if out else None
        self.rows: dict[Hashable, Row] = {}
        if self.path is None or out is None:
            if resume:
                raise WrongArguments("--resume needs --out: it continues an output file")
            return
        check_output(out, resume, overwrite)
        replaces = overwrite and out.exists()
        if resume:
            head, done = _read_side_file(self.path)
            if done and (changed := [name for name in provenance if head.get(name) != provenance[name]]):
                raise ValueError(
                    f"{self.path} was written with another {' and '.join(changed)}, as its first line says: "
                    "give the same options as before, or start anew with --overwrite"
                )
            if done and "start" in done[-1]:  # parts of its video may be missing
                done = [row for row in done if row["file"] != done[-1]["file"]]
            replaces = replaces or bool(head.get(REPLACES))
            finished = finished_rows(out, csv_safe) if keep_finished and not replaces else []
            if finished and not done and not finished_known:  # a finished output does not say what made its rows
                print(
                    f"note: the {len(finished)} captions of {out} are kept, whatever model and decoding made them",
                    file=sys.stderr,
                )
            self.rows = {row_key(row): row for row in [*finished, *done]}
        out.parent.mkdir(parents=True, exist_ok=True)
        head = provenance | ({REPLACES: True} if replaces else {})
        write_text(self.path, to_jsonl([head, *self.rows.values()]))  # without a line that was cut off

    def add(self, row: Row) -> None:
        self.rows[row_key(row)] = row
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(to_jsonl([row]))

    def finish(self, order: Sequence[str], write: Callable[[list[Row]], None] | None = None) -> None:
        """Write the output and remove the side file.

        order  files, or ids, in the order in which their rows are written; other rows come last
        write  writes the output; None: the text that its ending stands for
        """
        assert self.out is not None
        assert self.path is not None
        place = {file: number for number, file in enumerate(order)}
        rows = sorted(self.rows.values(), key=lambda row: place.get(row["id" if "id" in row else "file"], len(place)))
        if write is None:
            write_text(self.out, WRITERS[self.out.suffix](rows))
        else:
            write(rows)
        self.path.unlink()


def check_output(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuse to lose rows.

    Raises ValueError when an interrupted command left rows and neither --resume nor --overwrite is given,
    FileExistsError when the output itself exists.
    """
    if resume or overwrite:
        return
    if rows := _read_side_file(side_file(out))[1]:
        raise ValueError(
            f"{side_file(out)} holds {len(rows)} captions of an interrupted command: continue it with --resume, or "
            "start anew with --overwrite"
        )
    if out.is_file():
        raise FileExistsError(
            f"{out} exists: give --overwrite to replace it, --resume to add what is missing, or choose another name"
        )


def has_rows(out: Path) -> bool:
    """Whether an interrupted command has left rows beside an output."""
    try:
        return bool(unfinished_rows(out))
    except (ValueError, OSError):
        return False


def unfinished_rows(out: Path) -> list[Row]:
    """The rows that an interrupted command has left beside an output.

    Raises ValueError when they are damaged.
    """
    return _read_side_file(side_file(out))[1]


def _read_side_file(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """-> (provenance, rows); both are empty when there is no such file."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}, []
    (_, head), *lines = [*_lines(path)] or [("", {})]
    if not isinstance(head, dict) or not {"model", "decoding"} <= head.keys():
        raise ValueError(f"{path}, line 1: expected the model and the decoding that made the captions; delete the file")
    return head, [_row(item, where) for where, item in lines]


def finished_rows(path: Path, csv_safe: bool = True) -> list[Row]:
    """The rows of a finished output; none when there is no such file.

    `csv_safe`: a CSV file has apostrophes before formulas.

    Raises ValueError that names file and line when this command did not write it.
    """
    if not path.is_file():
        return []
    if path.name == METADATA:
        return [_row_of_metadata(item, path, where) for where, item in _lines(path)]
    if path.suffix == ".parquet":
        return [_row(item, f"{path}, row {number}") for number, item in enumerate(_rows_of_parquet(path), 1)]
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            try:
                rows = csv.DictReader(file)
                return [
                    _row(_without_marks(item) if csv_safe else item, f"{path}, line {rows.line_num}") for item in rows
                ]
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is no output of this command ({error})") from error
    if path.suffix == ".jsonl":
        return [_row(item, where) for where, item in _lines(path)]
    items = _data_of(path) if path.suffix == REPORT else read_json(path)
    if not isinstance(items, list):
        raise ValueError(f"{path}: expected a list of captions, as this command writes it")
    return [_row(item, f"{path}, item {number}") for number, item in enumerate(items, 1)]


def _row_of_metadata(item: Any, path: Path, where: str) -> Row:
    """A row of a line of metadata.jsonl, which must have no more fields than this command writes."""
    if not isinstance(item, dict) or item.keys() != {"file_name", "text"}:
        raise ValueError(
            f"{where}: expected file_name and text and no more, which --resume would lose; got {short_repr(item, 200)}"
        )
    file = printable(os.path.normpath(path.parent / str(item["file_name"])))
    return {"file": file, "caption": str(item["text"]), "logprob": None, "finished": True}


def _rows_of_parquet(path: Path) -> list[dict[str, Any]]:
    arrow = import_pyarrow(path)
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no output of this command ({error})") from error


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of the lines of a JSONL file.  The last line is left out when an interrupt has cut it off."""
    # the cut may be inside a character; and a caption may hold U+2028, where splitlines would split
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            yield f"{path}, line {number}", parse_json(line, f"{path}, line {number}")
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{error}, and more lines follow") from error


def _row(item: Any, where: str) -> Row:
    """A checked row; the fields of a CSV file are text and are converted."""
    try:
        row = {name: item[name] for name in FIELDS}
        times = {name: float(item[name]) for name in TIMES if item.get(name) not in (None, "")}
        if isinstance(row["finished"], str):
            row["finished"] = {"True": True, "False": False}[row["finished"]]
        row["logprob"] = _logprob(row["logprob"])
        more = {name: read(item[name]) for name, read in CONFIDENCE.items() if item.get(name) not in (None, "")}
        more |= {name: item[name] for name, kind in OF_MEDIA.items() if isinstance(item.get(name), kind)}
        others = item.get("others") or []
        others = [
            [text, _logprob(logprob)]
            for text, logprob in (parse_json(others, where) if isinstance(others, str) else others)
        ]
        if all(isinstance(row[name], kind) for name, kind in FIELDS.items()):
            return row | times | more | ({"others": others} if others else {})
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise ValueError(
        f"{where}: --resume expects an output of this command, with {', '.join(FIELDS)}; got {short_repr(item, 200)}"
    )


def _logprob(value: Any) -> float | None:
    return None if value in (None, "") else float(value)


def data_block(rows: Sequence[Row]) -> str:
    """The rows as JSON inside a report.  `<` is escaped, so that no caption can end the block."""
    return DATA[0] + json.dumps(list(rows)).replace("<", "\\u003c") + DATA[1]


def _data_of(path: Path) -> Any:
    """The inverse of `data_block`, from the text of a report."""
    _, begin, rest = path.read_text(encoding="utf-8", errors="replace").rpartition(DATA[0])
    text, end, _ = rest.partition(DATA[1])
    if not (begin and end):
        raise ValueError(f"{path} is no report of this command: it does not hold the captions as data")
    return parse_json(text, path)


def to_csv(rows: list[Row], safe: bool = True) -> str:
    """A CSV file with a header.  Further captions of a row are one field, as JSON.

    `safe`: a file name or caption that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    fields = [*FIELDS, *(name for name in (*TIMES, *CONFIDENCE, "others") if any(name in row for row in rows))]
    plain = csv.DictWriter(text, fields, lineterminator="\n")
    quoted = csv.DictWriter(text, fields, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writeheader()
    for row in rows:
        cells = {**row, "others": to_jsonl([row["others"]]).strip()} if "others" in row else dict(row)
        if safe:
            cells |= {name: mark_formula(cells[name]) for name in TEXTS if name in cells}
        (quoted if "\r" in row["caption"] else plain).writerow(cells)  # an unquoted \r would end the row
    return text.getvalue()


def _without_marks(cells: dict[str, Any]) -> dict[str, Any]:
    """The cells of a CSV row that `to_csv` wrote, without its apostrophes."""
    return cells | {name: unmark_formula(cells[name]) for name in TEXTS if isinstance(cells.get(name), str)}


def to_jsonl(rows: Sequence[Any]) -> str:
    """One JSON value per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_json(rows: list[Row]) -> str:
    """COCO results: `image_id` is the file's stem, as a number where COCO has one.

    A part of a video is named as in MSVD: <stem>_<start>_<end>.
    """
    items = [{"image_id": id, **row} for id, row in zip(row_ids(rows), rows, strict=True)]
    return json.dumps(items, indent=1, ensure_ascii=False) + "\n"


def row_ids(rows: Sequence[Row]) -> list[int | str]:
    """The id of each row: that of its file, or of its part of a video."""
    count = Counter(row["file"] for row in rows)
    ids = image_ids(count)
    return [
        ids[row["file"]] if count[row["file"]] == 1 else f"{ids[row['file']]}_{row['start']:g}_{row['end']:g}"
        for row in rows
    ]


def image_ids(files: Iterable[str]) -> dict[str, int | str]:
    """Files -> ids, all different.

    An id is the file's stem, as `coco_id` writes it.  Files that share one have their path without the suffix
    instead, and where that is shared too, the path.
    """
    choices: dict[str, list[int | str]] = {
        file: [coco_id(Path(file).stem), str(Path(file).with_suffix("")), file] for file in files
    }
    while shared := {id for id, count in Counter(names[0] for names in choices.values()).items() if count > 1}:
        for names in choices.values():
            if names[0] in shared and len(names) > 1:
                names.pop(0)
    return {file: names[0] for file, names in choices.items()}


WRITERS: dict[str, Callable[[list[Row]], str]] = {".csv": to_csv, ".jsonl": to_jsonl, ".json": to_json}
