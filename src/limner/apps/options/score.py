"""Score captions of any tool.

    limner score --candidates preds.json --references refs.json

    limner score ... --why 42          match by match, for one caption

Both files may have any usual layout, which is recognised by their content: COCO results, COCO annotations, Karpathy,
VizWiz, TextCaps, VATEX, MSR-VTT, MSVD, ActivityNet, Flickr's token files, CSV, JSONL, {id: captions}, also in a .gz or
ZIP file; a folder of media with text files or metadata.csv; a micro-world.
--check-only says what COCO's server would refuse.
Scores are printed x100; --out writes them as fractions, with a row per image.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_metrics, add_overwrite, positive_int
from limner.apps.shared.names import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--candidates", required=True, metavar="FILE", help="the captions to score, one per id")
    parser.add_argument("--references", metavar="FILE", help="the reference captions")
    parser.add_argument(
        "--check-only",
        action="store_true",
        help="only check a results file or ZIP, strictly, as COCO's server reads it",
    )
    parser.add_argument("--split", default="", help="only this split of the references (train, val, test)")
    parser.add_argument(
        "--caption-column", default="", metavar="NAME", help="of the references; for VATEX's Chinese captions: chCap"
    )
    tokenizers = names_of("limner.text.tokens.TOKENIZERS")
    parser.add_argument("--tokenizer", default="ptb", choices=tokenizers, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write scores, protocol and a row per image")
    add_overwrite(parser)
    parser.add_argument("--allow-missing", action="store_true", help="leave out references without a candidate")
    parser.add_argument("--allow-extra", action="store_true", help="leave out candidates without references")
    parser.add_argument("--training", metavar="FILE", help="training captions: adds the share of novel captions")
    parser.add_argument("--diversity", action="store_true", help="several candidates per id: diversity, mean, best")
    parser.add_argument("--why", metavar="ID", help="show how the scores of this caption come about, match by match")
    parser.add_argument("--json", action="store_true", help="of --why: print JSON")
    add_metrics(parser)
    group = parser.add_argument_group("CLIPScore and RefCLIPScore")
    group.add_argument("--clip", metavar="CLIP", help="folder or hub id; published: openai/clip-vit-base-patch32")
    group.add_argument("--images", type=Path, metavar="DIR", help="images or videos, named like the ids")
    group.add_argument("--frames", type=positive_int, default=8, metavar="N", help="of a video (default: %(default)s)")
    group.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
