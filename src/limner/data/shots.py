"""Cut a long clip into pieces that get a caption each: shots, found by their colours, or windows of equal length."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import ceil

import numpy as np
from jaxtyping import Float

from limner.data.clips import ClipIndex, decoded

# Share of the pixels that must change their colour bin.  In the ten real clips beside the project the 15 cuts that an
# eye sees change .39 to .96 of them; motion, zooms and dissolves stay below .35, one fade to white reaches .43.
THRESHOLD = 0.35
FLASH = 0.2  # seconds; when the old colours are back by then, it was a camera's flash
SHORTEST, LONGEST = 1.0, 30.0  # seconds; a shorter shot joins its neighbour, a longer one is cut evenly

Part = tuple[float, float]  # seconds from the beginning


def windows(begin: float, end: float, longest: float) -> list[Part]:
    """[begin, end] in the fewest equal pieces of at most `longest` seconds."""
    count = max(1, ceil((end - begin) / longest - 1e-6))
    edges = [begin + (end - begin) * k / count for k in range(count + 1)]
    return list(pairwise(edges))


def every(length: float, step: float) -> list[Part]:
    """[0, step], [step, 2 step], ...; a rest of less than half a step joins the window before it."""
    count = max(1, int(length / step + 0.5))
    edges = [k * step for k in range(count)] + [length]
    return list(pairwise(edges))


def shots(known: ClipIndex) -> list[Part]:
    """The shots of a clip, in one pass that holds one small picture at a time."""
    edges = [0.0]
    for cut in cuts(histograms(known)):
        if cut - edges[-1] >= SHORTEST:
            edges.append(cut)
    if len(edges) > 1 and known.seconds - edges[-1] < SHORTEST:
        edges.pop()
    edges.append(known.seconds)
    return [part for a, b in pairwise(edges) for part in windows(a, b, LONGEST)]


def cuts(frames: Iterable[tuple[float, Float[np.ndarray, " bins"]]], threshold: float = THRESHOLD) -> Iterator[float]:
    """(second, histogram) of every frame -> the seconds at which a new shot begins."""
    before = None
    suspected: tuple[float, np.ndarray] | None = None  # when the colours changed, and what they were
    for second, colours in frames:
        if suspected is not None:
            since, old = suspected
            if change(old, colours) <= threshold:
                suspected = None
            elif second - since >= FLASH:
                suspected = None
                yield since
        elif before is not None and change(before, colours) > threshold:
            suspected = second, before
        before = colours
    if suspected is not None:
        yield suspected[0]


def change(a: Float[np.ndarray, " bins"], b: Float[np.ndarray, " bins"]) -> float:
    """The share of the pixels that lie in other bins: 0 equal, 1 nothing in common."""
    return float(np.abs(a - b).sum()) / 2


def histograms(known: ClipIndex) -> Iterator[tuple[float, Float[np.ndarray, "512"]]]:
    """Of every frame, the second and the shares of 8 x 8 x 8 colours in a picture of 64 x 48 pixels."""
    from av.video.reformatter import VideoReformatter

    scale = VideoReformatter()  # one for all: a frame's own `reformat` sets up a new one each time
    for stamp, frame in decoded(known):
        colours = scale.reformat(frame, width=64, height=48, format="rgb24").to_ndarray().astype(np.int32) >> 5
        codes = (colours[..., 0] << 6) | (colours[..., 1] << 3) | colours[..., 2]
        yield known.time(stamp), np.bincount(codes.ravel(), minlength=512) / codes.size
