"""Encode a data set into a feature store.

    limner extract RECIPE.yaml
    limner extract RUN --out DIR           with the trained encoder of a run
    limner extract --data NAME --media DIR --encoder PATH --out DIR

The same command continues an interrupted extraction.  --verify checks a finished store against its checksums.
"""

import argparse

from limner.apps.shared.arguments import add_part, positive_int
from limner.apps.shared.names import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="recipe or run: its data, encoder and store")
    kinds = sorted(names_of("limner.data.datasets.DATASETS"))
    parser.add_argument("--data", choices=kinds, metavar="NAME", help=f"one of {', '.join(kinds)}")
    parser.add_argument("--media", metavar="DIR", help="folder of images or videos")
    parser.add_argument("--annotations", default="", metavar="FILE", help="caption file")
    parser.add_argument("--encoder", metavar="PATH", help="transformers folder or hub id, or a 3-D ResNet's .pth")
    parser.add_argument(
        "--window", type=positive_int, metavar="N", help="3-D ResNet: frames per vector (published: 16)"
    )
    parser.add_argument("--out", metavar="DIR", help="feature store (default: the recipe's `features`)")
    add_part(parser)
    augmentations = ", ".join(names_of("limner.data.augmentations.AUGMENTATIONS"))
    parser.add_argument(
        "--augmentations",
        metavar="NAME,...",
        help=f"of {augmentations}; all but full are for training media only",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=32, metavar="N", help="frames at a time (default: 32)"
    )
    parser.add_argument("--frames", type=positive_int, metavar="N", help="frames sampled from a video")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    parser.add_argument(
        "--frame-features",
        metavar="DIR",
        help="also write CLIP's vectors as SFTCap reads them: DIR/frame_feature/ID.npy",
    )
    parser.add_argument("--verify", action="store_true", help="only check the bytes of the store")
