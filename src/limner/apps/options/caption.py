"""Caption images and videos.

    limner caption photo.jpg clip.mp4 folder/ --out captions.csv

Without --out captions are printed.  The ending of --out chooses CSV, JSONL, JSON (COCO results), an HTML report,
Parquet, or a Hugging Face data set.
Videos of more than a minute are cut into shots.  Without files this is a prompt: type a path, get a caption.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import (
    add_clip,
    add_cutting,
    add_decoding,
    add_device,
    add_ensemble,
    add_model,
    add_overwrite,
    add_part,
    add_prompting,
    add_sidecars,
    add_style,
    positive_int,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="images, videos, folders, patterns; - reads a list")
    add_model(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help=".csv, .jsonl, .json, .html (report), .parquet, .hf")
    parser.add_argument("--references", type=Path, metavar="FILE", help="a report shows them, with scores")
    parser.add_argument("--caption-column", default="", metavar="C", help="of --references, when it is unusual")
    parser.add_argument("--resume", action="store_true", help="keep the captions that --out already has")
    add_overwrite(parser)
    add_part(parser)
    parser.add_argument(
        "--csv-safe", action=argparse.BooleanOptionalAction, default=True,
        help="an apostrophe before spreadsheet formulas (default)",
    )  # fmt: skip
    add_style(parser)
    add_device(parser)
    add_prompting(parser)
    add_sidecars(parser)
    group = parser.add_argument_group("videos")
    group.add_argument("--frames", type=positive_int, metavar="N", help="frames sampled from a video or shot")
    add_clip(group)
    group.add_argument("--frame-folders", action="store_true", help="a folder's images are the frames of one video")
    add_cutting(group)
    for name in ("srt", "vtt"):
        group.add_argument(
            f"--{name}", nargs="?", const="", metavar="PATH", help="subtitle file or folder (default: beside the video)"
        )
    add_decoding(parser)
    add_ensemble(parser)
