"""Caption photographs with limner-small, show them on a page, and explain one.

    limner demo [FILE ...] --out demo

The photographs come from installed packages, matplotlib and scikit-image (pip install 'limner[demo]').  A video made of
them and one of the micro-world are captioned too.  Needs no data and no network.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="images, videos or folders instead of photographs")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder to write (default: demo)")
    parser.add_argument("--model", metavar="RUN", help="instead of limner-small")
    parser.add_argument("--beam", type=positive_int, default=3, metavar="K", help="hypotheses (default: %(default)s)")
