"""Caption over HTTP: a service for programs on this machine or network.

    limner serve --port 8000
    curl -F file=@photo.jpg localhost:8000/v1/caption

It has its own interface and those of OpenAI and Ollama.  Requests that come together are captioned together.  SIGTERM
or Ctrl-C finishes what was begun.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_clip, add_device, positive_int, positive_seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", dest="models", action="append", default=[], metavar="[NAME=]RUN",
        help="as of limner caption; may be repeated (default: limner-small)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=["torch", "onnx"], metavar="NAME", help="torch or onnx (default: the one of --model)"
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="of the models; default: as of PyTorch")
    parser.add_argument("--frames", type=positive_int, metavar="N", help="frames sampled from a video or shot")
    add_clip(parser)
    parser.add_argument(
        "--style", choices=["plain", "alt-text"], default="plain", metavar="NAME", help="plain (default) or alt-text"
    )
    add_device(parser)
    group = parser.add_argument_group("access")
    group.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, this machine only")
    group.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0 takes a free one")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help="bearer token that requests need (or the variable LIMNER_TOKEN)",
    )  # fmt: skip
    group.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="fetch images (image_url) from this host"
    )
    group.add_argument(
        "--allow-origin", action="append", default=[], metavar="URL", help="web page that may use it from a browser"
    )
    group = parser.add_argument_group("load")
    group.add_argument(
        "--batch-size", type=positive_int, default=16, metavar="N", help="images at a time (default: 16)"
    )
    group.add_argument("--wait-ms", type=positive_seconds, default=5.0, metavar="MS", help="for others (default: 5)")
    group.add_argument(
        "--queue", type=positive_int, default=256, metavar="N", help="more images than this get 429 (default: 256)"
    )
    group.add_argument("--max-mb", type=positive_seconds, default=32.0, metavar="MB", help="of a request (default: 32)")
    group.add_argument(
        "--max-megapixels", type=positive_seconds, default=64.0, metavar="MP", help="of an image (default: 64)"
    )
    group.add_argument(
        "--max-seconds", type=positive_seconds, default=600.0, metavar="S", help="of a video (default: 600)"
    )
    group.add_argument(
        "--timeout", type=positive_seconds, default=120.0, metavar="S", help="to caption a request (default: 120)"
    )
    group.add_argument(
        "--upload-timeout", type=positive_seconds, default=30.0, metavar="S", help="to send one (default: 30)"
    )
