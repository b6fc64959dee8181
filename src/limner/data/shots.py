"""Splitting of long clips into segments: shots, which are detected by colour, or windows of equal length."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import ceil

import numpy as np
from jaxtyping import Float

from limner.data.clips import ClipIndex, decode_frames
from limner.data.containers import as_media_error
from limner.data.video_pixels import rgb_pixels

# Fraction of the pixels that must change their histogram bin at a shot boundary.  In ten real clips of MSVD and MSR-VTT
# the 15 boundaries that a viewer sees change .39 to .96 of the pixels; motion, zooms and dissolves stay below .35, and
# one fade to white reaches .43.
THRESHOLD = 0.35
FLASH = 0.2  # seconds; when the old colours are back within this time, the change was a camera flash
SHORTEST, LONGEST = 1.0, 30.0  # seconds; a shorter shot joins its neighbour, a longer one is split evenly

Segment = tuple[float, float]  # start and end in seconds since the beginning of the file


def equal_windows(begin: float, end: float, longest: float, most: int | None = None) -> list[Segment]:
    """[begin, end] split into the fewest equal segments of at most `longest` seconds, or into `most` longer ones.

    >>> equal_windows(0, 5, 2.5)
    [(0.0, 2.5), (2.5, 5.0)]
    >>> equal_windows(0, 6, 1, most=2)
    [(0.0, 3.0), (3.0, 6.0)]
    """
    count = max(1, ceil((end - begin) / longest - 1e-6))
    count = count if most is None else max(1, min(count, most))
    edges = [begin + (end - begin) * k / count for k in range(count + 1)]
    return list(pairwise(edges))


def fixed_windows(length: float, step: float, begin: float = 0.0) -> list[Segment]:
    """Windows of `step` seconds over `length` seconds from `begin` on; a rest below half a step joins the last window.

    >>> fixed_windows(5.0, 2.0), fixed_windows(4.5, 2.0)
    ([(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)], [(0.0, 2.0), (2.0, 4.5)])
    >>> fixed_windows(2.0, 1.0, begin=3.0)
    [(3.0, 4.0), (4.0, 5.0)]
    """
    count = max(1, int(length / step + 0.5))
    edges = [begin + k * step for k in range(count)] + [begin + length]
    return list(pairwise(edges))


def detect_shots(clip: ClipIndex) -> list[Segment]:
    """The shots of a clip, each 1 to 30 seconds long; the whole clip is decoded once, one small frame at a time.

    A shot with fewer frames than parts of 30 seconds, for example slides of an hour, gets one part per frame.
    """
    begin, end = clip.span
    edges = [begin]
    for boundary in shot_boundaries(colour_histograms(clip)):
        if boundary - edges[-1] >= SHORTEST:
            edges.append(boundary)
    if len(edges) > 1 and end - edges[-1] < SHORTEST:
        edges.pop()
    edges.append(end)
    return [segment for a, b in pairwise(edges) for segment in equal_windows(a, b, LONGEST, clip.count_frames(a, b))]


def shot_boundaries(
    frames: Iterable[tuple[float, Float[np.ndarray, " bins"]]], threshold: float = THRESHOLD
) -> Iterator[float]:
    """The times, in seconds, at which a new shot begins, from (seconds, colour histogram) of every frame."""
    previous = None
    suspected: tuple[float, np.ndarray] | None = None  # time of a change, and the histogram before it
    for second, histogram in frames:
        if suspected is not None:
            since, before = suspected
            if histogram_distance(before, histogram) <= threshold:
                suspected = None
            elif second - since >= FLASH:
                suspected = None
                yield since
        elif previous is not None and histogram_distance(previous, histogram) > threshold:
            suspected = second, previous
        previous = histogram
    if suspected is not None:
        yield suspected[0]


def histogram_distance(a: Float[np.ndarray, " bins"], b: Float[np.ndarray, " bins"]) -> float:
    """Half the L1 distance of two normalised histograms: 0 when they are equal, 1 when they share no bin."""
    return float(np.abs(a - b).sum()) / 2


def colour_histograms(clip: ClipIndex) -> Iterator[tuple[float, Float[np.ndarray, "512"]]]:
    """(seconds, histogram) of every frame: the fractions of 8 x 8 x 8 RGB colours in an image of 64 x 48 pixels."""
    from av.video.reformatter import VideoReformatter

    scale = VideoReformatter()  # one for all frames, because `frame.reformat` would set up a new one each time
    for timestamp, frame in decode_frames(clip):
        with as_media_error(clip.path):
            colours = rgb_pixels(frame, scale, width=64, height=48).astype(np.int32) >> 5
        codes = (colours[..., 0] << 6) | (colours[..., 1] << 3) | colours[..., 2]
        yield clip.to_seconds(timestamp), np.bincount(codes.ravel(), minlength=512) / codes.size
