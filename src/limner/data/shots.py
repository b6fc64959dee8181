"""Splitting of long clips into segments: shots, which are detected by colour, or windows of equal length."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import ceil
from typing import Any

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
    detector = ShotDetector(threshold)
    for second, histogram in frames:
        if (boundary := detector.update(second, histogram)) is not None:
            yield boundary
    if detector.suspected is not None:
        yield detector.suspected


class ShotDetector:
    """Finds the boundaries of shots in frames that come one by one.

    slow      changes are also seen against the beginning of the shot, so that a pan, a dissolve or somebody who walks
              in front of a camera begins a new one
    shortest  seconds that a shot must last before the next one may begin

    >>> red, blue = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> detector = ShotDetector()
    >>> [detector.update(second, colours) for second, colours in [(0.0, red), (0.5, blue), (1.0, blue)]]
    [None, None, 0.5]
    """

    def __init__(self, threshold: float = THRESHOLD, slow: bool = False, shortest: float = 0.0):
        self.threshold, self.slow, self.shortest = threshold, slow, shortest
        self.suspected: float | None = None  # when a change came that may still be a flash
        self._before = self._first = self._previous = np.zeros(0)  # histograms before the change, and of this shot
        self._begin: float | None = None  # when this shot was known to have begun

    def update(self, second: float, histogram: Float[np.ndarray, " bins"]) -> float | None:
        """Take the next frame -> the time at which a new shot began, when this frame makes that certain."""
        boundary = None
        if self._begin is None:
            self._begin, self._first = second, histogram
        elif self.suspected is not None:
            if histogram_distance(self._before, histogram) <= self.threshold:
                self.suspected = None
            elif second - self.suspected >= FLASH and second - self._begin >= self.shortest:
                boundary, self.suspected = self.suspected, None
                self._begin, self._first = second, histogram
        elif histogram_distance(self._previous, histogram) > self.threshold:
            self.suspected, self._before = second, self._previous
        elif self.slow and histogram_distance(self._first, histogram) > self.threshold:
            self.suspected, self._before = second, self._first
        self._previous = histogram
        return boundary


def histogram_distance(a: Float[np.ndarray, " bins"], b: Float[np.ndarray, " bins"]) -> float:
    """Half the L1 distance of two normalised histograms: 0 when they are equal, 1 when they share no bin."""
    return float(np.abs(a - b).sum()) / 2


def colour_histograms(clip: ClipIndex) -> Iterator[tuple[float, Float[np.ndarray, "512"]]]:
    """(seconds, colour histogram) of every frame of a clip."""
    from av.video.reformatter import VideoReformatter

    scale = VideoReformatter()  # one for all frames, because `frame.reformat` would set up a new one each time
    for timestamp, frame in decode_frames(clip):
        with as_media_error(clip.path):
            histogram = colour_histogram(frame, scale)
        yield clip.to_seconds(timestamp), histogram


def colour_histogram(frame: Any, scale: Any) -> Float[np.ndarray, "512"]:
    """The fractions of 8 x 8 x 8 RGB colours in a PyAV frame, which `scale` reduces to 64 x 48 pixels."""
    colours = rgb_pixels(frame, scale, width=64, height=48).astype(np.int32) >> 5
    codes = (colours[..., 0] << 6) | (colours[..., 1] << 3) | colours[..., 2]
    return np.bincount(codes.ravel(), minlength=512) / codes.size
