"""Caption raw pictures and clips: limner caption photo.jpg folder/ --model RUN --out captions.csv

The output is CSV, JSONL or JSON (COCO results format) by its ending, or lines on the screen without --out.  Files
that cannot be read are listed at the end and make the exit status 3; --resume keeps what an interrupted call has done.
"""

import argparse
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limner.apps.arguments import add_decoding, add_run, decoding_of, no_more, report_problems
from limner.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES
from limner.files import read_json, write_text
from limner.pipeline import Caption, Failure, Pipeline

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", help="pictures, clips, and folders of them")
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, help="file ending in .csv, .jsonl or .json")
    parser.add_argument("--resume", action="store_true", help="skip what the output of an interrupted call holds")
    parser.add_argument("--batch-size", type=int, default=16)
    add_decoding(parser)
    add_run(parser)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    if options.out and options.out.suffix not in WRITERS:
        raise ValueError(f"--out {options.out}: the ending says the format; known are {', '.join(WRITERS)}")
    files, problems = expand(options.sources)
    journal = Journal(options.out, options.resume)
    todo = [file for file in files if printable(file) not in journal.rows]
    pipeline = Pipeline.load(options.model, options.encoder, options.device)
    decoding = decoding_of(options, pipeline.run.recipe.decoding)
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
                    line = result.text if len(files) == 1 else f"{file}: {result.text}"
                    console.print(line, markup=False, highlight=False)
            bar.advance(task)
    if options.out:
        journal.finish([name for file in files if (name := printable(file)) in journal.rows])
        print(f"{options.out}: {len(journal.rows)} captions")
    problems += failures
    report_problems(problems)
    return 3 if problems else 0


def expand(sources: Iterable[str]) -> tuple[list[str], list[str]]:
    """Folders become the media below them, in name order -> (files without doubles, a line for each useless source)."""
    files: dict[str, None] = {}
    problems = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES and p.is_file())
            if not found:
                problems.append(f"{source}: no picture or clip in this folder")
            files.update(dict.fromkeys(found))
        else:
            files[source] = None
    return list(files), problems


def printable(file: str) -> str:
    """A file name as text: bytes that are no UTF-8 become the replacement sign."""
    return os.fsencode(file).decode("utf-8", errors="replace")


def row(file: str, caption: Caption) -> Row:
    return {
        "file": printable(file),
        "caption": caption.text,
        "logprob": round(caption.logprob, 4),
        "finished": caption.finished,
    }


class Journal:
    """Rows go to a side file as they come, so that nothing is lost; `finish` makes the real output of them."""

    def __init__(self, out: Path | None, resume: bool):
        self.out = out
        self.path = out.with_name(out.name + ".partial") if out else None
        self.rows: dict[str, Row] = {}
        if self.path is None or out is None:
            if resume:
                raise ValueError("--resume needs --out: it continues an output file")
            return
        if resume:
            self.rows = {row["file"]: row for row in [*_finished(out), *_partial(self.path)]}
        out.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows.values())
        write_text(self.path, lines)  # without a line that a kill cut off

    def add(self, row: Row) -> None:
        self.rows[row["file"]] = row
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self, order: Iterable[str]) -> None:
        assert self.out is not None
        assert self.path is not None
        first = list(order)
        rest = [file for file in self.rows if file not in set(first)]
        write_text(self.out, WRITERS[self.out.suffix]([self.rows[file] for file in [*first, *rest]]))
        self.path.unlink()


def _partial(path: Path) -> Iterator[Row]:
    if path.is_file():
        # a kill may cut inside a character; and a caption may hold U+2028, where splitlines would cut
        for line in path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n"):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return  # the last line of a killed process


def _finished(path: Path) -> Iterator[Row]:
    """Rows of an output that an earlier call completed."""
    if not path.is_file():
        return
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            for found in csv.DictReader(file):
                yield {**found, "logprob": float(found["logprob"]), "finished": found["finished"] == "True"}
    elif path.suffix == ".jsonl":
        yield from _partial(path)
    else:
        for item in read_json(path):
            yield {"file": item["file"], **{key: item[key] for key in ("caption", "logprob", "finished")}}


def to_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["file", "caption", "logprob", "finished"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_json(rows: list[Row]) -> str:
    """COCO results: image_id is the file's stem, a number where it is one (COCO_val2014_000000000042 -> 42)."""
    items = [{"image_id": image_id(row["file"]), **row} for row in rows]
    return json.dumps(items, indent=1, ensure_ascii=False) + "\n"


def image_id(file: str) -> int | str:
    stem = Path(file).stem
    last = stem.rsplit("_", 1)[-1] if stem.startswith("COCO_") else stem
    is_picture = Path(file).suffix.lower() in IMAGE_SUFFIXES
    return int(last) if is_picture and last.isascii() and last.isdigit() else stem


WRITERS: dict[str, Callable[[list[Row]], str]] = {".csv": to_csv, ".jsonl": to_jsonl, ".json": to_json}
