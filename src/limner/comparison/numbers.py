"""Scores as papers print them: times 100, one decimal; a page, a table and a terminal write them alike."""

from limner.metrics.significance import Difference, Estimate

MINUS = "\u2212"
ALIKE = 0.0005  # what prints as 0.0


def x100(fraction: float) -> str:
    """0.5703 -> "57.0"."""
    return f"{100 * fraction:.1f}".replace("-", MINUS)


def signed(fraction: float) -> str:
    """-0.0437 -> "−4.4"; what rounds to nothing has no sign."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def interval(estimate: Estimate) -> str:
    """ "[53.2, 60.5]", with signs for a difference."""
    write = signed if isinstance(estimate, Difference) else x100
    return f"[{write(estimate.low)}, {write(estimate.high)}]"


def p_value(difference: Difference) -> str:
    """ ".012", "<.001", "1"."""
    if difference.p < 0.001:
        return "<.001"
    return "1" if difference.p == 1 else f"{difference.p:.3f}".lstrip("0")


def sure(difference: Difference) -> bool:
    """Whether the interval leaves 0 out."""
    return difference.low > 0 or difference.high < 0
