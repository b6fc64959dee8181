"""`limner caption`: caption images and videos."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.apps.shared import subtitles
from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    only_decoding,
    report_failed,
    report_notes,
    report_unreadable,
)
from limner.apps.shared.caption_parts import CaptionPart, check_undivided, record_path
from limner.apps.shared.caption_writers import CaptionQueue, caption_writers
from limner.apps.shared.captioning import captioned, printed_line, provenance_of, row_of, style_of
from limner.apps.shared.confidence import notes_about_confidence, require_calibration, shown_text
from limner.apps.shared.data_set_outputs import DATA_SET, PARQUET, check_data_set, is_data_set, write_data_set
from limner.apps.shared.decoding import decoding_of
from limner.apps.shared.input_files import expand, notes_about_frames
from limner.apps.shared.journal import (
    REPORT,
    WRITERS,
    Journal,
    Row,
    check_output,
    has_rows,
    printable,
    side_file,
    to_csv,
)
from limner.apps.shared.models import open_captioner
from limner.apps.shared.progress import progress_bar
from limner.core.files import check_writable, write_text
from limner.core.locks import lock_output
from limner.core.torch_free import Failure
from limner.data.media import is_clip
from limner.data.parts import Part
from limner.decode.options import Beam, Decoding
from limner.inference.context import context_of
from limner.inference.load import CaptionPipeline, PromptedPipeline
from limner.inference.pieces import Cut, Problems
from limner.text.subtitles import Cue
from limner.text.tokens import scoring_tokenizer

if TYPE_CHECKING:
    from limner.data.captions_file import CaptionsFile


def run(options: argparse.Namespace, rest: list[str]) -> int:
    decoding_changes = only_decoding(rest)
    _check_options(options)
    if not options.files:
        return _run_prompt(options, decoding_changes)
    with lock_output(options.out) if options.out else nullcontext():
        return _run_files(options, decoding_changes)


def _run_files(options: argparse.Namespace, decoding_changes: dict[str, str]) -> int:
    """Caption the files, while the lock of the output is held."""
    problems = Problems()
    files, problems.unreadable = expand(options.files, problems.notes, options.frame_folders)
    problems.notes += [] if options.frame_folders else notes_about_frames(options.files)
    part = CaptionPart(options.out, Part(*options.part), files, options.resume) if options.part else None
    if part:
        files = part.files
    elif options.out:
        check_undivided(options.out, options.resume)
    references = _references_of(options, files)
    clips = [file for file in files if is_clip(file)]
    subtitle_options = {f".{name}": getattr(options, name) for name in ("srt", "vtt")}
    paths = {
        suffix: subtitles.subtitle_paths(option, suffix, clips)
        for suffix, option in subtitle_options.items()
        if option is not None
    }
    _check_outputs(options, files, [path for each in paths.values() for path in each.values()])
    queue = CaptionQueue(caption_writers(options), problems)
    selected = queue.select(files)
    captioner = open_captioner(options)
    problems.notes += captioner.notes if isinstance(captioner, PromptedPipeline) else ()
    decoding = decoding_of(options, decoding_changes, captioner.decoding, captioner.vocabulary)
    cut = Cut(options.every, options.shots, options.whole)
    minimum = options.min_confidence
    if minimum is not None:
        require_calibration(captioner, decoding)
    made_with = provenance_of(options, captioner, decoding, cut if clips or part else None)
    keep_finished = part.require(made_with) if part else True
    keep = {"keep_finished": keep_finished, "csv_safe": options.csv_safe}
    journal = Journal(options.out, options.resume, made_with, options.overwrite, **keep)
    if part:
        part.begin()
    elif options.out:
        record_path(options.out).unlink(missing_ok=True)  # of a part that --overwrite replaces
    known = partial(context_of, kind=options.context, notes=problems.notes) if options.context else None
    style, size = style_of(options), options.batch_size
    caption_all(selected, captioner, decoding, cut, journal, size, problems, style, minimum, known, queue)
    if minimum is not None:
        problems.notes += notes_about_confidence(journal.rows.values(), minimum)
    if options.out:
        about = {"captions of": captioner.name, **made_with}
        tokenizer = scoring_tokenizer(captioner.vocabulary.tokenizer if captioner.vocabulary else "")
        _write_output(options.out, journal, files, about, references, problems, tokenizer, options.csv_safe, part)
    for suffix, paths_of_suffix in paths.items():
        _write_subtitles(paths_of_suffix, suffix, journal.rows.values())
    report_unreadable(problems.unreadable)
    report_failed(problems.failed)
    report_notes(problems.notes)
    return 3 if problems.unreadable or problems.failed else 0


def _references_of(options: argparse.Namespace, files: Sequence[str]) -> "CaptionsFile | None":
    """The references that a report shows; None without them."""
    if not options.references:
        return None
    from limner.apps.shared import html_report
    from limner.data.captions_file import read_captions

    references = read_captions(options.references, options.caption_column)
    html_report.check_references(files, references)
    return references


def _check_outputs(options: argparse.Namespace, files: Sequence[str], subtitle_files: Sequence[Path]) -> None:
    """Check before the work that outputs can be written, and that nothing is lost."""
    if options.out:
        check_output(options.out, options.resume, options.overwrite)
        if is_data_set(options.out):
            check_data_set(options.out, files, options.resume, options.overwrite)
        if os.path.realpath(options.out) in {os.path.realpath(path) for path in (*files, options.references or "")}:
            raise ValueError(
                f"{options.out} is an input, which the output would replace: choose another name for --out"
            )
    if options.resume:
        for path in subtitle_files:
            check_writable(path)
    else:
        check_outputs(options, *subtitle_files, inputs=files)


def interrupted(options: argparse.Namespace, command: str) -> str:
    """What is kept of an interrupted call, and the command that continues it."""
    if not can_resume(options):
        return "no caption was written to a file"
    return f"the captions so far are in {side_file(options.out)}; continue with: {command}"


def can_resume(options: argparse.Namespace) -> bool:
    """Whether an interrupted call has left captions that --resume would keep."""
    return bool(options.out) and has_rows(options.out)


def _check_options(options: argparse.Namespace) -> None:
    """Raise WrongArguments for options that contradict each other."""
    known = (*WRITERS, REPORT, PARQUET, DATA_SET)
    if options.out and options.out.suffix not in known:
        raise WrongArguments(f"--out {options.out}: the ending chooses the format; known are {', '.join(known)}")
    if options.references and not (options.out and options.out.suffix == REPORT):
        raise WrongArguments("--references are for a report: give --out report.html (or use limner score)")
    if options.caption_column and not options.references:
        raise WrongArguments("--caption-column is of the references: give --references FILE")
    if options.out and options.out.is_dir() and options.out.suffix != DATA_SET:
        raise WrongArguments(f"--out {options.out} is a folder; name a file in it")
    if options.max_chars and options.style != "alt-text":
        raise WrongArguments("--max-chars is for alternative text: give --style alt-text")
    if options.resume and options.overwrite:
        raise WrongArguments("--resume keeps the captions of --out, --overwrite discards them: give one of them")


def _run_prompt(options: argparse.Namespace, decoding_changes: dict[str, str]) -> int:
    """Answer paths with captions until the user leaves."""
    from limner.apps.shared.prompt import run_prompt

    unset: tuple[object, ...] = (None, False, [], ())
    useless = {
        "--out": options.out,
        "--resume": options.resume,
        "--part": options.part,
        "--sidecar": options.sidecar,
        "--exif": options.exif,
        "--xmp": options.xmp,
        "--srt": options.srt,
        "--vtt": options.vtt,
        "--with": options.others,
        "--sample": options.sample,
    }
    if given := [flag for flag, value in useless.items() if value not in unset]:
        raise WrongArguments(f"nothing to caption: name files ({given[0]} has no effect in the prompt)")
    captioner = open_captioner(options)
    decoding = decoding_of(options, decoding_changes, captioner.decoding, captioner.vocabulary)
    assert isinstance(decoding, Beam)
    return run_prompt(captioner, decoding, style_of(options))


def caption_all(
    files: Sequence[str],
    captioner: CaptionPipeline,
    decoding: Decoding,
    cut: Cut,
    journal: Journal,
    batch_size: int,
    problems: Problems,
    style: Callable[[str], str],
    min_confidence: float | None = None,
    context: Callable[[str], str] | None = None,
    queue: CaptionQueue | None = None,
) -> None:
    """Caption the files that the journal does not hold yet.

    `context` is what is known about a file.  Shows a progress bar, or without an output file a line per caption.  A
    caption with a confidence below `min_confidence` is withheld: its row has an empty caption, and the text in another
    field.
    """
    if queue:
        queue.add_done(files, journal.rows.values())
    done = {row["file"] for row in journal.rows.values()}
    todo = [file for file in files if printable(file) not in done]
    place = {file: number for number, file in enumerate(todo, len(files) - len(todo))}
    results = captioned(todo, captioner, decoding, cut, batch_size, problems, style, context)
    with progress_bar(len(files), len(files) - len(todo)) if journal.out else nullcontext() as show_progress:
        for piece, caption in results:
            if show_progress:
                show_progress(place[piece.file] + 1)
            if isinstance(caption, Failure):
                (problems.unreadable if caption.unreadable else problems.failed).append(caption.reason)
                continue
            problems.notes += caption.notes
            row = row_of(piece, caption, min_confidence)
            journal.add(row)
            if queue:
                queue.add(piece.file, row)
            if journal.out is None:
                print(printed_line(piece, shown_text(row), len(files)), flush=True)
                for other in caption.others:
                    print(f"    {other.text}", flush=True)
    if queue:
        queue.flush()


def _write_output(
    out: Path,
    journal: Journal,
    files: Sequence[str],
    about: dict[str, Any],
    references: "CaptionsFile | None",
    problems: Problems,
    tokenizer: str,
    csv_safe: bool,
    part: CaptionPart | None,
) -> None:
    """Finish the output file; for a report, print what it could not show."""
    paths = {printable(file): file for file in files}

    def write(rows: list[Row]) -> None:
        if is_data_set(out):
            write_data_set(out, rows, paths)
        elif out.suffix == REPORT:
            from limner.apps.shared import html_report

            text, missing = html_report.report_of_files(rows, about, paths, references, problems, tokenizer)
            for line in missing:
                print(f"note: {line}", file=sys.stderr)
            write_text(out, text)
        else:
            write_text(out, to_csv(rows, safe=csv_safe) if out.suffix == ".csv" else WRITERS[out.suffix](rows))
        if part:
            part.finish(csv_safe, problems)

    journal.finish(list(paths), write)
    of_part = f" of part {part.part} ({len(files)} of {part.total} files)" if part else ""
    print(f"{printable(str(out))}: {len(journal.rows)} captions{of_part}")


def _write_subtitles(paths: dict[str, Path], suffix: str, rows: Iterable[Row]) -> None:
    rows = list(rows)
    written = subtitles.write_subtitles({clip: cues_of(clip, rows) for clip in paths}, paths, suffix)
    more = f" and {len(written) - 1} more" if len(written) > 1 else ""
    print(f"wrote {printable(str(written[0]))}{more}" if written else f"no {suffix} file written")


def cues_of(clip: str, rows: Iterable[Row]) -> list[Cue]:
    """The subtitles of a video, from its rows."""
    own = [row for row in rows if row["file"] == printable(clip) and "start" in row]
    return [Cue(row["start"], row["end"], row["caption"]) for row in own]
