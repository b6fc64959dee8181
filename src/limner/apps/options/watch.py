"""Caption what arrives in a folder, or what a camera sees.

    limner watch photos --sidecar txt
    limner watch --camera 0 --preview http

Every file gets its caption once, when it is whole; kills, restarts and renames change nothing about that.  A camera,
a stream or a film gets a caption when the scene changes.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import (
    add_beam,
    add_clip,
    add_cutting,
    add_device,
    add_model,
    add_overwrite,
    add_prompting,
    add_sidecars,
    add_style,
    positive_int,
    positive_seconds,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="images and videos arrive in it")
    add_model(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="ends in .jsonl; a line is appended per caption")
    parser.add_argument(
        "--exec", metavar="COMMAND", help="for each caption; words may have {file} and {caption}; see the guide"
    )
    parser.add_argument(
        "--exec-timeout", type=positive_seconds, default=60.0, metavar="S", help="seconds for COMMAND (default: 60)"
    )
    group = parser.add_argument_group("folder")
    group.add_argument("--once", action="store_true", help="end when all files that are there have captions")
    group.add_argument(
        "--recursive", action=argparse.BooleanOptionalAction, default=True, help="subfolders too (default)"
    )
    group.add_argument("--state", type=Path, metavar="FILE", help="what is done (default: FOLDER/.limner-watch)")
    group.add_argument(
        "--interval", type=positive_seconds, default=1.0, metavar="S", help="seconds between looks (default: 1)"
    )
    group.add_argument(
        "--settle", type=positive_seconds, default=2.0, metavar="S", help="unchanged before it is read (default: 2)"
    )
    group.add_argument(
        "--patience", type=positive_seconds, default=30.0, metavar="S",
        help="unchanged before it counts as damaged (default: 30)",
    )  # fmt: skip
    add_sidecars(parser, inside=False)
    group = parser.add_argument_group("camera")
    group.add_argument("--camera", metavar="SOURCE", help="number, address (rtsp://...) or video file")
    group.add_argument("--fast", action="store_true", help="a video file as fast as possible, no scene left out")
    group.add_argument("--seconds", type=positive_seconds, metavar="S", help="end after so long")
    group.add_argument("--preview", metavar="WHERE", help="film with the captions: FILE.mp4, or http[:PORT]")
    for name in ("srt", "vtt"):
        group.add_argument(f"--{name}", type=Path, metavar="FILE", help="subtitles of the scenes")
    add_overwrite(group)
    add_style(parser)
    add_device(parser)
    add_prompting(parser)
    group = parser.add_argument_group("videos")
    group.add_argument("--frames", type=positive_int, metavar="N", help="frames sampled from a video or shot")
    add_clip(group)
    add_cutting(group)
    add_beam(parser)
