"""Pack a run into a model that can be passed on.

    limner pack RUN --out model.limner

The folder holds weights (safetensors), JSON, a model card and a hash of every file.  Commands take it in place of a
run.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder; with --verify or --push a packed model")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write, for example model.limner")
    parser.add_argument("--card", type=Path, metavar="FILE", help="model card (Markdown) to put in")
    parser.add_argument("--half", action="store_true", help="weights as float16: half the size")
    parser.add_argument("--verify", action="store_true", help="only check every file of a packed model")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the packed model to the hub")
    parser.add_argument("--private", action="store_true", help="with --push: a new repository is private")
    parser.add_argument("--encoder", default="", metavar="PATH", help="where the run's pretrained encoder is now")
