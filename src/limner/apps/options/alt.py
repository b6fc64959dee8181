"""Write alternative text into HTML and Markdown pages.

    limner alt page.html                shows what would change
    limner alt docs/ --write            changes the pages of a folder

Only images without alternative text get one: words of people, and images that a page marks as decorative
(alt="", role=presentation, aria-hidden), stay. Pictures on other hosts are listed, and never fetched.
"""

import argparse
from pathlib import Path

from limner.apps.shared.arguments import add_beam, add_device, add_prompting, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE", help=".html, .htm, .xhtml, .md, or a folder")
    parser.add_argument("--write", action="store_true", help="change the pages (default: show the difference)")
    parser.add_argument("--empty", action="store_true", help='fill alt="", too, which means decorative in HTML')
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="where addresses like /img/dog.jpg begin (default: the folder given)"
    )
    parser.add_argument("--max-chars", type=positive_int, metavar="N", help="of a text (default: 125)")
    parser.add_argument("--model", metavar="RUN", help="as of limner caption (default: limner-small)")
    parser.add_argument("--batch-size", type=positive_int, default=16, metavar="N", help="(default: 16)")
    add_device(parser)
    add_prompting(parser)
    add_beam(parser)
    parser.set_defaults(engine=None, threads=None, frames=None, clip=None, others=[], weights=None)
    parser.set_defaults(average="probabilities")
