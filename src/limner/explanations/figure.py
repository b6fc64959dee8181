"""Figures for print: one panel per word for an image, one row of frames per word for a clip."""

import io
import math
import textwrap
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.files import atomic_write
from limner.core.types import Layout
from limner.explanations.explanation_input import DisplayFrames
from limner.explanations.maps import Explanation
from limner.explanations.overlay import (
    WHOLE_IMAGE,
    Box,
    above_mean,
    heat,
    paint_regions,
    shade,
    upsample,
    word_intensity,
)
from limner.inference.pipeline import Caption

MAX_PANELS_PER_ROW = 5
MAX_COLUMNS = 8  # frames of a clip per row
MAX_ASPECT = 3.0  # height / width of a panel; limited because Agg cannot draw figures of more than 65535 pixels
EMPTY_CAPTION = "the caption is empty, so there is no word to explain: give a sentence (--sentence)"
FORMATS = (".png", ".pdf", ".svg", ".jpg")
SMALL = 8  # points: size of the note below a figure


def attention_figure(
    image: UInt8[np.ndarray, "H W 3"],
    caption: Caption,
    out: str | Path,
    title: str = "",
    kept_region: Box = WHOLE_IMAGE,
) -> Path:
    """Write the `word_figure` of the attention of a caption (`Caption.attention`)."""
    count, *layout = caption.attention.shape
    cells = Layout(*layout)
    maps, real = caption.attention.reshape(count, cells.cells), np.ones(cells.cells, dtype=bool)
    probabilities = np.ones(count, np.float32)  # the figure does not show them
    explanation = Explanation(caption.text, caption.words, maps, cells, "attention", probabilities, real)
    return word_figure(image, explanation, out, title, kept_region)


def word_figure(
    image: UInt8[np.ndarray, "H W 3"],
    explanation: Explanation,
    out: str | Path,
    title: str = "",
    kept_region: Box = WHOLE_IMAGE,
) -> Path:
    """Write the figure of an image: the image, then one panel per word with its map.

    The outline in a panel is the smallest area that holds half of the weight, and the number is the share of the whole
    image that this area takes, or "nothing stands out" where a map is 0.  The weight is the attention; for other
    methods, it is the part of the map above its mean.  `kept_region` is the part of the image that the encoder saw
    (`Encoder.kept_region`); the rest has no weight.  Where cells have a time, as those of a video encoder, the sum over
    time is drawn.  The ending of `out` is the format.  Raises ValueError for an unknown ending.

    matplotlib's font has no Chinese letters, for example: `fonts.use_font` gives it another one.
    """
    out = _check_format(out)
    image = enlarge(image)
    height, width = image.shape[:2]
    panels = len(explanation.words) + 1
    columns = min(MAX_PANELS_PER_ROW, panels)
    rows = math.ceil(panels / columns)
    aspect = min(height / width, MAX_ASPECT)
    note = _wrap(_outline_note(explanation), 2.3 * columns)
    height_of_note = 0.06 + 0.14 * (1 + note.count("\n")) if note else 0.0
    figure = _figure(2.3 * columns, 0.55 + rows * (2.3 * aspect + 0.35) + height_of_note, title or explanation.text)
    if note:
        figure.supxlabel(note, fontsize=SMALL, color="0.4")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(image)
    axes[0].set_title(explanation.method, fontsize=11, color="0.4")
    for axis, word, weights in zip(axes[1:], explanation.words, explanation.maps, strict=False):
        cells = weights if explanation.method == "attention" else above_mean(weights, explanation.real)
        if explanation.regions is None:
            values = upsample(cells.reshape(explanation.layout).sum(0), height, width, kept_region)
        else:
            values = paint_regions(cells / (cells.max() or 1), explanation.regions, height, width)
        axis.imshow(shade(image, values))
        level, share = half_weight_level(values)
        if 0 < share < 1 and min(values.shape) > 1:  # a line of pixels has no outline
            axis.contour(values, levels=[level], colors=["#ffd23f"], linewidths=1.2)
        area = f"{share:.0%}" if values.any() else "nothing stands out"
        axis.set_title(f"{word}  ({area})", fontsize=11, fontweight="bold", parse_math=False)
    return _save(figure, out)


def _outline_note(explanation: Explanation) -> str:
    """What the outlines and the numbers of a word figure mean; "" where there are none."""
    if not explanation.words:
        return ""
    weight = "attention" if explanation.method == "attention" else f"{explanation.method} values above their mean"
    return f"Outlined: the smallest area that holds half of the {weight}; number: its share of the image"


def _wrap(text: str, width: float) -> str:
    """Break a note of size `SMALL` into lines that fit into `width` inches."""
    return textwrap.fill(text, max(20, int((width - 0.2) * 72 / (0.56 * SMALL))))  # a letter is about 0.56 em wide


def strip_figure(display: DisplayFrames, explanation: Explanation, out: str | Path, title: str = "") -> Path:
    """Write the figure of a clip: one row of frames per word, in the order of time, with the heat map of the word.

    The clip is cut into equal parts, one for each time of the cells, at most `MAX_COLUMNS`.  A column shows the middle
    frame of its part and the highest value of every cell in this part.  A word is grey where its map is the same
    everywhere.  The ending of `out` is the format.  Raises ValueError for an unknown ending and when there is no word.
    """
    out = _check_format(out)
    if not explanation.words:
        raise ValueError(EMPTY_CAPTION)
    parts = min(MAX_COLUMNS, explanation.layout.t)
    spans = [(k / parts, (k + 1) / parts) for k in range(parts)]
    numbers = [int(np.abs(display.moments - (k + 0.5) / parts).argmin()) for k in range(parts)]
    frames = [enlarge(display.frames[number], 112, 200) for number in numbers]
    height, width = frames[0].shape[:2]
    gap, rows = 4, len(explanation.words)
    sheet = np.full((rows * (height + gap) - gap, parts * (width + gap) - gap, 3), 255, np.uint8)
    for row in range(rows):
        for column, (frame, part) in enumerate(zip(frames, spans, strict=True)):
            values = word_intensity(explanation, row, height, width, display.kept_region, part)
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = heat(frame, values)
    return _compose_strip(sheet, explanation, _time_labels(display, numbers), title or explanation.text, out)


def _compose_strip(
    sheet: UInt8[np.ndarray, "H W 3"], explanation: Explanation, times: list[str], title: str, out: Path
) -> Path:
    """Add the words on the left, the times below and the colour scale on the right.  Sizes are in inches."""
    words = explanation.words
    high, wide = (side / 110 for side in sheet.shape[:2])
    left, right = 0.3 + 0.13 * max(map(len, words)), 1.1
    note = _wrap("Colour: how far the map of a word exceeds its average; grey word: nowhere", left + wide + right)
    bottom = 0.46 + 0.14 * (1 + note.count("\n"))
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
        label.set_color("black" if above_mean(values, explanation.real).any() else "0.65")
    for side in axis.spines.values():
        side.set_visible(False)
    bar = figure.add_axes(((left + wide + 0.15) / size[0], bottom / size[1], 0.12 / size[0], min(high, 3) / size[1]))
    scale = np.linspace(0, 1, 256)[:, None]
    bar.imshow(heat(np.full((256, 1, 3), 150, np.uint8), scale), aspect="auto", origin="lower")
    bar.yaxis.tick_right()
    bar.set_yticks([0, 255], ["average", "most"])
    bar.set_xticks([])
    bar.tick_params(length=0, labelsize=9)
    figure.text((left + wide + 0.15) / size[0], (bottom - 0.28) / size[1], explanation.method, fontsize=9, color="0.35")
    figure.text(0.5, 0.08 / size[1], note, fontsize=SMALL, color="0.4", ha="center")
    return _save(figure, out)


def _time_labels(display: DisplayFrames, numbers: list[int]) -> list[str]:
    """The label of every column: the time of its frame in seconds, or its number where that is unknown."""
    if display.seconds is not None:
        return [f"{display.seconds[number]:.1f} s" for number in numbers]
    return [f"{k + 1} of {len(numbers)}" for k in range(len(numbers))]


def _check_format(out: str | Path) -> Path:
    """Raise ValueError for an unknown ending."""
    if Path(out).suffix.lower() not in FORMATS:
        raise ValueError(f"{out}: the ending chooses the format; known are {', '.join(FORMATS)}")
    return Path(out)


def _figure(width: float, height: float, title: str, layout: Literal["constrained"] | None = "constrained") -> Any:
    """An empty matplotlib figure with a title; without `layout`, the title is 0.12 inches below the edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    top = None if layout else 1 - 0.12 / height
    figure.suptitle(title, y=top, fontsize=13, wrap=True, parse_math=False)  # parse_math=False: "$5" is not a formula
    return figure


def _save(figure: Any, out: Path) -> Path:
    """Write the figure atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:].lower())
    with atomic_write(out) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return out


def half_weight_level(values: np.ndarray) -> tuple[float, float]:
    """The level of the outline that holds half of all weight -> (level, share of the area inside it).

    >>> half_weight_level(np.array([[4.0, 3.0], [2.0, 1.0]]))  # 4 is less than half of 10, 4 + 3 is not
    (3.0, 0.5)
    """
    ordered = np.sort(values.ravel())[::-1]
    total = ordered.cumsum()
    if total[-1] <= 0:
        return 0.0, 1.0
    index = int(np.searchsorted(total, total[-1] / 2))
    return float(ordered[index]), (index + 1) / len(ordered)


def enlarge(image: UInt8[np.ndarray, "H W 3"], side: int = 224, max_side: int = 640) -> UInt8[np.ndarray, "h w 3"]:
    """Enlarge an image until its shorter side has `side` pixels, so that outlines are smooth.

    The longer side has at most `max_side` pixels; larger images are reduced.
    """
    height, width = image.shape[:2]
    scale = min(max(side / min(height, width), 1.0), max_side / max(height, width))
    if scale == 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
