"""Caption a split of a run's data and score the captions.

    limner evaluate RUN --split test

Prints a table and writes scores.json and captions.json (COCO results) into the run folder.  --report writes an HTML
page with images, captions, references and scores.  Data or features that have moved: --data.media DIR,
--data.annotations FILE, --features STORE; of a recipe with several data sets --data.0.media DIR.  Such a run is scored
on all of them together and on each; --data-set LABEL takes one.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import (
    add_clip,
    add_decoding,
    add_device,
    add_ensemble,
    add_metrics,
    add_overwrite,
    positive_int,
)
from limner.apps.shared.names import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, packed model or limner-small")
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--data-set", default="", metavar="LABEL", help="only this one of the recipe's data sets")
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="only the first N images or videos (of each data set)"
    )
    parser.add_argument("--out", metavar="DIR", help="for scores.json and captions.json (default: RUN)")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page to look at")
    parser.add_argument(
        "--tokenizer",
        choices=names_of("limner.text.tokens.TOKENIZERS"),
        help="of the scores (default: ptb; for a vocabulary of characters its own)",
    )
    add_overwrite(parser)
    add_metrics(parser)
    add_clip(parser)
    add_device(parser)
    add_decoding(parser)
    add_ensemble(parser)
