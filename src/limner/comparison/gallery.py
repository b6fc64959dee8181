"""Items as cards: picture, captions with their scores, references; here those where two sides differ most."""

from collections.abc import Sequence

import numpy as np

from limner.comparison.compare import Comparison, Measured
from limner.comparison.html import cell, mark, shown, soft
from limner.comparison.numbers import ALIKE, x100
from limner.comparison.pictures import SIDE, Thumbnail, thumbnail
from limner.core.types import Medium
from limner.data.media import MediaError

PICTURES = 6_000_000  # bytes of pictures in a page; the items after that are shown without
REFERENCES = 5  # of an item that are shown at once
BRIEF = ("BLEU-1", "BLEU-2", "BLEU-3")  # not shown for single items: BLEU-4 stands for them


class Gallery:
    """Pictures of the items that are shown, each read once; counts those that are missing.  `side`: pixels."""

    def __init__(self, side: int = SIDE, most: int | None = None) -> None:
        self.side, self.most = side, PICTURES if most is None else most
        self._read: dict[str, Thumbnail | None] = {}
        self.unreadable: list[str] = []
        self.bytes = self.over = 0

    def find(self, medium: Medium) -> Thumbnail | None:
        """None when it cannot be read, or when the page holds enough."""
        if medium.id not in self._read:
            self._read[medium.id] = self._load(medium)
        return self._read[medium.id]

    def _load(self, medium: Medium) -> Thumbnail | None:
        try:
            picture = thumbnail(medium, self.side)
        except MediaError as error:
            self.unreadable.append(str(error) if medium.path else f"{medium.id}: no picture is known")
            return None
        if self.bytes + len(picture.uri) > self.most:
            self.over += 1
            return None
        self.bytes += len(picture.uri)
        return picture

    def problems(
        self, found: str = "--media FOLDER says where they lie", fewer: str = "--items N shows fewer items"
    ) -> list[str]:
        """What is missing and what to do, a line each."""
        lines = []
        if self.unreadable:
            lines.append(
                f"{len(self.unreadable)} of {len(self._read)} items are shown without their picture, which could not "
                f"be read ({self.unreadable[0]}); {found}"
            )
        if self.over:
            lines.append(f"{self.over} pictures were left out to keep the page small; {fewer}")
        return lines


def leading(comparison: Comparison) -> str:
    """The metric by which items are ordered."""
    return "CIDEr" if "CIDEr" in comparison.metrics else comparison.metrics[-1]


def extremes(comparison: Comparison, k: int, most: int) -> tuple[list[int], list[int]]:
    """Places of the items where side k is furthest above side 0, and furthest below; the largest difference first."""
    by = leading(comparison)
    gain = comparison.sides[k].segments[by] - comparison.sides[0].segments[by]
    order = np.argsort(-gain, kind="stable").tolist()
    return [i for i in order[:most] if gain[i] >= ALIKE], [i for i in order[::-1][:most] if gain[i] <= -ALIKE]


def section(comparison: Comparison, k: int, most: int, gallery: Gallery) -> str:
    """Side 0 against side k, at most `most` items each way."""
    first, other = comparison.sides[0], comparison.sides[k]
    same = sum(first.side.captions[id] == other.side.captions[id] for id in comparison.ids)
    parts = [
        f"<h2>Where {mark(first)} and {mark(other)} differ most</h2>",
        soft(
            f"The items, at most {most} each way, with the largest differences in {leading(comparison)}: the extremes, "
            f"not a fair sample. Both wrote the same caption for {same} of {len(comparison.ids)} items."
        ),
    ]
    up, down = extremes(comparison, k, most)
    for ahead, behind, chosen in ((other, first, up), (first, other, down)):
        parts.append(f"<h3>{mark(ahead)} {shown(ahead.side.name)} furthest ahead of {mark(behind)}</h3>")
        cards = [_card(comparison, i, (first, other), gallery) for i in chosen]
        parts.append(f'<ul class="items">{"".join(cards)}</ul>' if cards else soft("On no item."))
    return "\n".join(parts)


def _card(comparison: Comparison, i: int, pair: tuple[Measured, Measured], gallery: Gallery) -> str:
    medium, id = comparison.items[i], comparison.ids[i]
    look, image = card_image(medium, gallery.find(medium))
    captions = "".join(f'<p dir="auto">{mark(m)} {shown(m.side.captions[id]) or "<i>(empty)</i>"}</p>' for m in pair)
    names = [name for name in comparison.metrics if name not in BRIEF]
    heads = "".join(f"<th>{name}</th>" for name in names)
    rows = ""
    for m in pair:
        rows += f'<tr><th scope="row">{mark(m)}</th>{"".join(cell(x100(m.segments[name][i])) for name in names)}</tr>'
    scores = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    name = shown(medium.id, 80) + (" (frames)" if look == "clip" else "")
    return (
        f'<li class="{look}"><div>{image}<h4>{name}</h4></div>'
        f"<div>{captions}{scores}{card_references(medium.references)}</div></li>"
    )


def card_image(medium: Medium, picture: Thumbnail | None, alt: str = "") -> tuple[str, str]:
    """The card's class, and its picture as HTML.  `alt`: the alternative text (default: what it is a picture of)."""
    if picture is None:
        return "plain", '<div class="none">picture not available</div>'
    clip = picture.frames > 1
    what = f"{picture.frames} frames of" if clip else "picture of"
    text = shown(alt, 160) if alt else f"{what} {shown(medium.id, 80)}"
    size = f'width="{picture.width}" height="{picture.height}" loading="lazy" decoding="async"'
    return "clip" if clip else "picture", f'<img src="{picture.uri}" {size} alt="{text}">'


def card_references(texts: Sequence[str]) -> str:
    """The first few, and the others folded."""
    lines = [f'<li dir="auto">{shown(text)}</li>' for text in texts]
    rest = lines[REFERENCES:]
    more = f"<details><summary>{len(rest)} more</summary><ul>{''.join(rest)}</ul></details>" if rest else ""
    return f"<small>references</small><ul>{''.join(lines[:REFERENCES])}</ul>{more}"
