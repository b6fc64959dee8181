"""Compare runs on the same images or videos.

    limner compare RUN_A RUN_B --out compare.html
    limner compare A_1 A_2 A_3 -- B_1 B_2 B_3     means over seeds

RUN is a folder with the captions.json of `limner evaluate`, or a captions file (then give --references).  The first
one is the baseline.  All are scored anew, with the same references and tokens.  The page has paired-bootstrap
intervals and p-values, histograms, and the items on which the runs differ most.  With `--` between groups of runs, the
means over the runs of each group are compared, with their spread and a bootstrap over items and seeds.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_overwrite, positive_int
from limner.apps.shared.names import names_of

GROUP = "\N{SYMBOL FOR UNIT SEPARATOR}"  # stands for `--`, which argparse would drop


def mark_groups(words: list[str]) -> list[str]:
    """The words of the command line with a mark in place of every `--`, so that it stays between the runs.

    >>> mark_groups(["compare", "a", "--", "b", "--seed", "1"])[2] == GROUP
    True
    """
    return [GROUP if word == "--" else word for word in words]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder or captions file; the first is the baseline")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, also of single items")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="write the table for a paper (booktabs)")
    add_overwrite(parser)
    parser.add_argument("--references", type=Path, metavar="FILE", help="default: the data set of the recipes")
    parser.add_argument("--caption-column", default="", metavar="NAME", help="of the references, when it is unusual")
    parser.add_argument("--media", type=Path, metavar="DIR", help="where the images or videos are now")
    tokenizers = names_of("limner.text.tokens.TOKENIZERS")
    parser.add_argument("--tokenizer", choices=tokenizers, default="ptb", help="default: %(default)s")
    parser.add_argument(
        "--bootstrap", type=positive_int, default=1000, metavar="N", help="draws (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: %(default)s)")
    parser.add_argument(
        "--items",
        type=positive_int,
        default=12,
        metavar="N",
        help="shown in each direction (default: %(default)s)",
    )
