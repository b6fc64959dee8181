"""The page of `limner check`: counts, words of each split, and cards with thumbnails for every kind of finding."""

import os
from collections.abc import Mapping, Sequence

from limner.comparison.gallery import Gallery, card_image
from limner.comparison.html import escape_html, explanation, html_cell, html_document, html_table
from limner.core.torch_free import Medium
from limner.data.checks.findings import KINDS, Finding, by_kind, count_of
from limner.data.checks.words import SplitWords
from limner.runs.data_check import DataCheck

SIDE = 240  # pixels of the longer side of a thumbnail
MOST_OF_A_GROUP = 4  # media of a group that are shown
UNSEEN = 20  # words of a class that are shown
STYLE = """
.group { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .5rem; }
.items > li.several { grid-template-columns: minmax(0, 1fr); }
"""


def check_page(check: DataCheck, data: str, items: int) -> tuple[str, list[str]]:
    """The HTML file as text, and a line for each reason why thumbnails are missing in it.

    At most `items` findings of each kind are shown.  The page is one file, which loads nothing and runs nothing.
    """
    media = {medium.id: medium for medium in check.report.media}
    gallery = Gallery(SIDE)
    groups = by_kind(check.findings)
    sections = [_section(kind, found, media, items, gallery, check) for kind, found in groups.items()]
    name = escape_html(os.path.basename(os.path.normpath(data)))
    missing = [f"{gallery.omitted} images were left out to keep the page small; show fewer items with --items N"]
    missing = missing if gallery.omitted else []
    body = [
        f"<h1>Check of {name}</h1>",
        _summary(check, groups),
        *(explanation(escape_html(line) + ".") for line in missing),
        _words(check.words),
        *sections,
        _notes(check.notes),
    ]
    return html_document(f"Check of {name}", body, style=STYLE), missing


def _summary(check: DataCheck, groups: Mapping[str, Sequence[Finding]]) -> str:
    captions = sum(len(medium.references) for medium in check.report.media)
    about = (
        f"{len(check.report.media):,} images or clips in the data, {len(check.report.usable):,} with captions that can "
        f"be used; {captions:,} captions."
    )
    if not groups:
        return explanation(about) + "<p><b>Nothing was found.</b></p>"
    rows = [
        (f'<a href="#{kind}">{KINDS[kind].title}</a>', [html_cell(count_of(found)), html_cell(KINDS[kind].advice)])
        for kind, found in groups.items()
    ]
    return f"{explanation(about)}<h2>What was found</h2>{html_table('found', ['count', 'what to do'], rows, 'text')}"


def _words(words: Mapping[str, SplitWords]) -> str:
    """The table of words by split, and the words that no training caption has."""
    if not words:
        return ""
    heads = ["files", "captions", "words", "different", "unknown"]
    rows = [
        (
            escape_html(split or "no split"),
            [
                *(html_cell(f"{number:,}") for number in (it.media, it.captions, it.tokens, it.types)),
                html_cell(f"{it.unknown_rate:.2%}"),
            ],
        )
        for split, it in words.items()
    ]
    unseen = [
        (
            f"{escape_html(split or 'no split')}, {name}",
            [html_cell(f"{len(counts):,}"), html_cell(escape_html(_examples(counts)))],
        )
        for split, it in words.items()
        for name, counts in it.unseen.items()
    ]
    note = explanation("Unknown: the share of all words that the vocabulary of a training would lack.")
    parts = [f"<h2>Words</h2>{html_table('words', heads, rows)}{note}"]
    if unseen:
        table = html_table("unseen", ["words", "the most frequent"], unseen, "text")
        parts.append(f"<h3>Words that no training caption has</h3>{table}")
    return "".join(parts)


def _examples(counts: Mapping[str, int]) -> str:
    words = [f"{word} ({count})" if count > 1 else word for word, count in list(counts.items())[:UNSEEN]]
    return ", ".join(words) + (", ..." if len(counts) > UNSEEN else "")


def _section(
    kind: str, found: Sequence[Finding], media: Mapping[str, Medium], items: int, gallery: Gallery, check: DataCheck
) -> str:
    more = f" The first {items} are shown; --json has all." if len(found) > items else ""
    cards = "".join(_card(finding, media, gallery, check) for finding in found[:items])
    title = f"{KINDS[kind].title[0].upper()}{KINDS[kind].title[1:]}"
    about = explanation(f"{count_of(found)}: {KINDS[kind].advice}.{more}")
    return f'<h2 id="{kind}">{title}</h2>{about}<ul class="items">{cards}</ul>'


def _card(finding: Finding, media: Mapping[str, Medium], gallery: Gallery, check: DataCheck) -> str:
    """One finding: its pictures with their ids and splits, and what is wrong."""
    shown = [media[id] for id in finding.ids[:MOST_OF_A_GROUP] if id in media]
    look, pictures = "no-image", []
    for medium in shown:
        thumbnail = None if medium.id in check.report.unusable else gallery.thumbnail(medium)
        look, image = card_image(medium, thumbnail)
        split = f" ({escape_html(medium.split)})" if medium.split else ""
        pictures.append(f"<div>{image}<h3>{escape_html(medium.id, 80)}{split}</h3></div>")
    caption = f'<p dir="auto">{escape_html(finding.caption)}</p>' if finding.caption else ""
    others = len(finding.ids) - len(shown)
    more = f"<p>and {others} more</p>" if shown and others > 0 else ""
    detail = finding.detail
    for medium in shown:  # a page may be passed on: it names files, and no folders of this computer
        folder = os.path.dirname(medium.path)
        detail = detail.replace(f"{folder}{os.sep}", "") if os.path.isabs(folder) else detail
    about = f"<div>{caption}<p class=soft>{escape_html(detail)}</p>{more}</div>"
    if len(pictures) > 1:
        return f'<li class="several"><div class="group">{"".join(pictures)}</div>{about}</li>'
    return f'<li class="{look}">{"".join(pictures)}{about}</li>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f"<h2>Notes</h2><ul>{''.join(f'<li>{escape_html(line)}</li>' for line in notes)}</ul>"
