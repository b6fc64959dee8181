"""Export a run as ONNX, to caption without PyTorch.

    limner export RUN --format onnx
    limner caption photo.jpg --model RUN.onnx

The folder holds the encoder and a decoding step as ONNX graphs, the vocabulary, and model.json.  It is written only if
its captions equal PyTorch's on at least 99 % of the images or videos of --check (without it: of generated images).
--int8 makes it a quarter as large and changes some captions; the number is printed.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, packed model or limner-small")
    parser.add_argument("--format", choices=["onnx"], default="onnx")
    parser.add_argument("--int8", action="store_true", help="weights of one byte")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: RUN.onnx)")
    parser.add_argument("--check", metavar="DIR", help="images or videos on which captions are compared")
    parser.add_argument("--limit", type=positive_int, default=500, metavar="N", help="at most N of them (default: 500)")
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the run's pretrained encoder is now")
