"""Images of an HTML or Markdown page, their alternative text, and where in the page it is or would be.

A page is changed at these places only, so everything else keeps its characters, also in HTML that is not well-formed.
"""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal

ATTRIBUTE = re.compile(r"""([^\s"'>/=]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s>"']+|(?=>)))?""")
LABELS = ("aria-label", "aria-labelledby")  # words of a human for screen readers, in another place
NEWLINE = re.compile(r"\r\n?|\n")
INLINE_IMAGE = re.compile(  # ![](path "title"), ![](<path with blanks>); one pair of brackets inside a path
    r"""(?<!\\)!\[(\s*)\]\(\s*(?:<([^<>\n]*)>|((?:[^\s()<>]|\([^\s()]*\))+))(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)"""
)
REFERENCE_IMAGE = re.compile(r"(?<!\\)!\[(\s*)\]\[([^\[\]]+)\]")
DEFINITION = re.compile(r"^ {0,3}\[([^\[\]]+)\]:[ \t]*(?:<([^<>\n]*)>|(\S+))", re.MULTILINE)
CODE_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)((?:(?!\r?\n[ \t]*\r?\n)[\s\S])+?)(?<!`)\1(?!`)")
COMMENT = re.compile(r"<!--[\s\S]*?-->")
SPECIAL = re.compile(r"([\\`*_\[\]<&|])")  # characters that mean something inside ![...]

State = Literal["missing", "empty", "decorative", "described"]


@dataclass(frozen=True)
class PageImage:
    """An image of a page.

    source  its address, as the page writes it, entities resolved
    state   missing: no alternative text (of Markdown, an empty one: it has no other way); empty: alt="", which in HTML
            means decoration; decorative: marked so in another way; described: it has words
    begin   where its alternative text begins, or would begin
    end     where it ends
    before  what is written before a new text, and `after` behind it
    """

    source: str
    state: State
    begin: int
    end: int
    before: str = ""
    after: str = ""


def html_images(text: str, base: str = "") -> tuple[list[PageImage], str]:
    """The images of an HTML page -> (images, the address of its <base>, or `base`).

    Images in comments and scripts are left out.

    >>> [image.state for image in html_images('<p><IMG SRC=a.jpg><img src="b.jpg" alt="">')[0]]
    ['missing', 'empty']
    """
    parser = _ImageParser(text)
    parser.feed(text)
    return parser.images, parser.base or base


def markdown_images(text: str) -> list[PageImage]:
    """The images of a Markdown page that have no text, and those in its HTML; those in code and comments are left out.

    >>> [(image.source, image.state) for image in markdown_images("![](a.jpg) `![](b.jpg)` ![a dog](c.jpg)")]
    [('a.jpg', 'missing')]
    """
    seen = _without_code(text)
    definitions: dict[str, str] = {}
    for match in DEFINITION.finditer(seen):
        definitions.setdefault(_label(match[1]), match[2] or match[3])
    found = [(match[2] or match[3] or "", match.span(1)) for match in INLINE_IMAGE.finditer(seen)]
    found += [
        (definitions[_label(match[2])], match.span(1))
        for match in REFERENCE_IMAGE.finditer(seen)
        if _label(match[2]) in definitions
    ]
    images = [PageImage(html.unescape(address), "missing", *span) for address, span in found]
    return sorted([*images, *html_images(seen)[0]], key=lambda image: image.begin)


def filled(text: str, words: Iterable[tuple[PageImage, str]], plain_ascii: bool = False) -> str:
    """The page with alternative texts.

    `plain_ascii` writes other characters of HTML as entities, for pages whose encoding is not known.

    >>> page = '<img src="a.jpg">'
    >>> filled(page, [(html_images(page)[0][0], 'a "dog"')])
    '<img alt="a &quot;dog&quot;" src="a.jpg">'
    """
    parts, place = [], 0
    for image, new in sorted(words, key=lambda pair: pair[0].begin):
        written = html.escape(new) if image.after else SPECIAL.sub(r"\\\1", new)
        if plain_ascii:
            written = written.encode("ascii", "xmlcharrefreplace").decode()
        parts += [text[place : image.begin], image.before, written, image.after]
        place = image.end
    return "".join(parts) + text[place:]


class _ImageParser(HTMLParser):
    """Collects the images of a page with their places."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.images: list[PageImage] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "base":
            self.base = self.base or dict(attrs).get("href") or ""
        if tag == "img":
            line, column = self.getpos()
            self.images.append(_image_of_tag(self.get_starttag_text() or "", self.lines[line - 1] + column))


def _image_of_tag(tag: str, start: int) -> PageImage:
    """The image of `<img ...>` that begins at `start` of the page."""
    found: dict[str, re.Match[str]] = {}
    for match in ATTRIBUTE.finditer(tag, len("<img")):
        found.setdefault(match[1].lower(), match)
    values = {name: html.unescape((match[2] or "").strip("\"'")).strip() for name, match in found.items()}
    source, alt = values.get("src", ""), found.get("alt")
    if alt is not None:
        begin, end = start + alt.start(), start + alt.end()
    else:
        begin = end = start + len("<img")
    before = 'alt="' if alt is not None else ' alt="'
    state: State = "missing" if alt is None else "empty"
    if values.get("alt") or any(values.get(name) for name in LABELS):
        state = "described"
    elif _is_decorative(values):
        state = "decorative"
    return PageImage(source, state, begin, end, before, '"')


def _is_decorative(values: dict[str, str]) -> bool:
    """Whether a page says that readers may do without the image, or it is a point that counts visitors."""
    point = all(values.get(side) in ("0", "1") for side in ("width", "height"))
    hidden = values.get("aria-hidden", "").lower() == "true" or "hidden" in values
    return values.get("role", "").lower() in ("presentation", "none") or hidden or point


def _label(text: str) -> str:
    """A label of a reference, as CommonMark compares them."""
    return " ".join(text.split()).casefold()


def _without_code(text: str) -> str:
    """The text with blanks in place of code and comments."""
    from markdown_it import MarkdownIt

    lines = [0, *(match.end() for match in NEWLINE.finditer(text)), len(text)]
    chars = list(text)
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block") and token.map:
            begin, end = lines[token.map[0]], lines[min(token.map[1], len(lines) - 1)]
            chars[begin:end] = _blank(text[begin:end])
    seen = "".join(chars)
    for pattern in (COMMENT, CODE_SPAN):
        seen = pattern.sub(lambda match: _blank(match[0]), seen)
    return seen


def _blank(text: str) -> str:
    return re.sub(r"[^\r\n]", " ", text)
