"""The word-by-word figure: one panel per word, showing where the model looked when it chose that word."""

import io
import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.explain.overlay import WHOLE, shade, upsample
from limner.files import atomic
from limner.pipeline import Caption

COLUMNS = 5
TALLEST = 3.0  # panels are at most so many times as high as wide: Agg draws no figure of more than 65535 pixels
FORMATS = (".png", ".pdf", ".svg", ".jpg")


def attention_figure(
    picture: UInt8[np.ndarray, "H W 3"],
    caption: Caption,
    out: str | Path,
    title: str = "",
    view: tuple[float, float, float, float] = WHOLE,
) -> Path:
    """Write the figure of a still picture.  The format follows the ending of `out`; raises ValueError for others.

    Each panel is headed by its word and the share of the whole picture that its outlined area takes: the smallest one
    holding half of all the weight.  `view` is the box that the encoder saw (`Encoder.view_of`); the rest has no weight.
    Letters that matplotlib's font lacks, such as Chinese ones, are drawn as boxes, and matplotlib warns of them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = Path(out)
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"{out}: the ending says the format; known are {', '.join(FORMATS)}")
    if caption.attention.shape[1] != 1:
        raise ValueError(
            f"attention over {caption.attention.shape[1]} frames needs a clip's overlay, not a picture's figure"
        )
    picture = enlarge(picture)
    height, width = picture.shape[:2]
    panels = len(caption.words) + 1
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    aspect = min(height / width, TALLEST)
    figure = Figure(figsize=(2.3 * columns, 0.55 + rows * (2.3 * aspect + 0.35)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title or caption.text, fontsize=13, wrap=True, parse_math=False)  # "$5" is no formula
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(picture)
    axes[0].set_title("picture", fontsize=11, color="0.4")
    for axis, word, weights in zip(axes[1:], caption.words, caption.attention[:, 0], strict=False):
        values = upsample(weights, height, width, view)
        axis.imshow(shade(picture, values))
        level, share = half_of(values)
        if 0 < share < 1 and min(values.shape) > 1:  # a line of pixels has no outline
            axis.contour(values, levels=[level], colors=["#ffd23f"], linewidths=1.2)
        axis.set_title(f"{word}  ({share:.0%})", fontsize=11, fontweight="bold", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:].lower())
    with atomic(out) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return out


def half_of(values: np.ndarray) -> tuple[float, float]:
    """-> the value above which half of all weight lies, and the share of the area that is above it."""
    ordered = np.sort(values.ravel())[::-1]
    total = ordered.cumsum()
    if total[-1] <= 0:
        return 0.0, 1.0
    index = int(np.searchsorted(total, total[-1] / 2))
    return float(ordered[index]), (index + 1) / len(ordered)


def enlarge(picture: UInt8[np.ndarray, "H W 3"], side: int = 224, most: int = 640) -> UInt8[np.ndarray, "h w 3"]:
    """A picture whose shorter side has at least `side` and whose longer one at most `most` pixels, for smooth masks."""
    height, width = picture.shape[:2]
    scale = min(max(side / min(height, width), 1.0), most / max(height, width))
    if scale == 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
