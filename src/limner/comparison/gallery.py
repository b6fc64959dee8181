"""Cards of single items: thumbnail, captions with their scores, and references, where two runs differ most."""

from collections.abc import Sequence

import numpy as np

from limner.comparison.compare import Comparison, RunScores
from limner.comparison.formatting import NEGLIGIBLE, format_x100
from limner.comparison.html import escape_html, explanation, html_cell, letter_tag
from limner.comparison.thumbnails import LONGER_SIDE, Thumbnail, make_thumbnail
from limner.core.types import Medium
from limner.data.media import MediaError

MAX_THUMBNAIL_BYTES = 6_000_000  # of all thumbnails in a page; further items are shown without one
REFERENCES = 5  # of an item that are shown before unfolding the rest
HIDDEN_METRICS = ("BLEU-1", "BLEU-2", "BLEU-3")  # not shown for single items, which have BLEU-4


class Gallery:
    """The thumbnails of a page; each medium is read once.

    side        longer side of an image in pixels
    max_bytes   of all thumbnails together; None: `MAX_THUMBNAIL_BYTES`
    `unreadable` has the reason for each medium without a thumbnail, `omitted` counts those beyond `max_bytes`.
    """

    def __init__(self, side: int = LONGER_SIDE, max_bytes: int | None = None) -> None:
        self.side, self.max_bytes = side, MAX_THUMBNAIL_BYTES if max_bytes is None else max_bytes
        self._thumbnails: dict[str, Thumbnail | None] = {}
        self.unreadable: list[str] = []
        self.bytes = self.omitted = 0

    def thumbnail(self, medium: Medium) -> Thumbnail | None:
        """The thumbnail of a medium; None when it cannot be read, or the page holds enough bytes."""
        if medium.id not in self._thumbnails:
            self._thumbnails[medium.id] = self._load(medium)
        return self._thumbnails[medium.id]

    def _load(self, medium: Medium) -> Thumbnail | None:
        try:
            thumbnail = make_thumbnail(medium, self.side)
        except MediaError as error:
            self.unreadable.append(str(error) if medium.path else f"{medium.id}: its file is not known")
            return None
        if self.bytes + len(thumbnail.uri) > self.max_bytes:
            self.omitted += 1
            return None
        self.bytes += len(thumbnail.uri)
        return thumbnail

    def missing_thumbnails(
        self,
        if_unreadable: str = "give their folder with --media FOLDER",
        if_omitted: str = "show fewer items with --items N",
    ) -> list[str]:
        """One line for each reason why thumbnails are missing, with what to do about it."""
        lines = []
        if self.unreadable:
            lines.append(
                f"{len(self.unreadable)} of {len(self._thumbnails)} items are shown without their image, which could "
                f"not be read ({self.unreadable[0]}); {if_unreadable}"
            )
        if self.omitted:
            lines.append(f"{self.omitted} images were left out to keep the page small; {if_omitted}")
        return lines


def ranking_metric(comparison: Comparison) -> str:
    """The metric by which items are ranked: CIDEr, or else the last one."""
    return "CIDEr" if "CIDEr" in comparison.metrics else comparison.metrics[-1]


def largest_differences(comparison: Comparison, k: int, count: int) -> tuple[list[int], list[int]]:
    """Indices of the items where run k scores furthest above run 0, and furthest below; at most `count` of each."""
    metric = ranking_metric(comparison)
    gain = comparison.runs[k].segments[metric] - comparison.runs[0].segments[metric]
    order = np.argsort(-gain, kind="stable").tolist()
    return [i for i in order[:count] if gain[i] >= NEGLIGIBLE], [
        i for i in order[::-1][:count] if gain[i] <= -NEGLIGIBLE
    ]


def differences_section(comparison: Comparison, k: int, count: int, gallery: Gallery) -> str:
    """The HTML section of the items where run 0 and run k differ most, at most `count` in each direction."""
    first, other = comparison.runs[0], comparison.runs[k]
    same = sum(first.run.captions[id] == other.run.captions[id] for id in comparison.ids)
    parts = [
        f"<h2>Where {letter_tag(first)} and {letter_tag(other)} differ most</h2>",
        explanation(
            f"The items with the largest differences in {ranking_metric(comparison)}, at most {count} in each "
            f"direction. They are extremes and not a fair sample. Both runs wrote the same caption for {same} of "
            f"{len(comparison.ids)} items."
        ),
    ]
    above, below = largest_differences(comparison, k, count)
    for better, worse, chosen in ((other, first, above), (first, other, below)):
        title = f"{letter_tag(better)} {escape_html(better.run.name)} furthest above {letter_tag(worse)}"
        cards = [_card(comparison, i, (first, other), gallery) for i in chosen]
        parts.append(f"<h3>{title}</h3>")
        parts.append(f'<ul class="items">{"".join(cards)}</ul>' if cards else explanation("On no item."))
    return "\n".join(parts)


def _card(comparison: Comparison, i: int, pair: tuple[RunScores, RunScores], gallery: Gallery) -> str:
    medium, id = comparison.items[i], comparison.ids[i]
    kind, image = card_image(medium, gallery.thumbnail(medium))
    captions = "".join(
        f'<p dir="auto">{letter_tag(it)} {escape_html(it.run.captions[id]) or "<i>(empty)</i>"}</p>' for it in pair
    )
    names = [name for name in comparison.metrics if name not in HIDDEN_METRICS]
    heads = "".join(f"<th>{name}</th>" for name in names)
    rows = ""
    for it in pair:
        cells = "".join(html_cell(format_x100(it.segments[name][i])) for name in names)
        rows += f'<tr><th scope="row">{letter_tag(it)}</th>{cells}</tr>'
    scores = f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    name = escape_html(medium.id, 80) + (" (frames)" if kind == "clip" else "")
    return (
        f'<li class="{kind}"><div>{image}<h4>{name}</h4></div>'
        f"<div>{captions}{scores}{card_references(medium.references)}</div></li>"
    )


def card_image(medium: Medium, thumbnail: Thumbnail | None, alt: str = "") -> tuple[str, str]:
    """The CSS class of an item's card ("image", "clip" or "no-image"), and its thumbnail as HTML.

    alt  the alternative text; by default what it is an image of
    """
    if thumbnail is None:
        return "no-image", '<div class="none">image not available</div>'
    is_clip = thumbnail.frames > 1
    what = f"{thumbnail.frames} frames of" if is_clip else "image of"
    text = escape_html(alt, 160) if alt else f"{what} {escape_html(medium.id, 80)}"
    size = f'width="{thumbnail.width}" height="{thumbnail.height}" loading="lazy" decoding="async"'
    return (
        "clip" if is_clip else "image",
        f'<img src="{thumbnail.uri}" {size} alt="{text}">',
    )


def card_references(texts: Sequence[str]) -> str:
    """References as an HTML list; all but the first five are folded."""
    lines = [f'<li dir="auto">{escape_html(text)}</li>' for text in texts]
    rest = lines[REFERENCES:]
    more = f"<details><summary>{len(rest)} more</summary><ul>{''.join(rest)}</ul></details>" if rest else ""
    return f"<small>references</small><ul>{''.join(lines[:REFERENCES])}</ul>{more}"
