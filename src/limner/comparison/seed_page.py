"""The page and the LaTeX table of a comparison of systems that were trained with several seeds."""

from math import isnan

from limner.comparison.formatting import format_interval, format_p_value, format_signed, format_x100, is_significant
from limner.comparison.html import escape_html, explanation, html_cell, html_document, html_table, letter_tag
from limner.comparison.latex import escape_latex
from limner.comparison.seeds import SeedComparison, SeedGroup
from limner.metrics.significance import Difference


def format_mean(group: SeedGroup, name: str) -> str:
    """The mean of a group times 100 with its standard deviation over the seeds: "57.0 ± 0.4"; a single run has none."""
    mean = format_x100(group.means[name].value)
    return mean if isnan(group.spread[name]) else f"{mean} \u00b1 {format_x100(group.spread[name])}"


def group_names(group: SeedGroup) -> str:
    """The names of a group's runs."""
    return ", ".join(run.name for run in group.runs)


def seed_page(comparison: SeedComparison) -> str:
    """The HTML file as text: means, differences, the scores of every run, and how they were measured."""
    first, *others = comparison.groups
    protocol = comparison.protocol
    heads = [letter_tag(first)]
    for other in others:
        heads += [letter_tag(other), f"{letter_tag(other)}\u2009\u2212\u2009{letter_tag(first)}"]
    rows = []
    for name in comparison.metrics:
        cells = [html_cell(format_mean(first, name), format_interval(first.means[name]))]
        for other, differences in zip(others, comparison.differences, strict=True):
            value = differences[name]
            p = f"p\u2009{escape_html(format_p_value(value))}"
            css_class = "sure" if is_significant(value) else ""
            cells.append(html_cell(format_mean(other, name), format_interval(other.means[name])))
            cells.append(html_cell(format_signed(value.value), format_interval(value), p, css_class=css_class))
        rows.append((name, cells))
    every = [
        (
            f"{letter_tag(group)} {escape_html(run.name)}",
            [html_cell(format_x100(group.scores[name][k])) for name in comparison.metrics],
        )
        for group in comparison.groups
        for k, run in enumerate(group.runs)
    ]
    note = (
        f"Means over the runs of each system \u00b1 their standard deviation. In brackets: 95&nbsp;% intervals of a "
        f"bootstrap over items and seeds ({protocol['bootstrap draws']} draws, seed {protocol['bootstrap seed']}): "
        "each draw takes items with replacement, the same for all runs, and n \u2212 1 of the n runs of each system. p "
        "is two-sided and not corrected for the number of metrics and systems. Bold: the interval does not contain 0."
    )
    names = "".join(f"<span>{letter_tag(it)} {escape_html(group_names(it))}</span> " for it in comparison.groups)
    warnings = "".join(f"<li>{escape_html(line)}</li>" for line in comparison.warnings)
    body = [
        f"<h1>{names}</h1>",
        explanation(
            f"{protocol['images']} items, {protocol['references mean']:.3g} references each, tokenizer: "
            f"{escape_html(str(protocol['tokenizer']))}. Scores are x100, as papers print them: CIDEr 57.0 is 0.570."
        ),
        f'<div class="warn" role="note"><b>Before you trust the numbers</b><ul>{warnings}</ul></div>' * bool(warnings),
        f"<h2>Scores</h2>{html_table('scores', heads, rows)}{explanation(note)}",
        f"<h2>Every run</h2>{html_table('runs', comparison.metrics, every)}",
        "<h2>How it was measured</h2>",
        html_table("protocol", [], [(escape_html(k), [html_cell(escape_html(str(v)))]) for k, v in protocol.items()]),
    ]
    return html_document("Comparison of systems with several seeds", body)


def seed_latex_table(comparison: SeedComparison) -> str:
    """A table for papers, which needs `booktabs`: a row of means per system; a star marks an interval without 0."""
    starred: list[dict[str, Difference]] = [{}, *comparison.differences]
    lines = []
    for group, differences in zip(comparison.groups, starred, strict=True):
        cells = [
            f"${format_mean(group, name).replace(chr(0xB1), chr(92) + 'pm')}"
            + ("^{*}$" if name in differences and is_significant(differences[name]) else "$")
            for name in comparison.metrics
        ]
        label = f"{escape_latex(group.runs[0].name)} ({len(group.runs)})"
        lines.append(f"    {label} & {' & '.join(cells)} \\\\")
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            "\\begin{table}",
            "  \\centering",
            f"  \\begin{{tabular}}{{l{'r' * len(comparison.metrics)}}}",
            "    \\toprule",
            f"     & {' & '.join(map(escape_latex, comparison.metrics))} \\\\",
            "    \\midrule",
            *lines,
            "    \\bottomrule",
            "  \\end{tabular}",
            f"  \\caption{{Scores $\\times 100$ on {comparison.protocol['images']} items: mean and standard deviation "
            "over the runs (their number in brackets). $^{*}$: the 95\\,\\% interval of the difference to the first "
            f"row, a bootstrap over items and seeds ({comparison.protocol['bootstrap draws']} draws), excludes 0.}}",
            "\\end{table}",
            "",
        ]
    )
