"""Figures for print: a panel per word of a picture, a row of frames per word of a clip."""

import io
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.files import atomic_write
from limner.core.types import Layout
from limner.explanations.maps import Explanation
from limner.explanations.overlay import WHOLE, Box, heat, light, outstanding, paint, shade, upsample
from limner.explanations.subject import Shown
from limner.inference.pipeline import Caption

COLUMNS = 5
MOMENTS = 8  # frames of a clip in a row, at most
TALLEST = 3.0  # panels are at most so many times as high as wide: Agg draws no figure of more than 65535 pixels
SILENT = "the captioner says nothing about it: give it a sentence to explain (--sentence)"
FORMATS = (".png", ".pdf", ".svg", ".jpg")


def attention_figure(
    picture: UInt8[np.ndarray, "H W 3"], caption: Caption, out: str | Path, title: str = "", kept_region: Box = WHOLE
) -> Path:
    """`word_figure` of where a captioner looked by itself."""
    count, *layout = caption.attention.shape
    cells = Layout(*layout)
    maps, real = caption.attention.reshape(count, cells.cells), np.ones(cells.cells, dtype=bool)
    found = Explanation(caption.text, caption.words, maps, cells, "attention", np.ones(count, np.float32), real)
    return word_figure(picture, found, out, title, kept_region)


def word_figure(
    picture: UInt8[np.ndarray, "H W 3"],
    explanation: Explanation,
    out: str | Path,
    title: str = "",
    kept_region: Box = WHOLE,
) -> Path:
    """Write the figure of a still picture.  The format follows the ending of `out`; raises ValueError for others.

    Each panel is headed by its word and the share of the whole picture that its outlined area takes: the smallest one
    holding half of all the weight, or by "nothing stands out".  Of methods other than attention the weight is what lies
    above a map's mean.
    `kept_region` is the box that the encoder saw (`Encoder.kept_region`); the rest has no weight.  Of cells that
    have a time, as those of a video network, the sum is shown. Letters that matplotlib's font lacks, such as Chinese
    ones, are drawn as boxes, and matplotlib warns of them.
    """
    out = _known_format(out)
    picture = enlarge(picture)
    height, width = picture.shape[:2]
    panels = len(explanation.words) + 1
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    aspect = min(height / width, TALLEST)
    figure = _figure(2.3 * columns, 0.55 + rows * (2.3 * aspect + 0.35), title or explanation.text)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(picture)
    axes[0].set_title(explanation.method, fontsize=11, color="0.4")
    for axis, word, weights in zip(axes[1:], explanation.words, explanation.maps, strict=False):
        kept = weights if explanation.method == "attention" else outstanding(weights, explanation.real)
        if explanation.regions is None:
            values = upsample(kept.reshape(explanation.layout).sum(0), height, width, kept_region)
        else:
            values = paint(kept / (kept.max() or 1), explanation.regions, height, width)
        axis.imshow(shade(picture, values))
        level, share = half_of(values)
        if 0 < share < 1 and min(values.shape) > 1:  # a line of pixels has no outline
            axis.contour(values, levels=[level], colors=["#ffd23f"], linewidths=1.2)
        found = f"{share:.0%}" if values.any() else "nothing stands out"
        axis.set_title(f"{word}  ({found})", fontsize=11, fontweight="bold", parse_math=False)
    return _save(figure, out)


def strip_figure(shown: Shown, explanation: Explanation, out: str | Path, title: str = "") -> Path:
    """Write the figure of a clip: for every word a row of frames in the order of time, with its heat map over them.

    The clip is cut into equal parts, one for each time that cells have, at most `MOMENTS`; of each the middle frame is
    shown and every cell's highest value.  Words at which nothing stands out are grey.  The format follows the ending of
    `out`; raises ValueError for others, and when there is no word.
    """
    out = _known_format(out)
    if not explanation.words:
        raise ValueError(SILENT)
    parts = min(MOMENTS, explanation.layout.t)
    places = [(k / parts, (k + 1) / parts) for k in range(parts)]
    numbers = [int(np.abs(shown.moments - (k + 0.5) / parts).argmin()) for k in range(parts)]
    frames = [enlarge(shown.frames[number], 112, 200) for number in numbers]
    height, width = frames[0].shape[:2]
    gap, rows = 4, len(explanation.words)
    sheet = np.full((rows * (height + gap) - gap, parts * (width + gap) - gap, 3), 255, np.uint8)
    for row in range(rows):
        for column, (frame, part) in enumerate(zip(frames, places, strict=True)):
            values = light(explanation, row, height, width, shown.kept_region, part)
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = heat(frame, values)
    return _print(sheet, explanation, _times(shown, numbers), title or explanation.text, out)


def _print(
    sheet: UInt8[np.ndarray, "H W 3"], explanation: Explanation, times: list[str], title: str, out: Path
) -> Path:
    """The frames with words on the left, times below and the scale on the right; sizes in inches."""
    words = explanation.words
    high, wide = (side / 110 for side in sheet.shape[:2])
    left, right, bottom = 0.3 + 0.13 * max(map(len, words)), 1.1, 0.4
    top = 0.2 + 0.3 * math.ceil(len(title) * 0.11 / (left + wide + right))
    size = (left + wide + right, top + high + bottom)
    figure = _figure(*size, title, layout=None)
    axis = figure.add_axes((left / size[0], bottom / size[1], wide / size[0], high / size[1]))
    axis.imshow(sheet, aspect="auto")
    axis.set_xticks([(k + 0.5) * sheet.shape[1] / len(times) for k in range(len(times))], times)
    axis.set_yticks([(k + 0.5) * sheet.shape[0] / len(words) for k in range(len(words))], words, parse_math=False)
    axis.tick_params(axis="x", length=0, labelsize=9, labelcolor="0.35")
    axis.tick_params(axis="y", length=0, labelsize=12)
    for label, values in zip(axis.get_yticklabels(), explanation.maps, strict=True):
        label.set_fontweight("bold")
        label.set_color("black" if outstanding(values, explanation.real).any() else "0.65")
    for side in axis.spines.values():
        side.set_visible(False)
    bar = figure.add_axes(((left + wide + 0.15) / size[0], bottom / size[1], 0.12 / size[0], min(high, 3) / size[1]))
    scale = np.linspace(0, 1, 256)[:, None]
    bar.imshow(heat(np.full((256, 1, 3), 150, np.uint8), scale), aspect="auto", origin="lower")
    bar.yaxis.tick_right()
    bar.set_yticks([0, 255], ["average", "most"])
    bar.set_xticks([])
    bar.tick_params(length=0, labelsize=9)
    figure.text((left + wide + 0.15) / size[0], 0.12 / size[1], explanation.method, fontsize=9, color="0.35")
    return _save(figure, out)


def _times(shown: Shown, numbers: list[int]) -> list[str]:
    if shown.seconds is not None:
        return [f"{shown.seconds[number]:.1f} s" for number in numbers]
    return [f"{k + 1} of {len(numbers)}" for k in range(len(numbers))]


def _known_format(out: str | Path) -> Path:
    if Path(out).suffix.lower() not in FORMATS:
        raise ValueError(f"{out}: the ending says the format; known are {', '.join(FORMATS)}")
    return Path(out)


def _figure(width: float, height: float, title: str, layout: Literal["constrained"] | None = "constrained") -> Any:
    """Without a layout the title stands 0.12 inches below the edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    top = None if layout else 1 - 0.12 / height
    figure.suptitle(title, y=top, fontsize=13, wrap=True, parse_math=False)  # "$5" is no formula
    return figure


def _save(figure: Any, out: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:].lower())
    with atomic_write(out) as temporary:
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
