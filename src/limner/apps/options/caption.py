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
    add_decoding,
    add_device,
    add_ensemble,
    add_overwrite,
    add_prompting,
    positive_int,
    positive_seconds,
    probability,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="images, videos, folders, patterns; - reads a list")
    parser.add_argument(
        "--model", metavar="RUN", help="run, packed model, hub id, hf:ID, openai:URL#NAME (default: limner-small)"
    )
    parser.add_argument(
        "--engine", choices=["torch", "onnx"], metavar="NAME", help="torch or onnx (default: the one of --model)"
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="default: OMP_NUM_THREADS; of onnx else one")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".csv, .jsonl, .json, .html (report), .parquet, .hf")
    parser.add_argument("--references", type=Path, metavar="FILE", help="a report shows them, with scores")
    parser.add_argument("--caption-column", default="", metavar="C", help="of --references, when it is unusual")
    parser.add_argument("--resume", action="store_true", help="keep the captions that --out already has")
    add_overwrite(parser)
    parser.add_argument(
        "--csv-safe", action=argparse.BooleanOptionalAction, default=True,
        help="an apostrophe before spreadsheet formulas (default)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=16, metavar="N", help="images at a time (default: 16)"
    )
    parser.add_argument(
        "--style", choices=["plain", "sentence", "alt-text"], default="plain", metavar="NAME",
        help="plain (default), sentence (the first one), or alt-text",
    )  # fmt: skip
    parser.add_argument("--min-confidence", type=probability, metavar="P", help="withhold captions that are less sure")
    parser.add_argument("--max-chars", type=positive_int, metavar="N", help="of --style alt-text (default: 125)")
    add_device(parser)
    add_prompting(parser)
    _add_sidecars(parser)
    group = parser.add_argument_group("videos")
    group.add_argument("--frames", type=positive_int, metavar="N", help="frames sampled from a video or shot")
    add_clip(group)
    group.add_argument("--frame-folders", action="store_true", help="a folder's images are the frames of one video")
    cutting = group.add_mutually_exclusive_group()
    cutting.add_argument("--shots", action="store_true", help="cut every video into shots")
    cutting.add_argument("--every", type=positive_seconds, metavar="SECONDS", help="cut videos into equal windows")
    cutting.add_argument("--whole", action="store_true", help="one caption per video, however long")
    for name in ("srt", "vtt"):
        group.add_argument(
            f"--{name}", nargs="?", const="", metavar="PATH", help="subtitle file or folder (default: beside the video)"
        )
    add_decoding(parser)
    add_ensemble(parser)


def _add_sidecars(parser: argparse.ArgumentParser) -> None:
    """The options of captions beside and inside their files."""
    group = parser.add_argument_group("captions beside or inside the files")
    kinds = ["txt", "caption", "json", "xmp"]
    group.add_argument("--sidecar", choices=kinds, metavar="KIND", help="txt, caption, json, xmp: dog.txt for dog.jpg")
    group.add_argument("--exif", action="store_true", help="into EXIF's ImageDescription of the image file itself")
    group.add_argument("--xmp", action="store_true", help="into its XMP (dc:description)")
    group.add_argument(
        "--existing", choices=["skip", "overwrite", "append", "prepend"], metavar="HOW",
        help="words that are there: skip (default), overwrite, append, prepend",
    )  # fmt: skip
    group.add_argument("--prefix", metavar="TEXT", help="before each caption that is written there")
    group.add_argument("--suffix", metavar="TEXT", help="after it")
    group.add_argument("--template", metavar="TEXT", help="around it: '{caption}, {name}, {folder}'")
