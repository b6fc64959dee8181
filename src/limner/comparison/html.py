"""Parts of self-contained HTML pages: the document, escaped text, letters of runs, and tables.

The content security policy of a page lets the browser load nothing and run only the page's own script, so text in a
caption cannot run code even if escaping failed.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

from limner.comparison.compare import RunScores
from limner.comparison.seeds import SeedGroup
from limner.comparison.style import CSS

MAX_LENGTH = 500  # characters of a text that are shown

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # not allowed in HTML


def html_document(title: str, body: Iterable[str], script: str = "", style: str = "") -> str:
    """A complete HTML file.  `title` and `body` are HTML already; `script` is the only JavaScript that may run.

    `style` is added to the style sheet of all pages.
    """
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"{POLICY}; script-src 'sha256-{script_hash}'" if script else POLICY
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{CSS}{style}</style>",
    ]
    end = [f"<script>{script}</script>"] if script else []
    lines = [
        "<!doctype html>",
        '<html lang="en"><head>',
        *head,
        "</head><body><main>",
        *body,
        "</main>",
        *end,
        "</body></html>",
        "",
    ]
    return "\n".join(lines)


def escape_html(text: str, max_length: int = MAX_LENGTH) -> str:
    """Text as HTML without markup; unprintable characters become U+FFFD, and long text is shortened."""
    short = text if len(text) <= max_length else f"{text[:max_length]}\u2026 ({len(text):,} characters)"
    return html.escape(_UNPRINTABLE.sub("\ufffd", short))


def letter_tag(run: RunScores | SeedGroup) -> str:
    """The letter of a run, or of a group of runs, in its colour."""
    return f'<b class="{colour_class(run)}">{run.letter}</b>'


def colour_class(run: RunScores | SeedGroup) -> str:
    """The CSS class of the colour of a run or a group: s0 to s5, and then s0 again."""
    return f"s{(ord(run.letter) - ord('A')) % 6}"


def html_table(name: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], css_class: str = "") -> str:
    """A table that scrolls sideways.

    `name` is its HTML id; each row is a label and its cells (`html_cell`); all texts are HTML already.
    """
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(f"<tr>{row_head(label)}{''.join(cells)}</tr>" for label, cells in rows)
    top = f"<thead><tr><td></td>{head}</tr></thead>" if heads else ""
    table = f'<table id="{name}" class="{css_class}">{top}<tbody>{body}</tbody></table>'
    return f'<div class="wide" tabindex="0">{table}</div>'


def row_head(label: str) -> str:
    """The first cell of a row; an empty one is no head, which a screen reader would read out.

    >>> row_head("A"), row_head("")
    ('<th scope="row">A</th>', '<td></td>')
    """
    return f'<th scope="row">{label}</th>' if label else "<td></td>"


def html_cell(text: str, *below: str, css_class: str = "") -> str:
    """A table cell; `below` are lines in smaller print under `text`."""
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<td{attribute}>{text}{''.join(f'<small>{line}</small>' for line in below)}</td>"


def explanation(text: str) -> str:
    """A paragraph of explanation, in a softer colour."""
    return f'<p class="soft">{text}</p>'
