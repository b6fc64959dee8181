"""The scores as a LaTeX table in the manner of papers: booktabs, one row per run, times 100."""

import re

from limner.comparison.compare import Comparison
from limner.comparison.numbers import MINUS, interval, p_value, signed, sure, x100

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


def latex(comparison: Comparison) -> str:
    """A table that needs `booktabs`.  A star marks a difference whose 95 % interval leaves 0 out."""
    names = comparison.metrics
    human = comparison.human
    rows = [_row(escaped(m.side.name), [x100(m.scores[name].value) for name in names]) for m in comparison.sides]
    for measured, found in zip(comparison.sides[1:], comparison.differences, strict=True):
        starred = [_maths(signed(found[name].value) + ("^{*}" if sure(found[name]) else "")) for name in names]
        rows += ["    \\midrule", _row(f"$\\Delta$ {escaped(measured.side.name)}", starred)]
        rows.append(_row("\\quad 95\\,\\% interval", [_small(_maths(interval(found[name]))) for name in names]))
        rows.append(_row("\\quad $p$", [_small(_maths(p_value(found[name]))) for name in names]))
    if not human.missing:
        rows += ["    \\midrule", _row("one human$^{\\dagger}$", [x100(human.human[name]) for name in names])]
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            "\\begin{table}",
            "  \\centering",
            f"  \\begin{{tabular}}{{l{'r' * len(names)}}}",
            "    \\toprule",
            _row("", [escaped(name) for name in names]),
            "    \\midrule",
            *rows,
            "    \\bottomrule",
            "  \\end{tabular}",
            f"  \\caption{{{_caption(comparison)}}}",
            "\\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is; characters that cannot be printed are left out."""
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "", text)
    return "".join(_SPECIAL.get(char, char) for char in plain)


def _row(label: str, cells: list[str]) -> str:
    return "    " + " & ".join([label, *cells]) + " \\\\"


def _maths(text: str) -> str:
    return f"${text.replace(MINUS, '-')}$"


def _small(text: str) -> str:
    return f"{{\\scriptsize {text}}}"


def _caption(comparison: Comparison) -> str:
    here, human = comparison.protocol, comparison.human
    text = (
        f"Scores $\\times 100$ on {here['images']} items with {here['references mean']:.3g} references each, tokens: "
        f"{escaped(str(here['tokenizer']))}. Intervals and $p$: paired bootstrap over the items, "
        f"{here['bootstrap draws']} draws; $\\Delta$: minus the first row; $^{{*}}$: the interval leaves 0 out."
    )
    if not human.missing:
        text += (
            f" $^{{\\dagger}}$The first reference scored against the other {human.references:.3g}, so not on a par "
            "with the rows above."
        )
    return text
