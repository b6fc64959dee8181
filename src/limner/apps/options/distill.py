"""Train a captioner on the captions of another one.

    limner distill photos/ --teacher hf:models/SmolVLM2 --out runs/mine

The teacher captions the images of training, its captions are filtered, the student is trained on them, and a page
compares both with each other and with people's captions, where there are some.  DATA is what `limner init` takes, with
captions or without, or a recipe.  Fields of the student's recipe are changed as in `limner train`: --stages.0.epochs 3.
"""

import argparse
from pathlib import Path
from typing import Any

from limner.apps.shared.arguments import add_device, positive_int, positive_seconds, probability
from limner.apps.shared.names import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="folder, caption file, recipe ...")
    parser.add_argument("--teacher", required=True, metavar="MODEL", help="as --model of limner caption")
    parser.add_argument("--student", metavar="RECIPE", help="recipe, or small: from limner-small (default)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder of the student")
    parser.add_argument("--resume", action="store_true", help="continue where an interrupted call stopped")
    parser.add_argument("--media", default="", metavar="DIR", help="folder of the images (default: it is looked for)")
    parser.add_argument("--file-column", default="", metavar="NAME", help="column of the files, when it is not found")
    parser.add_argument("--caption-column", default="", metavar="NAME", help="column of the captions")
    parser.add_argument("--split", default="test", metavar="NAME", help="compared at the end (default: test)")
    parser.add_argument(
        "--limit", type=positive_int, default=500, metavar="N", help="images that are compared (default: 500)"
    )
    add_device(parser)
    _add_teacher(parser.add_argument_group("teacher"))
    _add_filters(parser.add_argument_group("filters of its captions"))


def _add_teacher(group: Any) -> None:
    """How the teacher captions."""
    group.add_argument("--n-best", type=positive_int, metavar="N", help="the N best captions of each image")
    group.add_argument("--sample", type=positive_int, metavar="N", help="draw N captions of each image instead")
    group.add_argument("--temperature", type=float, metavar="T", help="of --sample")
    group.add_argument("--beam", type=positive_int, metavar="K", help="number of hypotheses; 1 is greedy search")
    group.add_argument(
        "--max-length", "--max-new-tokens", type=positive_int, metavar="N", help="most tokens of a caption"
    )
    group.add_argument("--batch-size", type=positive_int, default=16, metavar="N", help="images at a time (16)")
    group.add_argument("--frames", type=positive_int, metavar="N", help="frames sampled from a clip")
    group.add_argument("--prompt", metavar="TEXT", help="the request to a vision-language model or server")
    group.add_argument("--system", default="", metavar="TEXT", help="its system message")
    group.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="", metavar="NAME", help="of its numbers"
    )
    group.add_argument("--max-side", type=positive_int, metavar="N", help="pixels of pictures for it (default: 1024)")
    group.add_argument("--requests", type=positive_int, metavar="N", help="under way at a server (default: 4)")
    group.add_argument("--timeout", type=positive_seconds, metavar="S", help="seconds for a request (default: 300)")
    group.add_argument("--key-variable", metavar="NAME", help="that holds the key (default: LIMNER_API_KEY)")


def _add_filters(group: Any) -> None:
    """Which captions are good enough."""
    group.add_argument("--min-words", type=positive_int, default=2, metavar="N", help="default: %(default)s")
    group.add_argument("--max-words", type=positive_int, metavar="N", help="default: vocabulary.max_words, 30")
    group.add_argument(
        "--language", choices=["any", *names_of("limner.text.language.FUNCTION_WORDS")], metavar="CODE",
        help="en, de ... or any (default: that of people's captions, or en)",
    )  # fmt: skip
    group.add_argument(
        "--min-agreement", type=probability, default=0.0, metavar="A", help="of several captions, 0 to 1"
    )
    group.add_argument("--clip", metavar="MODEL", help="a CLIP of transformers, for CLIPScore")
    group.add_argument("--min-clip-score", type=float, metavar="S", help="0 to 2.5 (default: 0.5)")
