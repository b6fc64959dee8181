"""Caption a split of a run's data and score it: limner evaluate RUN --split test

Prints the table and writes scores.json and captions.json (COCO results format) into the run folder; --report a page of
the media with their captions, references and scores, with pictures where the files are there.
Where the data lie elsewhere by now: --data.media DIR, --data.annotations FILE, --features STORE.
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from limner.apps.score import add_metrics, metrics_of, show
from limner.apps.shared import html_report as report
from limner.apps.shared.arguments import (
    WrongArguments,
    add_decoding,
    add_run,
    add_search,
    averaging_of,
    overrides,
    positive,
    report_problems,
    search_of,
)
from limner.apps.shared.journal import REPORT
from limner.apps.shared.runs import is_packed, open_run
from limner.core.files import write_text
from limner.runs.evaluation import Evaluation, evaluate_run, write_evaluation
from limner.runs.package import resolve_model
from limner.runs.run import load_ensemble_members


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder, or packed model")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N media")
    parser.add_argument("--out", help="folder for scores.json and captions.json (default: the run folder)")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="a page: media, captions, references, scores")
    add_metrics(parser)
    add_decoding(parser)
    add_search(parser)
    add_run(parser)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.report and (options.report.suffix != REPORT or options.report.is_dir()):
        raise WrongArguments(f"--report {options.report}: name a file that ends in {REPORT}")
    loaded = open_run(options, rest)
    if is_packed(loaded) and not options.out:
        raise ValueError(f"{options.run} is a packed model and stays as it is: say with --out where its scores go")
    decoding = search_of(options, loaded.recipe.beam, loaded.vocabulary)
    others = load_ensemble_members(
        loaded, [resolve_model(other) for other in options.others], options.encoder, options.device
    )
    metrics, extra, protocol = metrics_of(options)
    evaluation = evaluate_run(
        loaded, options.split, decoding, options.limit, metrics, extra, others, averaging_of(options)
    )
    scores = replace(evaluation.report, protocol=evaluation.report.protocol | protocol)
    evaluation = replace(evaluation, report=scores)
    show(scores)
    out = Path(options.out or options.run)
    about: dict[str, Any] = {"split": options.split, "decoding": asdict(decoding)}
    if others:
        about["ensemble"] = {"runs": [options.run, *options.others], "weights": options.weights, "of": options.average}
    write_evaluation(evaluation, out, about)
    for name in ("recipe.json", "log.jsonl"):  # small outputs that are kept elsewhere say how they came about
        if out.resolve() != loaded.folder.resolve() and (loaded.folder / name).is_file():
            write_text(out / name, (loaded.folder / name).read_text(encoding="utf-8"))
    print(f"wrote {out / 'scores.json'} and {out / 'captions.json'}")
    if options.report:
        anew = {f"recipe.{name}": value for name, value in overrides(rest)}
        _write_report(options.report, evaluation, {"captions of": options.run, **about, **anew})
    report_problems(evaluation.problems)
    if evaluation.other_problems:
        print(f"and {len(evaluation.other_problems)} outside of what was evaluated, see scores.json", file=sys.stderr)
    return 3 if evaluation.problems else 0


def _write_report(path: Path, evaluation: Evaluation, about: dict[str, Any]) -> None:
    """The page; what it could not show is said."""
    text, missing = report.evaluated(evaluation, about)
    write_text(path, text)
    print(f"wrote {path}")
    for line in missing:
        if line not in evaluation.report.notes:  # which stand below the table already
            print(f"note: {line}", file=sys.stderr)
