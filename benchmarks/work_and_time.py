"""What captions cost, against the work: beam, cells, words, number of images, and one or two processes; CPU time.

    OMP_NUM_THREADS=1 python benchmarks/work_and_time.py --out docs/experiments/work_and_time.svg

Show, Attend and Tell at limner-small's size (hidden 512, embed 256, attention 320, projection 448, 3,726 words) with
random weights and features, so that every caption has exactly the words that are asked for.  One quantity changes at a
time; the others are those of limner-small: beam 3, 64 cells, 11 words, 16 images.  Points are the least of the rounds,
lines are the least squares fit a + b * quantity; its relative error says how straight the cost is.  Beside the time,
the operations of matrix products, which grow in the same way.

Then one process captions all images, and two processes half of them each, at the same time: captions per second of wall
time.  On a machine that others share this says little; the CPU time that both took together says what sharing costs.
"""

import argparse
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from limits import counted, gemm_peak
from limner.core.files import write_text
from limner.core.types import EOS, UNK, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from paired import take_turns

VOCABULARY, CHANNELS, SEED = 3726, 1280, 0
USUAL = {"beam": 3, "cells": 64, "words": 11, "images": 16}
VALUES = {
    "beam": (1, 2, 3, 5, 8),
    "cells": (16, 36, 64, 100, 196),
    "words": (5, 8, 11, 16, 22),
    "images": (4, 8, 16, 32, 64),
}


def captioner() -> ShowAttendTell:
    """Random weights that never end a caption."""
    torch.manual_seed(SEED)
    config = ShowAttendTellConfig(hidden=512, embed=256, attention=320, project=448)
    model = ShowAttendTell(config, VOCABULARY, CHANNELS).eval()
    with torch.no_grad():
        model.head.weight *= 20
        model.head.bias[[UNK, EOS]] = -1e4
    return model


def work(model: ShowAttendTell, sizes: dict[str, int]) -> None:
    """Caption as many images, with as many cells, words and hypotheses."""
    draw = torch.Generator().manual_seed(SEED)
    grid = torch.randn(sizes["images"], sizes["cells"], CHANNELS, generator=draw).relu()
    mask = torch.ones(grid.shape[:2], dtype=torch.bool)
    rules = Rules(min_length=0, max_length=sizes["words"], no_repeat_word=False)
    beam(model, Features(grid, mask, Layout(1, 1, sizes["cells"])), Beam(sizes["beam"], rules=rules))


def fit(xs: tuple[int, ...], ys: list[float]) -> tuple[float, float, float]:
    """The line a + b x with the least squares of relative errors -> a, b, and the largest relative error."""
    x, y = np.array(xs, float), np.array(ys)
    (a, b), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], 1), np.ones(len(x)), rcond=None)
    return float(a), float(b), float(np.abs((a + b * x) / y - 1).max())


def draw(results: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    """One panel per quantity: milliseconds of a caption, and the line."""
    width, height, margin = 210, 200, 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(results)} {height}" '
        'font-family="sans-serif" font-size="11" role="img" aria-label="CPU time of a batch against the work">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for panel, (quantity, (milliseconds, _)) in enumerate(results.items()):
        xs = VALUES[quantity]
        a, b, _ = fit(xs, milliseconds)
        top = 1.1 * max(milliseconds)
        left, bottom = panel * width + margin, height - margin

        def at(x: float, y: float, left: int = left, bottom: int = bottom, xs=xs, top: float = top) -> str:  # type: ignore[no-untyped-def]
            return f"{left + x / xs[-1] * (width - margin - 14):.1f},{bottom - y / top * (height - 2 * margin):.1f}"

        parts.append(f'<path d="M{at(0, top)} L{at(0, 0)} L{at(xs[-1], 0)}" fill="none" stroke="#555"/>')
        parts.append(f'<path d="M{at(0, max(a, 0))} L{at(xs[-1], a + b * xs[-1])}" stroke="#1f6feb"/>')
        for x, y in zip(xs, milliseconds, strict=True):
            cx, cy = at(x, y).split(",")
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="#1f6feb"/>')
            parts.append(f'<text x="{cx}" y="{bottom + 13}" text-anchor="middle">{x}</text>')
        parts.append(f'<text x="{left + 60}" y="{height - 6}">{quantity}</text>')
        parts.append(f'<text x="{left + 4}" y="{margin - 14}">up to {max(milliseconds):.0f} ms a batch</text>')
    write_text(path, "\n".join([*parts, "</svg>"]) + "\n")


def processes(count: int, images: int) -> tuple[float, float]:
    """Caption `images` in `count` processes at once -> captions per second of wall time, CPU seconds of all."""
    command = [sys.executable, __file__, "--worker", str(images // count)]
    begin = time.perf_counter()
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    spans = [worker.communicate()[0].split() for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), (
        f"a worker failed after {time.perf_counter() - begin:.0f} s"
    )
    first, last = min(float(span[0]) for span in spans), max(float(span[1]) for span in spans)
    return images / (last - first), sum(float(span[2]) for span in spans)


def worker(images: int) -> None:
    """Print when the work began and ended (seconds since the epoch) and its CPU seconds; loading is left out."""
    model = captioner()
    work(model, USUAL)
    begin, cpu = time.time(), time.process_time()
    for _ in range(images // USUAL["images"]):
        work(model, USUAL)
    print(begin, time.time(), time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns per point (default 3)")
    parser.add_argument("--images", type=int, default=512, help="that one or two processes caption (default 512)")
    parser.add_argument("--out", type=Path, metavar="FILE.svg", help="write the figure here")
    parser.add_argument("--worker", type=int, metavar="N", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        return worker(options.worker)
    model, peak, results = captioner(), gemm_peak(), {}
    for quantity, values in VALUES.items():
        runs = {str(value): partial(work, model, {**USUAL, quantity: value}) for value in values}
        _, operations = counted(runs)
        seconds = take_turns(runs, options.rounds)
        milliseconds = [1e3 * min(seconds[name]) for name in runs]
        results[quantity] = milliseconds, [operations[name] / 1e9 for name in runs]
        a, b, error = fit(values, milliseconds)
        print(f"\n{quantity}: {a:.1f} ms + {b:.2f} ms x {quantity}, largest relative error {error:.0%}")
        for value, spent, giga in zip(values, *results[quantity], strict=True):
            share = giga * 1e9 / (spent / 1e3) / peak
            print(
                f"  {value:4d}  {spent:8.1f} ms  {giga:7.2f} GFLOP, {share:.0%} of the {peak / 1e9:.0f} GFLOP/s of "
                "large products"
            )
    for count in (1, 2):
        speed, cpu = processes(count, options.images)
        print(
            f"{count} process(es): {speed:.1f} captions/s of wall time, {1e3 * cpu / options.images:.2f} ms of CPU each"
        )
    if options.out:
        draw(results, options.out)


if __name__ == "__main__":
    main()
