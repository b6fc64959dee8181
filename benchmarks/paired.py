"""Paired timing on a shared machine: variants take turns in one process, and ratios are what counts.

CPU seconds of this process (not wall time) are measured, because the neighbours on the machine come and go; taking
turns spreads what is left of them over all variants.  Where a variant works in child processes, wall time it has to be.

A ratio says what it is paired with: `PUBLISHED` is the way in which public code works, its batching included; a loop of
our own stands beside it only.  Where matrix products are the work, their speed is compared with the limit of the core.
"""

import gc
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from limits import gemm_peak, report_shares

PUBLISHED = "the published way of working"
OWN = "a slower form of limner's own"


def arguments(description: str | None, rounds: int) -> Namespace:
    """The command line of every benchmark; the rest of the process runs on one thread."""
    parser = ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help=f"turns per variant (default {rounds})")
    torch.set_num_threads(1)
    return parser.parse_args()


def take_turns(
    variants: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each variant in each round; every other round runs in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name in list(variants)[:: -1 if turn % 2 else 1]:
            gc.collect()
            begin = clock()
            variants[name]()
            seconds[name].append(clock() - begin)
    return seconds


def report(
    seconds: dict[str, list[float]],
    bars: Mapping[str, float],
    measured: str = "CPU time",
    *,
    paired_with: str,
    work: Mapping[str, int] | None = None,
) -> None:
    """One line per variant, then how many times longer than the first one each other takes, and the bar for that.

    `paired_with` says what the others are.  `work` are the operations of each variant's matrix products, if it has any;
    their speed is printed with its share of the speed of large products at this moment.
    """
    print(f"paired with {paired_with}")
    for name, times in seconds.items():
        print(f"{name:<44} min {min(times):8.3f} s   median {median(times):8.3f} s   ({len(times)} rounds, {measured})")
    (name, fast), *others = seconds.items()
    for other, slow in others:
        ratios = [b / a for a, b in zip(fast, slow, strict=True)]
        bar = f"; bar {bars[other]:g}x" if other in bars else ""
        print(
            f"{other} / {name}: {median(ratios):.2f}x median of rounds, {min(slow) / min(fast):.2f}x of minima, "
            f"rounds {min(ratios):.2f}x to {max(ratios):.2f}x{bar}"
        )
    if work is None:
        print("no share of a peak: the work is not matrix products")
    else:
        report_shares({name: count for name, count in work.items() if name in seconds}, seconds, gemm_peak())
