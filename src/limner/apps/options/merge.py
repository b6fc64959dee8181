"""Merge the parts that several jobs made with --part.

    limner merge captions-*.csv --out captions.csv
    limner merge features-* --out features

Nothing may be missing or double, and all parts must come from one model, one decoding and one list: then the output
is that of one undivided command.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_overwrite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="+", type=Path, metavar="PATH", help="outputs of caption, or of extract")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".csv, .jsonl, .json; or a folder")
    add_overwrite(parser)
