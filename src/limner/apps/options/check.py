"""Check a data set before you train on it, and write a cleaned caption file.

    limner check photos.csv --html check.html
    limner check recipe.yaml --fix cleaned.jsonl

DATA is what `limner init` takes (a caption file of any kind, a folder of images with captions, tars, Parquet files),
or a recipe.  Looked for are: files that are missing, damaged or there twice, pictures that look the same, copies in
two splits, captions that are missing, short, long, repeated, in another language, wrongly decoded or of a template,
unknown words, ids that occur twice, and features that do not fit.  The exit status is 0 when nothing is found, 3
otherwise.  Your files are only read.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_overwrite, positive_int
from limner.apps.shared.names import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="caption file, folder with captions, or recipe")
    parser.add_argument("--media", default="", metavar="DIR", help="folder of the images (default: it is looked for)")
    parser.add_argument("--file-column", default="", metavar="NAME", help="column of the files, when it is not found")
    parser.add_argument("--caption-column", default="", metavar="NAME", help="column of the captions")
    parser.add_argument("--store", default="", metavar="DIR", help="feature store to check (default: the recipe's)")
    parser.add_argument("--check", type=positive_int, default=10_000, metavar="N", help="open at most N files (10000)")
    parser.add_argument("--min-words", type=positive_int, default=3, metavar="N", help="of a caption (default: 3)")
    parser.add_argument("--max-words", type=positive_int, metavar="N", help="of a caption (default: 30, as training)")
    languages = names_of("limner.text.language.FUNCTION_WORDS")
    parser.add_argument(
        "--language", choices=languages, default="", metavar="NAME",
        help="of the captions: en, de, ... (default: that of most)",
    )  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write all findings")
    output.add_argument("--html", type=Path, metavar="FILE", help="write a page with thumbnails")
    output.add_argument("--items", type=positive_int, default=12, metavar="N", help="of a kind on the page (12)")
    output.add_argument("--fix", type=Path, metavar="OUT", help="write a cleaned .jsonl, .csv or .json (Karpathy's)")
    add_overwrite(output)
