"""Convert a checkpoint of another captioner into a run folder, or a detector's regions into a feature store.

    limner convert --from SYSTEM CHECKPOINT --word-map MAP.json --out RUN
    limner convert --from bottom-up FILE.tsv --out STORE
    limner convert --from regions DIR --boxes DIR --sizes SIZES.json --out STORE

Code inside a checkpoint is never executed.
"""

import argparse

from limner.apps.shared.arguments import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint; or the TSV, ZIP or folder of regions")
    parser.add_argument(
        "--from",
        dest="system",
        required=True,
        metavar="SYSTEM",
        help="for example show-attend-tell or sa-lstm; an unknown name lists all",
    )
    parser.add_argument(
        "--word-map", default="", metavar="FILE", help="JSON {word: id}, or self-critical's infos pickle"
    )
    parser.add_argument("--boxes", metavar="DIR", help="regions: ID.npy with boxes, if not beside the features")
    parser.add_argument("--sizes", metavar="FILE", help="regions: JSON {id: [width, height]}, for boxes in pixels")
    parser.add_argument("--encoder", default="", metavar="PATH", help="transformers backbone, for a decoder alone")
    parser.add_argument("--channels", choices=("RGB", "BGR"), default="RGB", help="channel order of the encoder")
    group = parser.add_argument_group("settings of a model that its checkpoint may not hold")
    group.add_argument("--heads", type=positive_int, metavar="N", help="attention heads: spatial, self-critical")
    group.add_argument("--activation", choices=("relu", "gelu"), help="of the feed-forward blocks: spatial")
    group.add_argument("--max-words", type=positive_int, metavar="N", help="most words of a caption")
    group.add_argument("--align", type=_three_sizes, metavar="T,H,W", help="size of the maps: video-captioning-3d")
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder or feature store to write")


def _three_sizes(text: str) -> tuple[int, ...]:
    """Argument type: three whole numbers from 1 on, separated by commas."""
    sizes = tuple(positive_int(part.strip()) for part in text.split(","))
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"expected three numbers T,H,W, got '{text}'")
    return sizes
