"""Fit how sure a run's captions are, on images or videos that people have captioned.

    limner calibrate RUN --split val

Writes calibration.json into the run folder; limner pack and limner export take it along.  Captions then have a
confidence: the probability that their CIDEr against people's captions exceeds the bar.  Pictures that are far from
those of training are called unfamiliar.  Prints how well the probabilities fit on captions that were not fitted.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_beam, add_device, add_overwrite, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder (a packed model stays as it is)")
    parser.add_argument("--split", default="val", help="default: val")
    parser.add_argument("--bar", type=float, default=0.5, metavar="CIDER", help="CIDEr to exceed (default: .5)")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N images or videos")
    parser.add_argument(
        "--training", type=positive_int, default=2000, metavar="N", help="training media that show what is familiar"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="reliability diagram (.png, .pdf, .svg)")
    add_overwrite(parser)
    add_device(parser)
    add_beam(parser)
