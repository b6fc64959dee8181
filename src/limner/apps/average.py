"""`limner average`: one run whose weights are the mean of those of several runs."""

import argparse

from limner.apps.shared.arguments import WrongArguments, refuse_unknown
from limner.runs.resolve import resolve_model
from limner.runs.weight_average import average_runs


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    try:
        weights = [float(part) for part in options.weights.split(",")] if options.weights else [1.0] * len(options.runs)
    except ValueError as error:
        raise WrongArguments(f"--weights {options.weights}: give numbers, for example 0.6,0.4") from error
    folders = [resolve_model(name) for name in options.runs]
    out = average_runs(folders, weights, options.out)
    shares = ", ".join(
        f"{weight / sum(weights):.2g} of {name}" for weight, name in zip(weights, options.runs, strict=True)
    )
    print(f"wrote {out}: {shares}")
    return 0
