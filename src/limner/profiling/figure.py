"""Pareto figure: CIDEr against the time from file to caption, one disc per run, with an area for its parameters."""

import io
from collections.abc import Sequence
from pathlib import Path

from limner.core.files import atomic_write
from limner.profiling.measure import Profile, pareto, with_cider


def pareto_figure(profiles: Sequence[Profile], out: str | Path) -> Path:
    """Write the figure to `out`, whose ending (.png, .pdf, .svg) is the format.

    Runs on the Pareto front are blue.  Raises ValueError when no run has a CIDEr.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = Path(out)
    points = with_cider(profiles)
    if not points:
        raise ValueError(
            "no run has a CIDEr to draw: first run limner evaluate RUN, which writes scores.json to its folder"
        )
    figure = Figure(figsize=(7, 4.5), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    front = sorted(pareto(profiles), key=lambda point: point[0].total)
    axis.plot([p.total for p, _ in front], [cider for _, cider in front], color="0.7", linewidth=1, zorder=1)
    largest = max(sum(p.parameters.values()) for p, _ in points)
    for p, cider in points:
        size = sum(p.parameters.values())
        colour = "#2266cc" if (p, cider) in front else "0.6"
        axis.scatter(p.total, cider, s=60 + 900 * size / largest, color=colour, alpha=0.55, zorder=2)
        label = f"{p.name}\n{size / 1e6:.1f} M"
        axis.annotate(label, (p.total, cider), (8, 8), textcoords="offset points", fontsize=8, parse_math=False)
    about = profiles[0].about
    axis.set_xscale("log")
    axis.margins(0.25)
    axis.set_xlabel(f"ms from file to caption ({about['device']}, {about['threads']} threads)")
    axis.set_ylabel("CIDEr")
    axis.grid(alpha=0.2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:].lower() or "png")
    with atomic_write(out) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return out
