"""Average the weights of runs into one run (a model soup).

    limner average RUN_A RUN_B --weights 0.6,0.4 --out RUN

The runs have one model, one vocabulary and one encoder, and come from the same weights: for example the cross-entropy
and the self-critical stage of one recipe.  Of unrelated runs the mean says nothing; use --with for an ensemble.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders or packed models, two or more")
    parser.add_argument("--weights", default="", metavar="W,W,...", help="one per run (default: all equal)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new run")
