"""Rows of captions, kept as they come; CSV, JSONL and JSON (COCO results) of them, and what --resume reads again."""

import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from limner.apps.shared.arguments import WrongArguments
from limner.core.files import read_json, write_text
from limner.data.karpathy import coco_id

Row = dict[str, Any]
FIELDS = {"file": str, "caption": str, "logprob": float, "finished": bool}
TIMES = ("start", "end")  # seconds; rows of clips have them
REPORT = ".html"
DATA = '<script type="application/json" id="captions">', "</script>"


def printable(file: str) -> str:
    """A file name as text: a byte that is no UTF-8 is written as \\xff, so that two names stay two."""
    return os.fsencode(file).decode("utf-8", errors="backslashreplace")


def key(row: Row) -> Hashable:
    """What a row is about."""
    return (row["file"], row["start"]) if "start" in row else row["file"]


class Journal:
    """Rows go to a side file as they come, so that nothing is lost; `finish` makes the real output of them.

    The side file's first line says what made the rows (`by`).  Raises ValueError when it was something else, when
    another call's rows would be lost without `resume`, and when a file is no output of this command.
    """

    def __init__(self, out: Path | None, resume: bool, by: dict[str, Any]):
        self.out = out
        self.path = out.with_name(out.name + ".partial") if out else None
        self.rows: dict[Hashable, Row] = {}
        if self.path is None or out is None:
            if resume:
                raise WrongArguments("--resume needs --out: it continues an output file")
            return
        head, done = _partial(self.path)
        if done and not resume:
            raise ValueError(
                f"{self.path} holds {len(done)} captions of an interrupted call: continue it with --resume, "
                "or delete the file"
            )
        if done and (changed := [name for name in by if head.get(name) != by[name]]):
            raise ValueError(
                f"{self.path} was begun with another {' and '.join(changed)}, which its first line tells: "
                "caption as before, or delete the file"
            )
        if resume:
            if done and "start" in done[-1]:  # pieces of its clip may be missing
                done = [row for row in done if row["file"] != done[-1]["file"]]
            kept = finished_rows(out)
            if kept and not done:  # nothing but a side file tells what made rows
                told = f"note: {out} holds {len(kept)} captions, which are kept, whatever model and search made them"
                print(told, file=sys.stderr)
            self.rows = {key(row): row for row in [*kept, *done]}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, to_jsonl([by, *self.rows.values()]))  # without a line that a kill cut off

    def add(self, row: Row) -> None:
        self.rows[key(row)] = row
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(to_jsonl([row]))

    def finish(self, order: Sequence[str], write: Callable[[list[Row]], str] | None = None) -> None:
        """Rows in the order of their files; those of files that are not named come last.  `write` makes the text of a
        report."""
        assert self.out is not None
        assert self.path is not None
        place = {file: number for number, file in enumerate(order)}
        rows = sorted(self.rows.values(), key=lambda row: place.get(row["file"], len(place)))
        write_text(self.out, (write or WRITERS[self.out.suffix])(rows))
        self.path.unlink()


def _partial(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """-> what made the rows, and the rows.  None of either when there is no such file."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}, []
    (_, head), *lines = [*_lines(path)] or [("", {})]
    if not isinstance(head, dict) or not {"model", "decoding"} <= head.keys():
        raise ValueError(f"{path}, line 1: expected the model and the decoding that made the captions; delete the file")
    return head, [_row(item, where) for where, item in lines]


def finished_rows(path: Path) -> list[Row]:
    """Rows of an output that an earlier call completed."""
    if not path.is_file():
        return []
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            try:
                rows = csv.DictReader(file)
                return [_row(item, f"{path}, line {rows.line_num}") for item in rows]
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is no output of this command ({error})") from error
    if path.suffix == ".jsonl":
        return [_row(item, where) for where, item in _lines(path)]
    items = _data_of(path) if path.suffix == REPORT else read_json(path)
    if not isinstance(items, list):
        raise ValueError(f"{path}: expected a list of captions, as this command writes it")
    return [_row(item, f"{path}, item {number}") for number, item in enumerate(items, 1)]


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of the lines of a JSONL file; the last one may be cut off by a kill, and is then left out."""
    # the cut may come inside a character; and a caption may hold U+2028, where splitlines would cut
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            yield f"{path}, line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg}), and more lines follow") from error


def _row(item: Any, where: str) -> Row:
    """The fields of a row; CSV has them as text."""
    try:
        row = {name: item[name] for name in FIELDS}
        times = {name: float(item[name]) for name in TIMES if item.get(name) not in (None, "")}
        if isinstance(row["logprob"], str):
            row["logprob"], row["finished"] = float(row["logprob"]), {"True": True, "False": False}[row["finished"]]
        others = item.get("others") or []
        others = [
            [text, float(logprob)] for text, logprob in (json.loads(others) if isinstance(others, str) else others)
        ]
        if all(isinstance(row[name], kind) for name, kind in FIELDS.items()):
            return row | times | ({"others": others} if others else {})
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise ValueError(
        f"{where}: --resume expects an output of this command, with {', '.join(FIELDS)}; got {item!r:.200}"
    )


def data_block(rows: Sequence[Row]) -> str:
    """The rows as a report holds them beside what it shows; `<` is written so that nothing ends the block."""
    return DATA[0] + json.dumps(list(rows)).replace("<", "\\u003c") + DATA[1]


def _data_of(path: Path) -> Any:
    _, begin, rest = path.read_text(encoding="utf-8", errors="replace").rpartition(DATA[0])
    text, end, _ = rest.partition(DATA[1])
    if not (begin and end):
        raise ValueError(f"{path} is no report of this command: it does not hold the captions as data")
    return json.loads(text)


def to_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    more = [name for name in (*TIMES, "others") if any(name in row for row in rows)]
    writer = csv.DictWriter(text, [*FIELDS, *more], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "others": to_jsonl([row["others"]]).strip()} if "others" in row else row for row in rows)
    return text.getvalue()


def to_jsonl(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_json(rows: list[Row]) -> str:
    """COCO results: image_id is the file's stem, as a number where COCO has one; pieces of a clip are called as in
    MSVD, <stem>_<start>_<end>."""
    items = [{"image_id": id, **row} for id, row in zip(row_ids(rows), rows, strict=True)]
    return json.dumps(items, indent=1, ensure_ascii=False) + "\n"


def row_ids(rows: Sequence[Row]) -> list[int | str]:
    """The id of each row's file, or of its piece of a clip."""
    count = Counter(row["file"] for row in rows)
    ids = image_ids(count)
    return [
        ids[row["file"]] if count[row["file"]] == 1 else f"{ids[row['file']]}_{row['start']:g}_{row['end']:g}"
        for row in rows
    ]


def image_ids(files: Iterable[str]) -> dict[str, int | str]:
    """Files -> ids that differ: the stem (a number as `coco_id` has it); for those that share one the path without its
    suffix, or with it."""
    choices: dict[str, list[int | str]] = {
        file: [coco_id(Path(file).stem), str(Path(file).with_suffix("")), file] for file in files
    }
    while shared := {id for id, count in Counter(names[0] for names in choices.values()).items() if count > 1}:
        for names in choices.values():
            if names[0] in shared and len(names) > 1:
                names.pop(0)
    return {file: names[0] for file, names in choices.items()}


WRITERS: dict[str, Callable[[list[Row]], str]] = {".csv": to_csv, ".jsonl": to_jsonl, ".json": to_json}
