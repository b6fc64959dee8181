"""Which frames of a clip, or rows of a feature file, a model gets to see."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from limner.core.fields import PositiveInt


@dataclass(frozen=True)
class Sampling:
    """A policy.  F is the number of frames asked for.

    uniform: spread evenly over the clip; head, tail: the first or last F, one after the other; random: one drawn from
    each of F equal parts, anew in every epoch, and outside of training its middle; every: numbers 0, stride,
    2 * stride, ... of the clip, at most F of them, so that short clips have fewer.  The other policies show a frame of
    a clip several times when it has less than F; a feature file's rows are padded instead.
    """

    policy: Literal["uniform", "head", "tail", "random", "every"] = "uniform"  # which frames; see above
    stride: PositiveInt = 5  # every; SA-LSTM's extractor took every fifth frame


UNIFORM = Sampling()


def shares(frames: int, draw: int | None = None) -> list[Fraction]:
    """Places in [0, 1): the middles of `frames` equal parts, or with a seed a place drawn from each part."""
    if draw is None:
        return [Fraction(2 * k + 1, 2 * frames) for k in range(frames)]
    drawn = random.Random(draw)
    return [(k + Fraction(drawn.randrange(1 << 20), 1 << 20)) / frames for k in range(frames)]


def picks(count: int, frames: int, sampling: Sampling = UNIFORM, draw: int | None = None) -> Sequence[int]:
    """The numbers of at most `frames` of `count` rows, ascending, without repeats.

    Uniform is linspace(0, count - 1, frames), truncated: the first and last row are always there.
    """
    if sampling.policy == "every":
        return range(0, count, sampling.stride)[:frames]
    if count <= frames:
        return range(count)
    if sampling.policy == "head":
        return range(frames)
    if sampling.policy == "tail":
        return range(count - frames, count)
    if sampling.policy == "random":
        edges = [count * k // frames for k in range(frames + 1)]
        inside = [share * frames - k for k, share in enumerate(shares(frames, draw))]
        return [a + int((b - a) * place) for a, b, place in zip(edges, edges[1:], inside, strict=False)]
    return [k * (count - 1) // max(1, frames - 1) for k in range(frames)]
