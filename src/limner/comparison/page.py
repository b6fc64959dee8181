"""The page: one HTML file that needs no other, no network and no script; what the runs wrote is shown as text."""

import json
from typing import Any

from limner.comparison.compare import Comparison, aliases
from limner.comparison.gallery import Gallery, section
from limner.comparison.histogram import differences_chart, scores_chart
from limner.comparison.html import cell, document, mark, shown, soft, table
from limner.comparison.numbers import interval, p_value, signed, sure, x100
from limner.comparison.protocol import disagreements, stored
from limner.metrics.significance import Difference

ITEMS = 12  # in each direction


def page(comparison: Comparison, items: int = ITEMS) -> tuple[str, list[str]]:
    """The whole file as text, and a line for each kind of picture that is missing.

    At most `items` items per direction and run are shown, where they differ most.
    """
    gallery = Gallery()
    sections = [section(comparison, k, items, gallery) for k in range(1, len(comparison.sides))]
    problems = gallery.problems()
    body = [
        "<h1>" + "".join(f"<span>{mark(m)} {shown(m.side.name)}</span> " for m in comparison.sides) + "</h1>",
        _summary(comparison),
        _warnings(comparison),
        _scores(comparison),
        _human(comparison),
        _distributions(comparison),
        *sections,
        *(soft(shown(line) + ".") for line in problems),
        _protocol(comparison),
    ]
    return document(" and ".join(shown(m.side.name) for m in comparison.sides), body), problems


def _summary(comparison: Comparison) -> str:
    protocol, first = comparison.protocol, comparison.sides[0]
    lines = [
        soft(
            f"{protocol['images']} items, {protocol['references mean']:.3g} references each, tokens: "
            f"{shown(str(protocol['tokenizer']))}. Scores are x100, as papers print them: CIDEr 57.0 is 0.570."
        )
    ]
    for measured, differences in zip(comparison.sides[1:], comparison.differences, strict=True):
        groups: dict[str, list[str]] = {"clearly higher in": [], "clearly lower in": [], "not told apart in": []}
        for name, found in differences.items():
            words = "not told apart in" if not sure(found) else f"clearly {'higher' if found.value > 0 else 'lower'} in"
            groups[words].append(f'<span class="unit">{name} ({signed(found.value)})</span>')
        said = "; ".join(f"{words} {', '.join(found)}" for words, found in groups.items() if found)
        lines.append(f"<p>{mark(measured)} against {mark(first)}: {said}.</p>")
    return "\n".join(lines)


def _warnings(comparison: Comparison) -> str:
    if not comparison.warnings:
        return ""
    lines = "".join(f"<li>{shown(line)}</li>" for line in comparison.warnings)
    return f'<div class="warn" role="note"><b>Before you believe the numbers</b><ul>{lines}</ul></div>'


def _scores(comparison: Comparison) -> str:
    first, *others = comparison.sides
    heads = [mark(first)]
    for other in others:
        heads += [mark(other), f"{mark(other)}\u2009\u2212\u2009{mark(first)}"]
    rows = []
    for name in comparison.metrics:
        cells = [cell(x100(first.scores[name].value), interval(first.scores[name]))]
        for other, differences in zip(others, comparison.differences, strict=True):
            cells.append(cell(x100(other.scores[name].value), interval(other.scores[name])))
            cells.append(_difference(differences[name]))
        rows.append((_called(name), cells))
    words = {
        "different captions": [str(m.distinct) for m in comparison.sides],
        "words in use": [str(m.vocabulary) for m in comparison.sides],
        "words per caption": [f"{m.length:.1f}" for m in comparison.sides],
    }
    for label, values in words.items():
        rows.append((label, [cell(values[0]), *(cell(value) + cell("") for value in values[1:])]))
    draws, seed = comparison.protocol["bootstrap draws"], comparison.protocol["bootstrap seed"]
    note = (
        f"In brackets: 95&nbsp;% intervals of a paired bootstrap ({draws} draws of the items, seed {seed}). BLEU is "
        "pooled anew in each draw; CIDEr keeps the document frequencies of the full set. p: how often chance alone "
        "would put the runs as far apart, two-sided, not corrected for the number of metrics and runs. Bold, and "
        "called clear above: the interval leaves 0 out. All this is about the choice of items, not about training "
        "again with another seed."
    )
    return f"<h2>Scores</h2>{table('scores', heads, rows)}{soft(note)}"


def _difference(found: Difference) -> str:
    p = f"p\u2009{shown(p_value(found))}"
    return cell(signed(found.value), interval(found), p, look="sure" if sure(found) else "")


def _called(name: str) -> str:
    others = aliases(name)
    return name.replace("-", "\u2011") + (f" <small>({', '.join(others)})</small>" if others else "")


def _human(comparison: Comparison) -> str:
    human = comparison.human
    title = "<h2>One human against the others</h2>"
    if human.missing:
        return title + soft(f"Not shown: {shown(human.missing)}.")
    heads = ["one human", *(mark(m) for m in comparison.sides)]
    rows = [
        (_called(name), [cell(x100(scores[name])) for scores in (human.human, *human.sides)])
        for name in comparison.metrics
    ]
    note = (
        "Each item's first reference is scored as if it were a caption, against the "
        f"{human.references:.3g} references that are left. Here the runs are scored against the same ones, which is "
        "why their numbers are not those above. A model may pass a human in these scores without captioning better: "
        "they reward the most common wording."
    )
    return f"{title}{table('human', heads, rows)}{soft(note)}"


def _distributions(comparison: Comparison) -> str:
    sides = comparison.sides
    letters = [m.letter for m in sides]
    figures = []
    for name in comparison.metrics:
        charts = [scores_chart(name, letters, [m.segments[name] for m in sides])]
        for k, other in enumerate(sides[1:], 1):
            values = other.segments[name] - sides[0].segments[name]
            charts.append(differences_chart(name, (letters[0], 0), (other.letter, k), values))
        figures.append(f"<figure>{''.join(charts)}</figure>")
    legend = ", ".join(f"{mark(m)} {shown(m.side.name)}" for m in sides)
    note = (
        f"Above: how many items have which score ({legend}; dashed: the mean). Below: the difference on the same item, "
        "to the right where the later run is higher. All x100; scores and differences below 0.05 are counted but not "
        "drawn. BLEU of a single caption is 0.0 where one of its n-gram sizes has no match, and the mean of such BLEUs "
        "is not the corpus BLEU."
    )
    return f'<h2>Item by item</h2>{soft(note)}<div class="charts">{"".join(figures)}</div>'


def _protocol(comparison: Comparison) -> str:
    sides = comparison.sides
    heads = [f"{mark(m)} {shown(m.side.name)}" for m in sides]
    here = [(shown(name), [_plain(value)]) for name, value in comparison.protocol.items()]
    before = [{"path": str(m.side.path), **stored(m.side)} for m in sides]
    names = dict.fromkeys(name for tree in before for name in tree)
    said = [(shown(name), [_plain(tree.get(name)) for tree in before]) for name in names]
    differing = disagreements([{"decoding": m.side.about.get("decoding"), "recipe": m.side.recipe} for m in sides])
    apart = [(shown(name), [_plain(value) for value in values]) for name, values in differing.items()]
    return "\n".join(
        [
            "<h2>How it was measured</h2>",
            "<p>Everything on this page was scored anew, in one go, for all runs:</p>",
            table("protocol", [], here, "text"),
            "<h3>What the runs' own files say</h3>",
            table("before", heads, said, "text"),
            "<h3>Decoding and recipe, where they differ</h3>",
            table("differing", heads, apart, "text") if apart else soft("Nothing, or the runs do not say."),
        ]
    )


def _plain(value: Any) -> str:
    text = "\u2013" if value is None else value if isinstance(value, str) else json.dumps(value)
    return cell(shown(text, 200))
