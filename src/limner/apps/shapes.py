"""`limner shapes`: generate the micro-world: images and videos of coloured shapes, with captions and exact truth."""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments, refuse_unknown


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    from limner.data.shapes import generate_world

    try:
        generate_world(
            Path(options.out),
            options.images,
            options.videos,
            options.seed,
            size=options.size,
            objects=options.objects,
            frames=options.frames,
        )
    except ValueError as error:  # a number that is out of range
        raise WrongArguments(str(error)) from error
    print(f"{options.out}: {options.images} images, {options.videos} videos, truth.json")
    return 0
