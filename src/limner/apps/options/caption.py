"""Caption images and videos.

    limner caption photo.jpg clip.mp4 folder/ --out captions.csv

Without --out captions are printed.  The ending of --out chooses CSV, JSONL, JSON (COCO results) or an HTML report.
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
    parser.add_argument("--out", type=Path, metavar="FILE", help="ends in .csv, .jsonl, .json or .html (report)")
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
    _add_prompting(parser)
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


def _add_prompting(parser: argparse.ArgumentParser) -> None:
    """The options of models that take a request with the picture."""
    group = parser.add_argument_group("vision-language models (hf:...) and servers (openai:...)")
    group.add_argument("--prompt", metavar="TEXT", help="the request (default: one plain sentence)")
    group.add_argument("--system", default="", metavar="TEXT", help="the system message of a chat model")
    group.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="", metavar="NAME",
        help="float32 (default on the CPU), bfloat16 (elsewhere) or float16",
    )  # fmt: skip
    group.add_argument(
        "--max-side", type=positive_int, metavar="N", help="scale larger pictures down to N pixels (default: 1024)"
    )
    group.add_argument(
        "--context", choices=["sidecar", "exif", "any"], metavar="FROM",
        help="words about a file for the request: sidecar (dog.txt), exif, any",
    )  # fmt: skip
    group.add_argument("--requests", type=positive_int, metavar="N", help="under way at a server (default: 4)")
    group.add_argument("--timeout", type=positive_seconds, metavar="S", help="seconds for a request (default: 300)")
    group.add_argument("--key-variable", metavar="NAME", help="that holds the key (default: LIMNER_API_KEY)")


def _add_sidecars(parser: argparse.ArgumentParser) -> None:
    """The options of captions beside their files."""
    group = parser.add_argument_group("captions beside the files")
    group.add_argument("--sidecar", choices=["txt", "caption", "json"], metavar="KIND", help="dog.KIND for dog.jpg")
    group.add_argument(
        "--existing", choices=["skip", "overwrite", "append", "prepend"], metavar="HOW",
        help="a sidecar that is there: skip (default), overwrite, append, prepend",
    )  # fmt: skip
    group.add_argument("--prefix", metavar="TEXT", help="before each caption in a sidecar")
    group.add_argument("--suffix", metavar="TEXT", help="after it")
    group.add_argument("--template", metavar="TEXT", help="around it: '{caption}, {name}, {folder}'")
