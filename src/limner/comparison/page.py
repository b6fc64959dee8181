"""The page of a comparison: one self-contained HTML file without network access and scripts."""

import json
from collections.abc import Sequence
from typing import Any

from limner.comparison.compare import Comparison, metric_aliases
from limner.comparison.formatting import format_interval, format_p_value, format_signed, format_x100, is_significant
from limner.comparison.gallery import Gallery, differences_section
from limner.comparison.histogram import differences_chart, scores_chart
from limner.comparison.html import escape_html, explanation, html_cell, html_document, html_table, letter_tag
from limner.comparison.protocol import differing_fields, recorded_protocol
from limner.metrics.significance import Difference

ITEMS_PER_DIRECTION = 12


def comparison_page(
    comparison: Comparison, items: int = ITEMS_PER_DIRECTION, more: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """The HTML file as text, and one line for each reason why thumbnails are missing in it.

    For each run but the first, the page shows the items where it differs most from the first one: at most `items` where
    its score is higher and at most `items` where it is lower.  `more` are sections of HTML that follow the scores.
    """
    gallery = Gallery()
    sections = [differences_section(comparison, k, items, gallery) for k in range(1, len(comparison.runs))]
    missing = gallery.missing_thumbnails()
    names = "".join(f"<span>{letter_tag(it)} {escape_html(it.run.name)}</span> " for it in comparison.runs)
    body = [
        f"<h1>{names}</h1>",
        _summary(comparison),
        _warnings(comparison),
        _scores(comparison),
        _human(comparison),
        *more,
        _distributions(comparison),
        *sections,
        *(explanation(escape_html(line) + ".") for line in missing),
        _protocol(comparison),
    ]
    return html_document(" and ".join(escape_html(it.run.name) for it in comparison.runs), body), missing


def _summary(comparison: Comparison) -> str:
    protocol, first = comparison.protocol, comparison.runs[0]
    lines = [
        explanation(
            f"{protocol['images']} items, {protocol['references mean']:.3g} references each, tokenizer: "
            f"{escape_html(str(protocol['tokenizer']))}. Scores are x100, as papers print them: CIDEr 57.0 is 0.570."
        )
    ]
    for run, differences in zip(comparison.runs[1:], comparison.differences, strict=True):
        groups: dict[str, list[str]] = {
            "significantly higher in": [],
            "significantly lower in": [],
            "no significant difference in": [],
        }
        for name, value in differences.items():
            direction = f"significantly {'higher' if value.value > 0 else 'lower'} in"
            group = direction if is_significant(value) else "no significant difference in"
            groups[group].append(f'<span class="unit">{name} ({format_signed(value.value)})</span>')
        text = "; ".join(f"{group} {', '.join(metrics)}" for group, metrics in groups.items() if metrics)
        lines.append(f"<p>{letter_tag(run)} compared with {letter_tag(first)}: {text}.</p>")
    return "\n".join(lines)


def _warnings(comparison: Comparison) -> str:
    if not comparison.warnings:
        return ""
    lines = "".join(f"<li>{escape_html(line)}</li>" for line in comparison.warnings)
    return f'<div class="warn" role="note"><b>Before you trust the numbers</b><ul>{lines}</ul></div>'


def _scores(comparison: Comparison) -> str:
    first, *others = comparison.runs
    heads = [letter_tag(first)]
    for other in others:
        heads += [letter_tag(other), f"{letter_tag(other)}\u2009\u2212\u2009{letter_tag(first)}"]
    rows = []
    for name in comparison.metrics:
        cells = [html_cell(format_x100(first.scores[name].value), format_interval(first.scores[name]))]
        for other, differences in zip(others, comparison.differences, strict=True):
            cells.append(html_cell(format_x100(other.scores[name].value), format_interval(other.scores[name])))
            cells.append(_difference_cell(differences[name]))
        rows.append((_metric_label(name), cells))
    counts = {
        "different captions": [str(it.distinct) for it in comparison.runs],
        "words in use": [str(it.vocabulary) for it in comparison.runs],
        "words per caption": [f"{it.length:.1f}" for it in comparison.runs],
    }
    for label, values in counts.items():
        rows.append((label, [html_cell(values[0]), *(html_cell(value) + html_cell("") for value in values[1:])]))
    draws, seed = comparison.protocol["bootstrap draws"], comparison.protocol["bootstrap seed"]
    note = (
        f"In brackets: 95&nbsp;% intervals of a paired bootstrap ({draws} samples of the items, seed {seed}). In each "
        "sample BLEU is computed from the summed counts, and CIDEr keeps the document frequencies of the full set. p "
        "is the probability that chance alone gives at least this difference; it is two-sided and not corrected for "
        "the number of metrics and runs. Bold numbers, called significant above, have an interval that does not "
        "contain 0. All this is about the choice of items, and not about training again with another seed."
    )
    return f"<h2>Scores</h2>{html_table('scores', heads, rows)}{explanation(note)}"


def _difference_cell(value: Difference) -> str:
    p = f"p\u2009{escape_html(format_p_value(value))}"
    css_class = "sure" if is_significant(value) else ""
    return html_cell(format_signed(value.value), format_interval(value), p, css_class=css_class)


def _metric_label(name: str) -> str:
    others = metric_aliases(name)
    return name.replace("-", "\u2011") + (f" <small>({', '.join(others)})</small>" if others else "")


def _human(comparison: Comparison) -> str:
    human = comparison.human
    title = "<h2>One human against the others</h2>"
    if human.missing:
        return title + explanation(f"Not shown: {escape_html(human.missing)}.")
    heads = ["one human", *(letter_tag(it) for it in comparison.runs)]
    rows = [
        (_metric_label(name), [html_cell(format_x100(scores[name])) for scores in (human.scores, *human.runs)])
        for name in comparison.metrics
    ]
    note = (
        "The first reference of each item is scored like a caption, against the remaining "
        f"{human.references:.3g} references. The runs are scored against the same ones here, so their numbers differ "
        "from those above. A model may have higher scores than a human without captioning better, because these "
        "metrics reward the most common wording."
    )
    return f"{title}{html_table('human', heads, rows)}{explanation(note)}"


def _distributions(comparison: Comparison) -> str:
    runs = comparison.runs
    letters = [it.letter for it in runs]
    figures = []
    for name in comparison.metrics:
        charts = [scores_chart(name, letters, [it.segments[name] for it in runs])]
        for k, other in enumerate(runs[1:], 1):
            values = other.segments[name] - runs[0].segments[name]
            charts.append(differences_chart(name, (letters[0], 0), (other.letter, k), values))
        figures.append(f"<figure>{''.join(charts)}</figure>")
    legend = ", ".join(f"{letter_tag(it)} {escape_html(it.run.name)}" for it in runs)
    note = (
        f"Above: the number of items by score ({legend}; dashed: the mean). Below: the difference on the same item, to "
        "the right where the later run scores higher. All x100; scores and differences below 0.05 are counted but not "
        "drawn. BLEU of a single caption is 0.0 where no n-gram of one of its sizes matches, and the mean of such "
        "BLEUs is not the corpus BLEU."
    )
    return f'<h2>Item by item</h2>{explanation(note)}<div class="charts">{"".join(figures)}</div>'


def _protocol(comparison: Comparison) -> str:
    runs = comparison.runs
    heads = [f"{letter_tag(it)} {escape_html(it.run.name)}" for it in runs]
    measured = [(escape_html(name), [_value_cell(value)]) for name, value in comparison.protocol.items()]
    recorded = [{"path": str(it.run.path), **recorded_protocol(it.run)} for it in runs]
    names = dict.fromkeys(name for tree in recorded for name in tree)
    recorded_rows = [(escape_html(name), [_value_cell(tree.get(name)) for tree in recorded]) for name in names]
    settings = [{"decoding": it.run.evaluation.get("decoding"), "recipe": it.run.recipe} for it in runs]
    differing = [
        (escape_html(name), [_value_cell(value) for value in values])
        for name, values in differing_fields(settings).items()
    ]
    return "\n".join(
        [
            "<h2>How it was measured</h2>",
            "<p>All runs were scored again for this page, together and in the same way:</p>",
            html_table("protocol", [], measured, "text"),
            "<h3>What the files of the runs say</h3>",
            html_table("before", heads, recorded_rows, "text"),
            "<h3>Differences in decoding and recipe</h3>",
            html_table("differing", heads, differing, "text") if differing else explanation("None, or none recorded."),
        ]
    )


def _value_cell(value: Any) -> str:
    text = "\u2013" if value is None else value if isinstance(value, str) else json.dumps(value)
    return html_cell(escape_html(text, 200))
