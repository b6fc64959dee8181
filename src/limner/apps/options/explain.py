"""Show where a captioner looks for each word.

    limner explain photo.jpg                      makes photo-explained.png
    limner explain RUN clip.mp4 --out film.mp4    or .gif, a folder, a figure
    limner explain RUN photo.jpg --out page.html  to step through
    limner explain RUN --score                    are the maps right?
    limner explain --join DIR --out film.mp4      PNG files to a film

Of a run on stored features, FILE may be the id of an image or video.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_beam, add_clip, add_device, add_overwrite, positive_int
from limner.apps.shared.names import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="*", metavar="[RUN] FILE", help="a run or packed model; an image or video")
    parser.add_argument("--model", metavar="RUN", help="the same as RUN before FILE (default: limner-small)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="figure (.png .pdf .svg .jpg), film (.mp4 .gif), page (.html) or folder for frames; with --score .json",
    )  # fmt: skip
    add_overwrite(parser)
    methods = ", ".join(names_of("limner.explanations.maps.METHODS"))
    parser.add_argument("--method", metavar="NAME", help=f"{methods}; with --score several, with commas")
    parser.add_argument("--sentence", metavar="WORDS", help="explain this sentence instead of the model's caption")
    parser.add_argument(
        "--unit", default="", metavar="U", help="saliency of a cell (default), frame, region, or of T,H,W cells"
    )
    parser.add_argument("--frames", type=positive_int, metavar="N", help="frames sampled from a video")
    add_clip(parser)
    parser.add_argument("--font", default="", metavar="FILE", help="for words that DejaVu Sans lacks: .ttf, .otf, .ttc")
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="TEXT",
        help="of a page: score against it; may be repeated",
    )
    parser.add_argument("--references", default="", metavar="FILE", help="of a page: captions of the file's data set")
    parser.add_argument("--score", action="store_true", help="score the maps on a split of the run's data")
    parser.add_argument("--split", default="test", help="of --score (default: test)")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="of --score: only the first N")
    parser.add_argument("--join", type=Path, metavar="DIR", help="make a film of PNG files, in the order of names")
    parser.add_argument("--pace", type=positive_int, default=15, metavar="N", help="of --join: frames per second")
    add_device(parser)
    add_beam(parser)
