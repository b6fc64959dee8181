"""`limner evaluate`: caption a split of a run's data and score the captions."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from limner.apps.score import metrics_of, show
from limner.apps.shared import html_report
from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    report_data_problems,
    split_decoding,
)
from limner.apps.shared.decoding import averaging_of, decoding_of
from limner.apps.shared.journal import REPORT
from limner.apps.shared.runs import is_packed, open_run
from limner.core.files import write_text
from limner.core.locks import lock_output
from limner.decode.options import Decoding
from limner.metrics.report import Metric
from limner.runs.evaluation import Evaluation, evaluate_run, write_evaluation
from limner.runs.resolve import resolve_model
from limner.runs.run import Run, load_ensemble_members


def run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.report and (options.report.suffix != REPORT or options.report.is_dir()):
        raise WrongArguments(f"--report {options.report}: name a file that ends in {REPORT}")
    check_outputs(options, options.report)
    chosen = metrics_of(options)
    decoding_changes, changes = split_decoding(rest)
    loaded = open_run(options.run, options, changes)
    if is_packed(loaded) and not options.out:
        raise WrongArguments(f"{options.run} is a packed model, which stays unchanged: give --out DIR for its scores")
    decoding = decoding_of(options, decoding_changes, loaded.recipe.decoding, loaded.vocabulary)
    out = Path(options.out or options.run)
    about: dict[str, Any] = {"split": options.split, "decoding": asdict(decoding)}
    if options.data_set:
        about["data_set"] = options.data_set
    if options.clip:
        about["clip"] = options.clip
    with lock_output(out / "scores.json"):
        evaluation = _evaluate(options, loaded, decoding, *chosen)
        _show(evaluation)
        if options.others:
            runs = [options.run, *options.others]
            about["ensemble"] = {"runs": runs, "weights": options.weights, "of": options.average}
        write_evaluation(evaluation, out, about)
        for name in ("recipe.json", "log.jsonl"):  # scores in another folder keep how the model was trained
            if out.resolve() != loaded.folder.resolve() and (loaded.folder / name).is_file():
                write_text(out / name, (loaded.folder / name).read_text(encoding="utf-8"))
    print(f"wrote {out / 'scores.json'} and {out / 'captions.json'}")
    if options.report:
        changed = {f"recipe.{name}": value for name, value in changes}
        _write_report(options.report, evaluation, {"captions of": options.run, **about, **changed})
    report_data_problems(evaluation.problems)
    if evaluation.other_problems:
        count = len(evaluation.other_problems)
        print(f"{count} more in the rest of the data set, see scores.json", file=sys.stderr)
    return 3 if evaluation.problems else 0


def _evaluate(
    options: argparse.Namespace,
    run: Run,
    decoding: Decoding,
    metrics: dict[str, Metric] | None,
    extra: dict[str, Metric],
    protocol: dict[str, str | int | float],
) -> Evaluation:
    """Caption and score the split with the run, or with the ensemble that --with makes of it."""
    members = [resolve_model(other) for other in options.others]
    others = load_ensemble_members(run, members, options.encoder, options.device)
    evaluation = evaluate_run(
        run, options.split, decoding, options.limit, metrics, extra, others, averaging_of(options),
        options.tokenizer or "", options.data_set, options.clip,
    )  # fmt: skip
    report = replace(evaluation.report, protocol=evaluation.report.protocol | protocol)
    return replace(evaluation, report=report)


def _show(evaluation: Evaluation) -> None:
    """Print the scores of each of several data sets, and those of all."""
    for label, part in evaluation.by_data_set.items():
        notes = tuple(f"{label}: {note}" for note in part.notes if note not in evaluation.report.notes)
        show(replace(part, notes=notes), label)
    show(evaluation.report, "all data sets" if evaluation.by_data_set else "")


def _write_report(path: Path, evaluation: Evaluation, about: dict[str, Any]) -> None:
    """Write the page, and print what it could not show."""
    text, missing = html_report.report_of_split(evaluation, about)
    write_text(path, text)
    print(f"wrote {path}")
    for line in missing:
        if line not in evaluation.report.notes:  # which are printed below the table
            print(f"note: {line}", file=sys.stderr)
