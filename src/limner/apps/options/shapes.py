"""Generate the micro-world: images and videos of coloured shapes, with captions and exact truth.

    limner shapes --out DIR --images 3000 --videos 300

truth.json says what is in each of them.  Videos have 8 frames a second; more than 16 frames leave pauses.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--images", type=int, default=3000, metavar="N", help="default: %(default)s")
    parser.add_argument("--videos", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--objects", type=int, default=3, metavar="N", help="at most N in an image: 1, 2 or 3")
    parser.add_argument("--size", type=int, default=64, metavar="N", help="side in pixels (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="of a video, 8 a second (default: 16)")
