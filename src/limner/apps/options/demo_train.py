"""Generate the micro-world, train on it, caption test images, score and explain.

    limner demo-train --out demo

The recipe is recipes/shapes_pictures.yaml of the source tree.  Needs no data, no download and no GPU.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder to write (default: demo)")
    parser.add_argument("--images", type=positive_int, default=3000, metavar="N", help="default: %(default)s")
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
