"""Reliability diagram: the share of right captions by confidence (Guo et al. 2017, arXiv:1706.04599)."""

import io
from pathlib import Path

import numpy as np

from limner.core.files import atomic_write
from limner.decode.confidence import Reliability

FORMATS = (".png", ".pdf", ".svg")


def reliability_figure(found: Reliability, bar: float, out: Path) -> Path:
    """Write the diagram to `out`, whose ending is the format, and return `out`.

    Bars are shares of captions above the CIDEr `bar`; on the diagonal, confidence and share are equal.  Numbers below
    are captions per bin.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    bins = len(found.counts)
    left = np.arange(bins) / bins
    shown = [accuracy if count else np.nan for accuracy, count in zip(found.accuracy, found.counts, strict=True)]
    axis.bar(left, shown, 1 / bins, align="edge", color="#2266cc", alpha=0.6, edgecolor="white")
    axis.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1)
    for k, count in enumerate(found.counts):
        axis.text((k + 0.5) / bins, 0.01, str(count), ha="center", va="bottom", fontsize=7)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_xlabel(f"confidence (held out; expected calibration error {found.ece:.3f})")
    axis.set_ylabel(f"share of captions with a CIDEr above {bar:g}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:].lower())
    with atomic_write(out) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return out
