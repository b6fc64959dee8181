"""`limner calibrate`: fit how sure a run's captions are."""

import argparse
from pathlib import Path
from typing import Any

from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    report_data_problems,
    split_decoding,
)
from limner.apps.shared.console import open_console
from limner.apps.shared.decoding import beam_of
from limner.apps.shared.runs import is_packed, open_run
from limner.decode.confidence import FILE, Reliability
from limner.inference.calibrate import calibrate
from limner.inference.reliability_figure import FORMATS, reliability_figure


def run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.figure and options.figure.suffix.lower() not in FORMATS:
        raise WrongArguments(
            f"--figure {options.figure}: the ending chooses the format; known are {', '.join(FORMATS)}"
        )
    decoding_changes, changes = split_decoding(rest)
    loaded = open_run(options.run, options, changes)
    if is_packed(loaded):
        raise WrongArguments(
            f"{options.run} is a packed model, which stays unchanged: calibrate the run that it was packed from, and "
            "pack it again"
        )
    check_outputs(options, loaded.folder / FILE, options.figure)
    decoding = beam_of(options, decoding_changes, loaded.recipe.decoding)
    found = calibrate(loaded, options.split, options.bar, decoding, options.limit, options.training, options.device)
    found.calibration.save(loaded.folder)
    open_console().print(table(found.held_out))
    print(summary(found.held_out, float(found.right.mean()), options.bar))
    familiarity = found.calibration.familiarity
    print(f"unfamiliar: a distance above {familiarity.limit:.2f}, as 1 % of the '{options.split}' split have")
    print(f"wrote {loaded.folder / FILE}")
    if options.figure:
        print(f"wrote {reliability_figure(found.held_out, options.bar, Path(options.figure))}")
    report_data_problems(found.problems)
    return 3 if found.problems else 0


def table(found: Reliability) -> Any:
    """The reliability of held-out probabilities, a line per bin."""
    from rich.table import Table

    lines = Table("confidence", "captions", "mean confidence", "above the bar", box=None)
    bins = len(found.counts)
    for k, (count, confidence, accuracy) in enumerate(zip(found.counts, found.confidence, found.accuracy, strict=True)):
        if count:
            lines.add_row(f"{k / bins:.1f} - {(k + 1) / bins:.1f}", str(count), f"{confidence:.2f}", f"{accuracy:.2f}")
    return lines


def summary(found: Reliability, share: float, bar: float) -> str:
    """The numbers of held-out probabilities, in one line."""
    return (
        f"held out: Brier score {found.brier:.3f} ({found.base_brier:.3f} with {share:.2f} for every caption), "
        f"expected calibration error {found.ece:.3f}, AUC {found.auc:.2f}; {share:.0%} of the captions have a CIDEr "
        f"above {bar:g}"
    )
