"""`limner score`: score captions of any tool."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    refuse_unknown,
)
from limner.apps.shared.console import EscapingConsole, open_console
from limner.apps.shared.streams import escape_controls
from limner.core.addresses import refuse_address
from limner.core.files import write_json
from limner.data.captions_file import DOMAINS, SHAPES, read_captions
from limner.data.media_folder import media_below
from limner.data.pairing import CaptionPairs, normalise_id, pair_captions, summarise_ids
from limner.data.shapes import read_truth
from limner.data.shapes_words import Scene
from limner.metrics.breakdown import break_down, breakdown_tables, find_id
from limner.metrics.breakdown.tables import BreakdownTable, by_metric
from limner.metrics.references import Candidates, References, Score
from limner.metrics.report import (
    Metric,
    Report,
    SampleReport,
    evaluate,
    evaluate_samples,
    microworld_table,
    report_table,
    report_to_json,
    sample_report_table,
    select_metrics,
)


def metrics_of(
    options: argparse.Namespace,
) -> tuple[dict[str, Metric] | None, dict[str, Metric], dict[str, str | int | float]]:
    """-> (the metrics of --metrics, None for all; additional ones; what the protocol says about those).

    Raises WrongArguments for a metric that does not exist.
    """
    from limner.metrics.spice import check_installation, spice

    chosen = None
    if options.metrics != "all":
        try:
            chosen = select_metrics(options.metrics.split(","))
        except ValueError as error:
            raise WrongArguments(str(error)) from error
    extra: dict[str, Metric] = {}
    about: dict[str, str | int | float] = {}
    if jar := options.spice_jar:
        extra["SPICE"] = partial(spice, jar=jar)
        about["SPICE"] = f"{Path(jar).name}, Java {check_installation(jar)}"
    return chosen, extra, about


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    _check_options(options)
    if options.check_only:
        return _check_results(options)
    read = [path for path in (options.candidates, options.references, options.training) if path]
    check_outputs(options, options.out, inputs=read)
    metrics, extra, about = metrics_of(options)
    candidates = read_captions(options.candidates)
    references = read_captions(options.references, options.caption_column)
    pairs = pair_captions(
        candidates, references, options.split, options.allow_missing, options.diversity, options.allow_extra
    )
    if options.why:
        return why(options, pairs)
    training = _training(options.training) if options.training else None
    counted = References(pairs.references, options.tokenizer)
    report: Report | SampleReport
    if options.diversity:
        report = evaluate_samples(pairs.candidates, counted, metrics, extra=extra, training=training)
    else:
        captions = {id: texts[0] for id, texts in pairs.candidates.items()}
        scenes = _scenes(options.references, captions) if references.format == SHAPES else None
        if options.clip:
            scores, provenance = _clip_scores(options, captions, pairs)
            extra, about = extra | scores, about | provenance
        report = evaluate(captions, counted, metrics, extra=extra, training=training, scenes=scenes)
    report = replace(report, protocol=report.protocol | about, notes=(*pairs.notes, *report.notes))
    groups = {} if options.diversity else _evaluate_groups(options, pairs, references.groups, metrics)
    for name, part in groups.items():
        show(part, name)
    show(report, "entire" if groups else "")
    if options.out:
        given: dict[str, Any] = {name: str(getattr(options, name)) for name in ("candidates", "references", "split")}
        if groups:
            given["groups"] = {
                name: {"scores": part.scores, "protocol": part.protocol} for name, part in groups.items()
            }
        write_json(options.out, given | report_to_json(report))
        print(f"wrote {options.out} (fractions, not x100)")
    return 0


def why(options: argparse.Namespace, pairs: CaptionPairs) -> int:
    """Print how the scores of one caption come about."""
    id = find_id(options.why, pairs.candidates)
    found = break_down(References(pairs.references, options.tokenizer), id, pairs.candidates[id][0])
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
        return 0
    console = open_console()
    console.print(Text(f"{id}: {escape_controls(found.text)}", style="bold"))
    for i, reference in enumerate(found.references, 1):
        console.print(Text(f"reference {i}: {escape_controls(reference)}"))
    for metric, tables in by_metric(breakdown_tables(found)).items():
        console.rule(Text(metric), align="left")
        for table in tables:
            _print_table(console, table)
    scores = Table(title="scores of this caption x100", title_justify="left")
    for name in found.scores:
        scores.add_column(name, justify="right")
    scores.add_row(*(f"{100 * score:.1f}" for score in found.scores.values()))
    console.print(scores)
    for note in (*pairs.notes, *found.notes):
        print(f"note: {note}", file=sys.stderr)
    return 0


def _print_table(console: EscapingConsole, table: BreakdownTable) -> None:
    """One table of `why`: words as they are, without the markup of rich."""
    console.print(Text(escape_controls(table.title), style="bold"))
    if table.rows:
        shown = Table()
        for place, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if table.is_text(place) else "right")
        for row in table.rows:
            shown.add_row(*(Text(escape_controls(cell)) for cell in row))
        console.print(shown)
    for line in table.lines:
        console.print(Text(escape_controls(line)))


def _evaluate_groups(
    options: argparse.Namespace, pairs: CaptionPairs, groups: Mapping[str, str], metrics: dict[str, Metric] | None
) -> dict[str, Report]:
    """The report of each group of the references (nocaps' domains), as if its images were evaluated alone."""
    reports = {}
    for name in DOMAINS:
        if ids := [id for id in pairs.references if groups.get(id) == name]:
            references = References({id: pairs.references[id] for id in ids}, options.tokenizer)
            report = evaluate({id: pairs.candidates[id][0] for id in ids}, references, metrics)
            reports[name] = replace(report, notes=())
    return reports


def show(report: Report | SampleReport, about: str = "") -> None:
    """Print the tables to stdout and the notes to stderr.  `about` says what a report is of, when there are several."""
    console = open_console()
    if isinstance(report, Report):
        table = report_table(report)
        table.title = f"{about}: {table.title}" if about else table.title
        console.print(table)
        if report.exact:
            console.print(microworld_table(report.exact))
    else:
        console.print(sample_report_table(report))
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)


def find_media(ids: Sequence[str], files: Mapping[str, str], folder: Path | None) -> dict[str, str]:
    """The image or video of each id.

    files   id -> file that a caption file names, below `folder` if that is given
    folder  searched for files with the id as their name, where no file is named

    Raises ValueError for ids without a file, or with several.
    """
    refuse_address(folder or "")
    below: dict[str, list[str]] = {}
    for path in media_below(folder).media if folder else ():
        below.setdefault(normalise_id(path.name), []).append(str(path))
    candidates = {}
    for id in ids:
        named = Path(folder or "", files.get(id, ""))
        candidates[id] = [str(named)] if named.is_file() else below.get(normalise_id(id), [])
    if without := [id for id in ids if not candidates[id]]:
        where = f"below {folder}" if folder else "where the caption files say; give their folder with --images"
        raise ValueError(f"CLIPScore: no image or video of {summarise_ids(without)} {where}")
    if several := [id for id in ids if len(candidates[id]) > 1]:
        raise ValueError(f"CLIPScore: more than one image or video of {summarise_ids(several)} below {folder}")
    return {id: paths[0] for id, paths in candidates.items()}


def _check_results(options: argparse.Namespace) -> int:
    """Print what a server would refuse about the candidates -> the exit status, 1 if there is something."""
    from limner.data.results_check import check_results

    checks = check_results(options.candidates, options.references or "", options.split)
    for check in checks:
        for line in check.problems:
            print(f"{check.path}: {line}")
        for line in check.notes:
            print(f"note: {check.path}: {line}", file=sys.stderr)
    problems = sum(len(check.problems) for check in checks)
    if problems:
        print(f"{problems} problem{'s' if problems > 1 else ''}: the file would be refused, or scored wrongly")
        return 1
    for check in checks:
        known = "" if options.references else "; --references FILE compares the ids, too"
        print(f"{check.path}: {check.entries} captions in COCO's results format{known}")
    return 0


def _check_options(options: argparse.Namespace) -> None:
    """Raise WrongArguments for options that would have no effect, and for references that are missing."""
    if not options.references and not options.check_only:
        raise WrongArguments("which references? give --references FILE (or --check-only, to check the format)")
    if options.check_only and (options.out or options.clip or options.diversity or options.training):
        raise WrongArguments("--check-only scores nothing: leave out --out, --clip, --diversity and --training")
    if options.images and not options.clip:
        raise WrongArguments("--images is for CLIPScore: give --clip too")
    if options.json and not options.why:
        raise WrongArguments("--json prints one caption: give --why ID too (--out FILE.json has the scores of all)")
    unused = [name for name in ("out", "clip", "diversity", "training", "spice_jar") if getattr(options, name)]
    unused += ["metrics"] if options.metrics != "all" else []
    if options.why and unused:
        raise WrongArguments(f"--why prints one caption's scores: leave out --{unused[0].replace('_', '-')}")
    if options.clip and options.diversity:
        raise WrongArguments("--clip scores one caption per id: leave out --diversity")


def _training(path: str) -> list[str]:
    """The captions of a file; of its training split where it has splits."""
    file = read_captions(path)
    if file.splits:
        file = file.split("train")
    return [text for texts in file.captions.values() for text in texts]


def _scenes(references: str, captions: Mapping[str, str]) -> dict[str, Scene]:
    """What is in the images of a micro-world, for the ids that have captions."""
    path = Path(references)
    truth = read_truth(path if path.is_dir() else path.parent)
    return {id: truth[id] for id in captions}


def _clip_scores(
    options: argparse.Namespace, captions: Mapping[str, str], pairs: CaptionPairs
) -> tuple[dict[str, Metric], dict[str, str | int | float]]:
    """CLIPScore and RefCLIPScore, computed, as metrics; and what the protocol says about them."""
    from limner.metrics.clipscore import clip_score, load_clip

    media = find_media(list(captions), pairs.files, options.images)
    clip = load_clip(options.clip, options.device)
    console = open_console(soft_wrap=True)
    columns = (TextColumn("CLIPScore"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(media))
        scores = clip_score(
            media, captions, pairs.references, clip, options.frames, lambda done: bar.update(task, completed=done)
        )
    assert scores.ref_clip_score is not None
    by_name = {"CLIPScore": scores.clip_score, "RefCLIPScore": scores.ref_clip_score}
    return {name: partial(_computed, score) for name, score in by_name.items()}, {
        **clip.provenance(),
        "CLIP frames": options.frames,
    }


def _computed(score: Score, candidates: Candidates, references: References) -> Score:
    """A metric with a score that has been computed already."""
    return score
