"""The page of a distillation: what became of the teacher's captions, and teacher, student and people side by side.

Where people's captions are known it is the page of a comparison with further sections; elsewhere the student's captions
are scored against those of the teacher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from limner.comparison.compare import Comparison, unique_metrics
from limner.comparison.formatting import format_x100
from limner.comparison.gallery import Gallery, card_image
from limner.comparison.html import escape_html, explanation, html_cell, html_document, html_table
from limner.comparison.page import comparison_page
from limner.core.types import Medium
from limner.metrics.references import References
from limner.metrics.report import compute_scores

EXAMPLES = 3  # rejected captions of each reason that are shown
ITEMS = 12  # cards of the items on which teacher and student agree most, and least
TEACHER, STUDENT = '<b class="s0">teacher</b>', '<b class="s1">student</b>'


@dataclass(frozen=True)
class TeachingFacts:
    """What became of the teacher's captions.

    counts    words -> number, as they are shown
    rejected  reason -> (number of captions, meaning, examples: id, caption, what was measured)
    """

    teacher: str
    student: str
    counts: Mapping[str, int]
    rejected: Mapping[str, tuple[int, str, Sequence[tuple[str, str, str]]]]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "teacher": self.teacher,
            "student": self.student,
            "counts": dict(self.counts),
            "rejected": {reason: count for reason, (count, _, _) in self.rejected.items()},
        }


@dataclass(frozen=True)
class TeacherAgreement:
    """The student's captions scored against those of the teacher, as fractions; `segments` by item, of CIDEr."""

    ids: tuple[str, ...]
    scores: dict[str, float]
    segments: Float[np.ndarray, " I"]
    equal: int  # items for which both wrote the same caption

    def to_json(self) -> dict[str, Any]:
        """The scores as JSON values."""
        return {"items": len(self.ids), "the same caption": self.equal, "scores": self.scores, "scale": "fractions"}


def teacher_agreement(
    teacher: Mapping[str, str], student: Mapping[str, str], tokenizer: str = "ptb"
) -> TeacherAgreement | None:
    """Score the student's captions with those of the teacher as references; None for less than two common items."""
    ids = tuple(id for id in student if teacher.get(id))
    if len(ids) < 2:
        return None
    references = References({id: (teacher[id],) for id in ids}, tokenizer)
    scores, _ = compute_scores(references.candidates({id: student[id] for id in ids}), references)
    names = unique_metrics(scores)
    ranked = scores["CIDEr" if "CIDEr" in scores else names[-1]].segments
    equal = sum(teacher[id] == student[id] for id in ids)
    return TeacherAgreement(ids, {name: scores[name].corpus for name in names}, ranked, equal)


def teaching_page(
    facts: TeachingFacts,
    comparison: Comparison | None,
    agreement: TeacherAgreement | None,
    media: Mapping[str, Medium],
    teacher: Mapping[str, str],
    student: Mapping[str, str],
) -> tuple[str, list[str]]:
    """The HTML file as text, and one line for each reason why thumbnails are missing in it.

    comparison  teacher and student against people's captions; None where there are none
    teacher, student  the caption of each medium that was compared
    """
    sections = [_captions_section(facts)]
    if agreement is not None:
        sections.append(_agreement_section(agreement, comparison is not None))
    if comparison is not None:
        return comparison_page(comparison, more=sections)
    gallery = Gallery()
    cards = _cards(agreement, media, teacher, student, gallery) if agreement is not None else ""
    missing = gallery.missing_thumbnails("are they where they were?", "")
    names = f"<span>{TEACHER} {escape_html(facts.teacher)}</span> <span>{STUDENT} {escape_html(facts.student)}</span>"
    note = "People's captions of these images are not known, so that nothing here says how good the captions are."
    body = [f"<h1>{names}</h1>", explanation(note), *sections, cards, *(explanation(escape_html(it)) for it in missing)]
    return html_document(f"{escape_html(facts.student)} and its teacher", body), missing


def _captions_section(facts: TeachingFacts) -> str:
    counts = [(escape_html(name), [html_cell(f"{count:,}")]) for name, count in facts.counts.items()]
    parts = ["<h2>The teacher's captions</h2>", html_table("taught", ["number"], counts)]
    if facts.rejected:
        rows = []
        for reason, (count, meaning, examples) in facts.rejected.items():
            shown = "<br>".join(
                f'<span dir="auto">{escape_html(text, 120) or "<i>(empty)</i>"}</span> <small>{escape_html(id, 60)}'
                f"{f', {escape_html(detail, 60)}' if detail else ''}</small>"
                for id, text, detail in examples
            )
            rows.append(
                (
                    escape_html(reason),
                    [html_cell(f"{count:,}"), html_cell(escape_html(meaning) + "."), html_cell(shown)],
                )
            )
        heads = ["rejected", "because the caption", "for example"]
        parts.append(html_table("rejected", heads, rows, "text"))
    return "\n".join(parts)


def _agreement_section(agreement: TeacherAgreement, has_people: bool) -> str:
    rows = [(escape_html(name), [html_cell(format_x100(value))]) for name, value in agreement.scores.items()]
    note = (
        f"The student's captions of {len(agreement.ids)} items, with the caption of the teacher as the one reference, "
        f"x100. Both wrote the same caption for {agreement.equal} of them. This says how well the student imitates the "
        f"teacher{', and not' if has_people else '. It does not say'} how good either is."
    )
    return f"<h2>The student against its teacher</h2>{html_table('agreement', ['student'], rows)}{explanation(note)}"


def _cards(
    agreement: TeacherAgreement,
    media: Mapping[str, Medium],
    teacher: Mapping[str, str],
    student: Mapping[str, str],
    gallery: Gallery,
) -> str:
    """The items on which teacher and student agree least, and most."""
    order = np.argsort(agreement.segments, kind="stable").tolist()
    low = order[: min(ITEMS, (len(order) + 1) // 2)]
    high = order[::-1][: min(ITEMS, len(order) // 2)]
    parts = []
    for title, places in (("least", low), ("most", high)):
        cards = []
        for place in places:
            id = agreement.ids[place]
            kind, image = card_image(media[id], gallery.thumbnail(media[id]))
            texts = "".join(
                f'<p dir="auto">{tag} {escape_html(of[id]) or "<i>(empty)</i>"}</p>'
                for tag, of in ((TEACHER, teacher), (STUDENT, student))
            )
            value = format_x100(float(agreement.segments[place]))
            cards.append(
                f'<li class="{kind}"><div>{image}<h4>{escape_html(id, 80)}</h4></div>'
                f"<div>{texts}<small>CIDEr {value}</small></div></li>"
            )
        parts.append(f'<h2>Where they agree {title}</h2><ul class="items">{"".join(cards)}</ul>')
    return "\n".join(parts)
