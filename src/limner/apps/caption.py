"""Caption raw pictures and clips: limner caption photo.jpg clip.mp4 folder/ --model RUN --out captions.csv

Without files it is a prompt that answers paths with captions; `-` reads a list of files from the standard input.
The output is CSV, JSONL or JSON (COCO results format) by its ending, or lines on the screen without --out.  Rows of
clips have start and end in seconds.  A clip of more than a minute is cut into shots with a caption each; --shots,
--every and --whole say otherwise.  --srt and --vtt write subtitles as well.  Files that cannot be read are listed at
the end and make the exit status 3; --resume keeps what an interrupted call has done, and what a finished output holds.
"""

import argparse
import csv
import glob
import io
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limner.apps import subtitles
from limner.apps.arguments import add_decoding, add_run, add_search, no_more, positive, report_problems, search_of
from limner.apps.pieces import Cut, Piece, pieces
from limner.data.karpathy import coco_id
from limner.data.media import MEDIA_SUFFIXES, is_clip
from limner.decode.options import Beam, Decoding
from limner.files import read_json, sha256, write_text
from limner.pipeline import Caption, Failure, Pipeline, Source
from limner.text.alt_text import MAX_CHARS, alt_text

Row = dict[str, Any]
FIELDS = {"file": str, "caption": str, "logprob": float, "finished": bool}
TIMES = ("start", "end")  # seconds; rows of clips have them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", help="pictures, clips, folders and patterns of them; - reads a list")
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, help="file ending in .csv, .jsonl or .json")
    parser.add_argument("--resume", action="store_true", help="skip what the output of an interrupted call holds")
    parser.add_argument("--batch-size", type=positive, default=16)
    parser.add_argument("--style", choices=["plain", "alt-text"], default="plain", help="alt-text: for screen readers")
    parser.add_argument("--max-chars", type=positive, metavar="N", help="of alternative text (default: 125)")
    group = parser.add_argument_group("clips")
    group.add_argument("--frames", type=positive, metavar="N", help="frames sampled from a clip or a piece of it")
    cutting = group.add_mutually_exclusive_group()
    cutting.add_argument("--shots", action="store_true", help="cut every clip into shots")
    cutting.add_argument("--every", type=seconds, metavar="SECONDS", help="cut clips into windows of so many seconds")
    cutting.add_argument("--whole", action="store_true", help="one caption for every clip, however long it is")
    for name in ("srt", "vtt"):
        group.add_argument(
            f"--{name}", nargs="?", const="", metavar="PATH",
            help=f".{name} file of the one clip, or folder (default: beside the clips)",
        )  # fmt: skip
    add_decoding(parser)
    add_search(parser)
    add_run(parser)


def seconds(text: str) -> float:
    """A length of time, as an argument's type."""
    try:
        if 0 < float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got '{text}'")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    if options.out and options.out.suffix not in WRITERS:
        raise ValueError(f"--out {options.out}: the ending says the format; known are {', '.join(WRITERS)}")
    if options.out and options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; name a file in it")
    if options.max_chars and options.style != "alt-text":
        raise ValueError("--max-chars is about alternative text: give --style alt-text")
    if not options.sources:
        return converse(options)
    files, problems = expand(options.sources)
    clips = [file for file in files if is_clip(file)]
    asked = {f".{name}": getattr(options, name) for name in ("srt", "vtt") if getattr(options, name) is not None}
    places = {suffix: subtitles.places(option, suffix, clips) for suffix, option in asked.items()}
    ensemble = (options.others, options.weights, options.average)
    pipeline = Pipeline.load(options.model, options.encoder, options.device, options.frames, *ensemble)
    decoding = search_of(options, pipeline.run.recipe.decoding)
    cut = Cut(options.every, options.shots, options.whole)
    by = made_by(pipeline.run.folder, decoding)
    if options.style == "alt-text":
        by["style"] = {"alt-text": options.max_chars or MAX_CHARS}
    if options.others:
        members = [sha256(other.run.folder / "model.safetensors") for other in pipeline.others]
        by["ensemble"] = {"members": members, "weights": options.weights, "of": options.average}
    if clips:
        by["clips"] = {"frames": pipeline.frames, **asdict(cut)}
    journal = Journal(options.out, options.resume, by)
    styled = style_of(options)
    caption_all(files, pipeline, decoding, cut, journal, options.batch_size, problems, styled)
    if options.out:
        journal.finish([printable(file) for file in files])
        print(f"{printable(str(options.out))}: {len(journal.rows)} captions")
    for suffix, where in places.items():
        written = subtitles.write({clip: cues_of(clip, journal.rows.values()) for clip in clips}, where, suffix)
        more = f" and {len(written) - 1} more" if len(written) > 1 else ""
        print(f"{printable(str(written[0]))}{more} written" if written else f"no {suffix} file written")
    report_problems(problems)
    return 3 if problems else 0


def converse(options: argparse.Namespace) -> int:
    """The prompt."""
    from limner.apps.prompt import talk

    unset: tuple[object, ...] = (None, False, [], ())
    names = ("out", "resume", "srt", "vtt", "others", "sample")
    if idle := [name for name in names if getattr(options, name) not in unset]:
        raise ValueError(f"nothing to caption: name files (--{idle[0]} is of no use in the prompt)")
    pipeline = Pipeline.load(options.model, options.encoder, options.device, options.frames)
    decoding = search_of(options, pipeline.run.recipe.decoding)
    assert isinstance(decoding, Beam)
    return talk(pipeline, decoding, style_of(options))


def style_of(options: argparse.Namespace) -> Callable[[str], str]:
    """What is made of a caption."""
    if options.style == "plain":
        return str
    return partial(alt_text, max_chars=options.max_chars or MAX_CHARS)


def caption_all(
    files: Sequence[str],
    pipeline: Pipeline,
    decoding: Decoding,
    cut: Cut,
    journal: "Journal",
    batch_size: int,
    problems: list[str],
    styled: Callable[[str], str],
) -> None:
    """Caption what the journal does not hold yet, with a bar, or lines when there is no output file."""
    done = {row["file"] for row in journal.rows.values()}
    todo = [file for file in files if printable(file) not in done]
    place = {file: number for number, file in enumerate(todo, len(files) - len(todo))}
    waiting: deque[Piece] = deque()

    def sources() -> Iterator[Source]:
        for piece, source in pieces(todo, cut, pipeline.frames, pipeline.run.recipe.sampling, problems):
            waiting.append(piece)
            yield source

    console = Console(soft_wrap=True)
    columns = (TextColumn("caption"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (console.is_terminal and journal.out)) as bar:
        task = bar.add_task("caption", total=len(files), completed=len(files) - len(todo))
        for _, result in pipeline.captions(sources(), decoding, batch_size):
            piece = waiting.popleft()
            bar.update(task, completed=place[piece.file] + 1)
            if isinstance(result, Failure):
                problems.append(result.reason)
                continue
            problems += result.notes
            others = tuple(replace(other, text=styled(other.text)) for other in result.others)
            caption = replace(result, text=styled(result.text), others=others)
            journal.add(row(piece, caption))
            if journal.out is None:
                console.print(line_of(piece, caption, len(files)), markup=False, highlight=False)
                for other in caption.others:
                    console.print(f"    {other.text}", markup=False, highlight=False)


def line_of(piece: Piece, caption: Caption, files: int) -> str:
    """What the screen shows of a caption: as much before it as is needed to know what it is about."""
    name = [] if files == 1 else [printable(piece.file)]
    if not piece.alone and piece.start is not None and piece.end is not None:
        name.append(f"{subtitles.clock(piece.start)} - {subtitles.clock(piece.end)}")
    return ": ".join([" ".join(name), caption.text] if name else [caption.text])


def cues_of(clip: str, rows: Iterable[Row]) -> list[subtitles.Cue]:
    """The subtitles of a clip."""
    mine = [row for row in rows if row["file"] == printable(clip) and "start" in row]
    return [subtitles.Cue(row["start"], row["end"], row["caption"]) for row in mine]


def expand(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders become the media below them, in name order, patterns the files that are called so, and "-" the lines of
    the standard input -> (files without doubles, a line for each useless source).

    `./dog.png` is `dog.png`.
    """
    files: dict[str, None] = {}
    problems = []
    listed = (line.rstrip("\r\n") for line in sys.stdin) if "-" in sources else ()
    for source in chain((source for source in sources if source != "-"), filter(None, listed)):
        path = Path(os.path.normpath(source))
        if glob.has_magic(source) and not path.exists():
            found = sorted(name for name in glob.glob(source, recursive=True) if os.path.isfile(name))
            if not found:
                problems.append(f"{source}: no file is called like this")
            files.update(dict.fromkeys(found))
        elif path.is_dir():
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


def row(piece: Piece, caption: Caption) -> Row:
    times = {} if piece.start is None or piece.end is None else {"start": piece.start, "end": piece.end}
    return {
        "file": printable(piece.file),
        "caption": caption.text,
        "logprob": round(caption.logprob, 4),
        "finished": caption.finished,
        **{name: round(value, 3) for name, value in times.items()},
        **({"others": [[it.text, round(it.logprob, 4)] for it in caption.others]} if caption.others else {}),
    }


def key(row: Row) -> Hashable:
    """What a row is about."""
    return (row["file"], row["start"]) if "start" in row else row["file"]


def made_by(folder: Path, decoding: Decoding) -> dict[str, Any]:
    """What decides about the captions: the model's weights and the search."""
    plain = json.loads(json.dumps(asdict(decoding)))  # as it is read back from a file
    return {"model": sha256(folder / "model.safetensors"), "decoding": plain}


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
                raise ValueError("--resume needs --out: it continues an output file")
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
            self.rows = {key(row): row for row in [*_finished(out), *done]}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, to_jsonl([by, *self.rows.values()]))  # without a line that a kill cut off

    def add(self, row: Row) -> None:
        self.rows[key(row)] = row
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(to_jsonl([row]))

    def finish(self, order: Sequence[str]) -> None:
        """Rows in the order of their files; those of files that are not named come last."""
        assert self.out is not None
        assert self.path is not None
        place = {file: number for number, file in enumerate(order)}
        rows = sorted(self.rows.values(), key=lambda row: place.get(row["file"], len(place)))
        write_text(self.out, WRITERS[self.out.suffix](rows))
        self.path.unlink()


def _partial(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """-> what made the rows, and the rows.  None of either when there is no such file."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}, []
    (_, head), *lines = [*_lines(path)] or [("", {})]
    if not isinstance(head, dict) or not {"model", "decoding"} <= head.keys():
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
    count = Counter(row["file"] for row in rows)
    ids = image_ids(count)
    items = [
        {"image_id": ids[row["file"]] if count[row["file"]] == 1 else _piece_id(ids[row["file"]], row), **row}
        for row in rows
    ]
    return json.dumps(items, indent=1, ensure_ascii=False) + "\n"


def _piece_id(id: int | str, row: Row) -> str:
    return f"{id}_{row['start']:g}_{row['end']:g}"


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
