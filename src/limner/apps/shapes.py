"""Generate the micro-world, pictures and clips of coloured shapes with exact truth: limner shapes --out DIR"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import no_more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--videos", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objects", type=int, default=3, help="at most so many in a picture: 1, 2 or 3")
    parser.add_argument("--size", type=int, default=64, help="side in pixels")
    parser.add_argument("--frames", type=int, default=16, help="of a clip, 8 a second; more than 16 leave pauses")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    from limner.data.shapes import generate_world

    generate_world(
        Path(options.out),
        options.images,
        options.videos,
        options.seed,
        size=options.size,
        objects=options.objects,
        frames=options.frames,
    )
    print(f"{options.out}: {options.images} pictures, {options.videos} clips, truth.json")
    return 0
