"""Histograms as SVG: the scores of single items, and the differences between two runs on the same item.

Colours and fonts come from the page (`style.py`): the shapes of run k have the class s0, s1, ...
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from limner.comparison.formatting import NEGLIGIBLE

WIDTH, HEIGHT = 320, 162  # in units of the view box
LEFT, RIGHT, TOP, BASE = 8.0, 312.0, 34.0, 138.0
SCORE_BINS = 31  # a prime number: scores are often simple fractions, and few of them lie on an edge of a bin
DIFFERENCE_BINS = 30  # an even number: no bar holds differences of both signs


def scores_chart(name: str, letters: Sequence[str], segments: Sequence[Float[np.ndarray, " I"]]) -> str:
    """Histograms of the runs' scores, as outlines over one axis from 0; a dashed line is the mean, zeros included."""
    top = max(NEGLIGIBLE, *(float(values.max()) for values in segments))
    counts = [np.histogram(values[values >= NEGLIGIBLE], np.linspace(0, top, SCORE_BINS + 1))[0] for values in segments]
    highest = max(1, *(int(count.max()) for count in counts))
    parts = [_outline(count, highest, k) for k, count in enumerate(counts)]
    for k, values in enumerate(segments):
        x = LEFT + (RIGHT - LEFT) * float(values.mean()) / top
        parts.append(f'<line class="mean s{k % 6}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BASE}"/>')
    zeros = [int((values < NEGLIGIBLE).sum()) for values in segments]
    means = ", ".join(f"{letter} {100 * values.mean():.1f}" for letter, values in zip(letters, segments, strict=True))
    at_zero = ", ".join(f"{letter} {count}" for letter, count in zip(letters, zeros, strict=True))
    heads = [_text(LEFT, 14, name, look="head"), _text(RIGHT, 14, f"tallest: {highest} items", "end")]
    if any(zeros):
        heads.append(_text(RIGHT, 28, f"at 0: {at_zero}", "end"))
    label = f"Histogram of {name} per item, x100. Means: {means}. Items at 0: {at_zero}."
    return _svg(label, [*parts, *_axis(0, top), *heads])


def differences_chart(
    name: str, first: tuple[str, int], second: tuple[str, int], values: Float[np.ndarray, " I"]
) -> str:
    """A histogram of `values`, second minus first run per item.  Equal items are counted and not drawn.

    `first` and `second` are a run's letter and its number, which decides its colour.
    """
    apart = values[np.abs(values) >= NEGLIGIBLE]
    most = float(np.abs(apart).max(initial=NEGLIGIBLE))
    counts = np.histogram(apart, np.linspace(-most, most, DIFFERENCE_BINS + 1))[0]
    width = (RIGHT - LEFT) / DIFFERENCE_BINS
    bars = []
    for k in np.flatnonzero(counts):
        number = first[1] if k < DIFFERENCE_BINS // 2 else second[1]
        height = (BASE - TOP) * counts[k] / counts.max()
        geometry = (
            f'x="{LEFT + k * width + 0.5:.1f}" y="{BASE - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}"'
        )
        bars.append(f'<rect class="s{number % 6}" {geometry}/>')
    lower, higher = int((apart < 0).sum()), int((apart > 0).sum())
    equal, middle = len(values) - len(apart), (LEFT + RIGHT) / 2
    heads = [
        _text(LEFT, 14, f"{first[0]} higher: {lower}", "start", f"s{first[1] % 6}"),
        _text(middle, 14, f"equal: {equal}", "middle"),
        _text(RIGHT, 14, f"{second[0]} higher: {higher}", "end", f"s{second[1] % 6}"),
        f'<line class="zero" x1="{middle}" x2="{middle}" y1="{TOP}" y2="{BASE}"/>',
    ]
    label = (
        f"Histogram of the difference in {name} per item, {second[0]} minus {first[0]}, x100: "
        f"{first[0]} higher on {lower}, {second[0]} on {higher}, equal on {equal}."
    )
    return _svg(label, [*bars, *heads, *_axis(-most, most)])


def _outline(counts: np.ndarray, highest: int, number: int) -> str:
    xs = np.linspace(LEFT, RIGHT, len(counts) + 1)
    ys = BASE - (BASE - TOP) * counts / highest
    steps = " ".join(f"L{xs[k]:.1f} {ys[k]:.1f} L{xs[k + 1]:.1f} {ys[k]:.1f}" for k in range(len(counts)))
    return f'<path class="curve s{number % 6}" d="M{LEFT} {BASE} {steps} L{RIGHT} {BASE}"/>'


def _axis(low: float, high: float) -> list[str]:
    """The base line with round tick labels, x100."""
    parts = [f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BASE}" y2="{BASE}"/>']
    for tick in ticks(100 * low, 100 * high):
        x = LEFT + (RIGHT - LEFT) * (tick / 100 - low) / (high - low)
        anchor = "start" if x < LEFT + 8 else "end" if x > RIGHT - 8 else "middle"
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{BASE}" y2="{BASE + 4}"/>')
        parts.append(_text(x, BASE + 16, f"{tick:g}".replace("-", "\u2212"), anchor))
    return parts


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """The tick positions in [low, high]: at most `count` + 1 multiples of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 100)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= (high - low) / count)
    return [round(k * step, 9) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "start", look: str = "") -> str:
    return f'<text class="{look}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _svg(label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
