"""The scores of a comparison as a LaTeX table: booktabs, one row per run, times 100."""

import re

from limner.comparison.compare import Comparison
from limner.comparison.formatting import (
    MINUS,
    format_interval,
    format_p_value,
    format_signed,
    format_x100,
    is_significant,
)

_SPECIAL = {
    **{char: "\\" + char for char in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "\\textquotedbl{}",
}


def latex_table(comparison: Comparison) -> str:
    """A table for papers, which needs `booktabs`.

    A star marks a difference with a 95 % interval that does not contain 0.
    """
    names = comparison.metrics
    human = comparison.human
    rows = [
        _row(escape_latex(it.run.name), [format_x100(it.scores[name].value) for name in names])
        for it in comparison.runs
    ]
    for it, differences in zip(comparison.runs[1:], comparison.differences, strict=True):
        starred = [
            _maths(format_signed(differences[name].value) + ("^{*}" if is_significant(differences[name]) else ""))
            for name in names
        ]
        intervals = [_small(_maths(format_interval(differences[name]))) for name in names]
        p_values = [_small(_maths(format_p_value(differences[name]))) for name in names]
        rows += ["    \\midrule", _row(f"$\\Delta$ {escape_latex(it.run.name)}", starred)]
        rows.append(_row("\\quad 95\\,\\% interval", intervals))
        rows.append(_row("\\quad $p$", p_values))
    if not human.missing:
        rows += ["    \\midrule", _row("one human$^{\\dagger}$", [format_x100(human.scores[name]) for name in names])]
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            "\\begin{table}",
            "  \\centering",
            f"  \\begin{{tabular}}{{l{'r' * len(names)}}}",
            "    \\toprule",
            _row("", [escape_latex(name) for name in names]),
            "    \\midrule",
            *rows,
            "    \\bottomrule",
            "  \\end{tabular}",
            f"  \\caption{{{_caption(comparison)}}}",
            "\\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Text with LaTeX's special characters escaped; unprintable characters are left out."""
    printable = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "", text)
    return "".join(_SPECIAL.get(char, char) for char in printable)


def _row(label: str, cells: list[str]) -> str:
    return "    " + " & ".join([label, *cells]) + " \\\\"


def _maths(text: str) -> str:
    return f"${text.replace(MINUS, '-')}$"


def _small(text: str) -> str:
    return f"{{\\scriptsize {text}}}"


def _caption(comparison: Comparison) -> str:
    protocol, human = comparison.protocol, comparison.human
    text = (
        f"Scores $\\times 100$ on {protocol['images']} items with {protocol['references mean']:.3g} references each, "
        f"tokens: {escape_latex(str(protocol['tokenizer']))}. Intervals and $p$: paired bootstrap over the items, "
        f"{protocol['bootstrap draws']} draws; $\\Delta$: minus the first row; $^{{*}}$: the interval excludes 0."
    )
    if not human.missing:
        text += (
            f" $^{{\\dagger}}$The first reference scored against the other {human.references:.3g}, so not comparable "
            "with the rows above."
        )
    return text
