"""The pieces of a page that needs no other file: any text shown as text, a side's mark, a table that scrolls, a head.

Its policy (the CSP line) lets a browser load nothing and run only the script it was made with, so that a caption could
not make it.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

from limner.comparison.compare import Measured
from limner.comparison.style import CSS

LONG = 500  # characters of a text that are shown

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # what a page must not or cannot hold


def document(title: str, body: Iterable[str], script: str = "") -> str:
    """A whole file; `title` is HTML already, `script` ours."""
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"{POLICY}; script-src 'sha256-{allowed}'" if script else POLICY
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{CSS}</style>",
    ]
    end = [f"<script>{script}</script>"] if script else []
    lines = ["<!doctype html>", '<html lang="en"><head>', *head, "</head><body>", *body, *end, "</body></html>", ""]
    return "\n".join(lines)


def shown(text: str, most: int = LONG) -> str:
    """Any text as HTML that shows it: nothing in it is markup, and what cannot be shown is a replacement character."""
    cut = text if len(text) <= most else f"{text[:most]}\u2026 ({len(text):,} characters)"
    return html.escape(_UNSEEN.sub("\ufffd", cut))


def mark(measured: Measured) -> str:
    """A side's letter in its colour."""
    return f'<b class="{look(measured)}">{measured.letter}</b>'


def look(measured: Measured) -> str:
    """The class of a side's colour; six colours, then from the start again."""
    return f"s{(ord(measured.letter) - ord('A')) % 6}"


def table(name: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], look: str = "") -> str:
    """`name` is its id; rows are a label and `cell`s, all HTML already."""
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>' for label, cells in rows)
    top = f"<thead><tr><th></th>{head}</tr></thead>" if heads else ""
    return f'<div class="wide" tabindex="0"><table id="{name}" class="{look}">{top}<tbody>{body}</tbody></table></div>'


def cell(text: str, *below: str, look: str = "") -> str:
    """A table cell, with smaller lines below."""
    kind = f' class="{look}"' if look else ""
    return f"<td{kind}>{text}{''.join(f'<small>{line}</small>' for line in below)}</td>"


def soft(text: str) -> str:
    """A paragraph that explains."""
    return f'<p class="soft">{text}</p>'
