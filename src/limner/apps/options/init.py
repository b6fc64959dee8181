"""Look at your data, and write a recipe that trains a captioner on them.

    limner init photos.csv --out recipe.yaml

The data: a caption file of any kind (CSV, JSONL, JSON, token files ...), a folder of images with captions, tars,
Parquet files.  What is found is printed, with all problems counted.  The recipe begins with the model inside limner and
runs as it is: limner train recipe.yaml.  Data without the splits train, val and test get them, as lists in a folder
beside the recipe.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_overwrite, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="PATH", help="caption file, or folder with captions")
    parser.add_argument(
        "--out", type=Path, default=Path("recipe.yaml"), metavar="FILE.yaml", help="default: %(default)s"
    )
    parser.add_argument("--media", default="", metavar="DIR", help="folder of the images (default: it is looked for)")
    parser.add_argument("--file-column", default="", metavar="NAME", help="column of the files, when it is not found")
    parser.add_argument("--caption-column", default="", metavar="NAME", help="column of the captions")
    parser.add_argument("--check", type=positive_int, default=10_000, metavar="N", help="open at most N files (10000)")
    add_overwrite(parser)
