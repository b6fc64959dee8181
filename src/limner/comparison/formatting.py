"""Formatting of scores for pages, LaTeX and the terminal, as papers print them: times 100, with one decimal."""

from limner.metrics.significance import Difference, Estimate

MINUS = "\u2212"
NEGLIGIBLE = 0.0005  # scores and differences below this are printed as 0.0


def format_x100(fraction: float) -> str:
    """A score times 100.

    >>> format_x100(0.5703)
    '57.0'
    """
    return f"{100 * fraction:.1f}".replace("-", MINUS)


def format_signed(fraction: float) -> str:
    """A difference times 100, with its sign; one that rounds to 0.0 has no sign.

    >>> format_signed(0.0437), format_signed(0.0001)
    ('+4.4', '0.0')
    """
    text = f"{100 * fraction:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def format_interval(estimate: Estimate) -> str:
    """The confidence interval times 100, "[53.2, 60.5]"; the ends have signs when it is that of a difference."""
    write = format_signed if isinstance(estimate, Difference) else format_x100
    return f"[{write(estimate.low)}, {write(estimate.high)}]"


def format_p_value(difference: Difference) -> str:
    """The p-value with three decimals and without the leading zero: ".012", "<.001" or "1".

    It is "-" for a difference whose interval is printed as [0.0, 0.0]: a test of rounding errors says nothing.

    >>> format_p_value(Difference(0.02, 0.01, 0.03, 0.0123)), format_p_value(Difference(1e-6, 1e-7, 2e-6, 0.005))
    ('.012', '-')
    """
    if difference.p < 1 and max(abs(difference.low), abs(difference.high)) < NEGLIGIBLE:
        return "-"
    if difference.p < 0.001:
        return "<.001"
    return "1" if difference.p == 1 else f"{difference.p:.3f}".lstrip("0")


def is_significant(difference: Difference) -> bool:
    """Whether the 95 % interval of a difference does not contain 0."""
    return difference.low > 0 or difference.high < 0
