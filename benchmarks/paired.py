"""Paired timing on a shared machine: variants take turns in one process, and ratios are what counts.

CPU seconds of this process (not wall time) are measured, because the neighbours on the machine come and go; taking
turns spreads what is left of them over all variants.  Where a variant works in child processes, wall time it has to be.
"""

import gc
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch


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


def report(seconds: dict[str, list[float]], bars: dict[str, float], measured: str = "CPU time") -> None:
    """One line per variant, then how many times longer than the first one each other takes, and the bar for that."""
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
