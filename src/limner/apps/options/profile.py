"""Measure what runs cost: size, operations, memory and time.

    limner profile RUN [RUN ...] --figure pareto.png

Time is measured from file to sentence by stage, and as captions per second.  Memory is that of a process on the CPU,
whatever the --device.  The figure shows cost against CIDEr, which `limner evaluate` writes into a run's folder.
What a model sees of a video can be changed: --frames N, --sampling.FIELD VALUE.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_beam, add_overwrite, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, packed models, limner-small")
    parser.add_argument("--media", metavar="FILE", help="image or video to measure with (default: noise)")
    parser.add_argument("--repeats", type=positive_int, default=10, metavar="N", help="of these the median counts")
    parser.add_argument("--batch-size", type=positive_int, default=16, metavar="N", help="for captions per second")
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N")
    parser.add_argument("--no-memory", action="store_true", help="start no process to measure memory")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="Pareto figure (.png, .pdf, .svg)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write all numbers")
    add_overwrite(parser)
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the runs' pretrained encoder is now")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    add_beam(parser)
