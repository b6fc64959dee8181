"""Caption raw pictures and clips: limner caption photo.jpg folder/ --model RUN --out captions.csv

The output is CSV, JSONL or JSON (COCO results format) by its ending, or lines on the screen without --out.  Files
that cannot be read are listed at the end and make the exit status 3; --resume keeps what an interrupted call has done,
and what a finished output holds.
"""

import argparse
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limner.apps.arguments import add_decoding, add_run, decoding_of, no_more, positive, report_problems
from limner.data.karpathy import coco_id
from limner.data.media import MEDIA_SUFFIXES
from limner.decode.search import Beam
from limner.files import read_json, sha256, write_text
from limner.pipeline import Caption, Failure, Pipeline

Row = dict[str, Any]
FIELDS = {"file": str, "caption": str, "logprob": float, "finished": bool}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", help="pictures, clips, and folders of them")
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, help="file ending in .csv, .jsonl or .json")
    parser.add_argument("--resume", action="store_true", help="skip what the output of an interrupted call holds")
    parser.add_argument("--batch-size", type=positive, default=16)
    add_decoding(parser)
    add_run(parser)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    if options.out and options.out.suffix not in WRITERS:
        raise ValueError(f"--out {options.out}: the ending says the format; known are {', '.join(WRITERS)}")
    if options.out and options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; name a file in it")
    files, problems = expand(options.sources)
    pipeline = Pipeline.load(options.model, options.encoder, options.device)
    decoding = decoding_of(options, pipeline.run.recipe.decoding)
    journal = Journal(options.out, options.resume, made_by(pipeline.run.folder, decoding))
    todo = [file for file in files if printable(file) not in journal.rows]
    console = Console(soft_wrap=True)
    columns = (TextColumn("caption"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failures = []
    with Progress(*columns, console=console, disable=not (console.is_terminal and options.out)) as bar:
        task = bar.add_task("caption", total=len(files), completed=len(files) - len(todo))
        for file, (_, result) in zip(todo, pipeline.captions(todo, decoding, options.batch_size), strict=True):
            if isinstance(result, Failure):
                failures.append(result.reason)
            else:
                journal.add(row(file, result))
                if options.out is None:
                    line = result.text if len(files) == 1 else f"{printable(file)}: {result.text}"
                    console.print(line, markup=False, highlight=False)
            bar.advance(task)
    if options.out:
        journal.finish([name for file in files if (name := printable(file)) in journal.rows])
        print(f"{printable(str(options.out))}: {len(journal.rows)} captions")
    problems += failures
    report_problems(problems)
    return 3 if problems else 0


def expand(sources: Iterable[str]) -> tuple[list[str], list[str]]:
    """Folders become the media below them, in name order -> (files without doubles, a line for each useless source).

    `./dog.png` is `dog.png`.
    """
    files: dict[str, None] = {}
    problems = []
    for source in sources:
        path = Path(os.path.normpath(source))
        if path.is_dir():
            found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES and p.is_file())
            if not found:
                problems.append(f"{source}: no picture or clip in this folder")
            files.update(dict.fromkeys(found))
        else:
            files[str(path)] = None
    return list(files), problems


def printable(file: str) -> str:
    """A file name as text: a byte that is no UTF-8 is written as \\xff, so that two names stay two."""
    return os.fsencode(file).decode("utf-8", errors="backslashreplace")


def row(file: str, caption: Caption) -> Row:
    return {
        "file": printable(file),
        "caption": caption.text,
        "logprob": round(caption.logprob, 4),
        "finished": caption.finished,
    }


def made_by(folder: Path, decoding: Beam) -> dict[str, Any]:
    """What decides about the captions: the model's weights and the search."""
    return {"model": sha256(folder / "model.safetensors"), "decoding": asdict(decoding)}


class Journal:
    """Rows go to a side file as they come, so that nothing is lost; `finish` makes the real output of them.

    The side file's first line says what made the rows (`by`).  Raises ValueError when it was something else, when
    another call's rows would be lost without `resume`, and when a file is no output of this command.
    """

    def __init__(self, out: Path | None, resume: bool, by: dict[str, Any]):
        self.out = out
        self.path = out.with_name(out.name + ".partial") if out else None
        self.rows: dict[str, Row] = {}
        if self.path is None or out is None:
            if resume:
                raise ValueError("--resume needs --out: it continues an output file")
            return
        head, done = _partial(self.path)
        if done and not resume:
            raise ValueError(
                f"{self.path} holds {len(done)} captions of an interrupted call: continue it with --resume, "
                "or delete the file"
            )
        if done and (changed := [key for key in by if head[key] != by[key]]):
            raise ValueError(
                f"{self.path} was begun with another {' and '.join(changed)}, which its first line tells: "
                "caption as before, or delete the file"
            )
        if resume:
            self.rows = {row["file"]: row for row in [*_finished(out), *done]}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, to_jsonl([by, *self.rows.values()]))  # without a line that a kill cut off

    def add(self, row: Row) -> None:
        self.rows[row["file"]] = row
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(to_jsonl([row]))

    def finish(self, order: Iterable[str]) -> None:
        assert self.out is not None
        assert self.path is not None
        first = list(order)
        rest = [file for file in self.rows if file not in set(first)]
        write_text(self.out, WRITERS[self.out.suffix]([self.rows[file] for file in [*first, *rest]]))
        self.path.unlink()


def _partial(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """-> what made the rows, and the rows.  None of either when there is no such file."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}, []
    (_, head), *lines = [*_lines(path)] or [("", {})]
    if not isinstance(head, dict) or head.keys() != {"model", "decoding"}:
        raise ValueError(f"{path}, line 1: expected the model and the decoding that made the captions; delete the file")
    return head, [_row(item, where) for where, item in lines]


def _finished(path: Path) -> list[Row]:
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
    items = read_json(path)
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
    """The four fields of a row; CSV has them as text."""
    try:
        row = {name: item[name] for name in FIELDS}
        if isinstance(row["logprob"], str):
            row["logprob"], row["finished"] = float(row["logprob"]), {"True": True, "False": False}[row["finished"]]
        if all(isinstance(row[name], kind) for name, kind in FIELDS.items()):
            return row
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{where}: --resume expects an output of this command, with {', '.join(FIELDS)}; got {item!r:.200}"
    )


def to_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIELDS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_json(rows: list[Row]) -> str:
    """COCO results: image_id is the file's stem, as a number where COCO has one."""
    ids = image_ids([row["file"] for row in rows])
    items = [{"image_id": ids[row["file"]], **row} for row in rows]
    return json.dumps(items, indent=1, ensure_ascii=False) + "\n"


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
