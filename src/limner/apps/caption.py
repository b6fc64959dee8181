"""Caption raw pictures and clips: limner caption photo.jpg clip.mp4 folder/ --out captions.csv

--model names another model than limner's own: a run folder, a packed model or its hub id, or a captioner of
transformers (hf:Salesforce/blip-image-captioning-base, or its folder).  Without files it is a prompt that answers paths
with captions; `-` reads a list of files from the standard input.
The output is CSV, JSONL, JSON (COCO results format) or a page to look at (.html) by its ending, or lines on the screen
without --out.  Rows of clips have start and end in seconds.  A clip of more than a minute is cut into shots with a
caption each; --shots, --every and --whole say otherwise.  --srt and --vtt write subtitles as well.  Files that cannot
be read are listed at the end and make the exit status 3; --resume keeps what an interrupted call has done, and what a
finished output holds.
"""

import argparse
import glob
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limner.apps.shared import subtitles
from limner.apps.shared.arguments import (
    WrongArguments,
    add_decoding,
    add_run,
    add_search,
    no_more,
    positive,
    report_problems,
    search_of,
)
from limner.apps.shared.journal import REPORT, WRITERS, Journal, Row, printable
from limner.apps.shared.models import MODEL, open_captioner
from limner.apps.shared.pieces import Cut, Piece, pieces
from limner.core.files import sha256
from limner.core.torch_free import Caption, Failure, Source
from limner.data.captions_file import read_captions
from limner.data.media import MEDIA_SUFFIXES, is_clip
from limner.decode.options import Beam, Decoding
from limner.inference.load import CaptionPipeline
from limner.text.alt_text import MAX_CHARS, alt_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", help="pictures, clips, folders and patterns of them; - reads a list")
    parser.add_argument("--model", metavar="RUN", help=MODEL)
    parser.add_argument("--engine", choices=["torch", "onnx"], default="torch", help="onnx: of `limner export`")
    parser.add_argument("--out", type=Path, help="file ending in .csv, .jsonl, .json or .html (a report)")
    parser.add_argument("--references", type=Path, metavar="FILE", help="a report's: it shows them, and scores")
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
    known = (*WRITERS, REPORT)
    if options.out and options.out.suffix not in known:
        raise WrongArguments(f"--out {options.out}: the ending says the format; known are {', '.join(known)}")
    if options.references and not (options.out and options.out.suffix == REPORT):
        raise WrongArguments("--references are shown by a report: give --out report.html (limner score is for others)")
    if options.out and options.out.is_dir():
        raise WrongArguments(f"--out {options.out} is a folder; name a file in it")
    if options.max_chars and options.style != "alt-text":
        raise WrongArguments("--max-chars is about alternative text: give --style alt-text")
    if not options.sources:
        return converse(options)
    files, problems = expand(options.sources)
    references = read_captions(options.references) if options.references else None
    if references:
        from limner.apps.shared import html_report as report

        report.check(files, references)
    clips = [file for file in files if is_clip(file)]
    asked = {f".{name}": getattr(options, name) for name in ("srt", "vtt") if getattr(options, name) is not None}
    places = {suffix: subtitles.places(option, suffix, clips) for suffix, option in asked.items()}
    captioner = open_captioner(options)
    decoding = search_of(options, captioner.decoding, captioner.vocabulary)
    cut = Cut(options.every, options.shots, options.whole)
    by = made_by(captioner.fingerprint(), decoding)
    if options.style == "alt-text":
        by["style"] = {"alt-text": options.max_chars or MAX_CHARS}
    if options.others:
        from limner.runs.package import resolve_model

        members = [sha256(resolve_model(other) / "model.safetensors") for other in options.others]
        by["ensemble"] = {"members": members, "weights": options.weights, "of": options.average}
    if clips:
        by["clips"] = {"frames": captioner.frames, **asdict(cut)}
    journal = Journal(options.out, options.resume, by)
    styled = style_of(options)
    caption_all(files, captioner, decoding, cut, journal, options.batch_size, problems, styled)
    if options.out:
        paths = {printable(file): file for file in files}
        told = {"captions of": captioner.name, **by}
        write = partial(shown_as_page, told=told, paths=paths, references=references, problems=problems)
        journal.finish(list(paths), write if options.out.suffix == REPORT else None)
        print(f"{printable(str(options.out))}: {len(journal.rows)} captions")
    for suffix, where in places.items():
        written = subtitles.write({clip: cues_of(clip, journal.rows.values()) for clip in clips}, where, suffix)
        more = f" and {len(written) - 1} more" if len(written) > 1 else ""
        print(f"{printable(str(written[0]))}{more} written" if written else f"no {suffix} file written")
    report_problems(problems)
    return 3 if problems else 0


def shown_as_page(rows: list[Row], told: dict[str, Any], **more: Any) -> str:
    """The report; what it could not show is said."""
    from limner.apps.shared import html_report as report

    text, missing = report.page(rows, told, **more)
    for line in missing:
        print(f"note: {line}", file=sys.stderr)
    return text


def converse(options: argparse.Namespace) -> int:
    """The prompt."""
    from limner.apps.shared.prompt import talk

    unset: tuple[object, ...] = (None, False, [], ())
    names = ("out", "resume", "srt", "vtt", "others", "sample")
    if idle := [name for name in names if getattr(options, name) not in unset]:
        raise WrongArguments(f"nothing to caption: name files (--{idle[0]} is of no use in the prompt)")
    captioner = open_captioner(options)
    decoding = search_of(options, captioner.decoding, captioner.vocabulary)
    assert isinstance(decoding, Beam)
    return talk(captioner, decoding, style_of(options))


def style_of(options: argparse.Namespace) -> Callable[[str], str]:
    """What is made of a caption."""
    if options.style == "plain":
        return str
    return partial(alt_text, max_chars=options.max_chars or MAX_CHARS)


def caption_all(
    files: Sequence[str],
    captioner: CaptionPipeline,
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
        for piece, source in pieces(todo, cut, captioner.sampling, problems):
            waiting.append(piece)
            yield source

    console = Console(soft_wrap=True)
    columns = (TextColumn("caption"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (console.is_terminal and journal.out)) as bar:
        task = bar.add_task("caption", total=len(files), completed=len(files) - len(todo))
        for _, result in captioner.captions(sources(), decoding, batch_size):
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
            media = (p for p in path.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES)
            found = sorted(str(p) for p in media if p.is_file() or not p.exists())  # a link to nothing is reported
            if not found:
                problems.append(f"{source}: no picture or clip in this folder")
            files.update(dict.fromkeys(found))
        else:
            files[str(path)] = None
    return list(files), problems


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


def made_by(model: str, decoding: Decoding) -> dict[str, Any]:
    """What decides about the captions: the model's weights and the search."""
    plain = json.loads(json.dumps(asdict(decoding)))  # as it is read back from a file
    return {"model": model, "decoding": plain}
