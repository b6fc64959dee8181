"""Frame sampling: how many frames of a clip, or rows of a feature file, a model reads, and which ones."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from limner.core.fields import PositiveInt

Policy = Literal["uniform", "head", "tail", "random", "every"]


@dataclass(frozen=True)
class FrameSampling:
    """How many frames of a clip are read, and by which policy they are chosen.

    uniform  the frames in the middles of `frames` equal parts of the clip
    head     the first `frames` frames
    tail     the last `frames` frames
    random   one random frame from each of `frames` equal parts; training draws again in every epoch, and elsewhere the
             middle of each part is taken
    every    frames 0, stride, 2 * stride, ..., at most `frames` of them, and fewer in a short clip

    When a clip has fewer than `frames` frames, all policies but "every" repeat frames.  Rows of a feature file are
    never repeated: fewer rows are returned, and the caller pads them.  Raises ValueError when `frames` is below 1.
    """

    frames: int = 8
    policy: Policy = "uniform"
    stride: int = 5

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames is {self.frames}; it must be at least 1")


@dataclass(frozen=True)
class SamplingConfig:
    """The recipe's field `sampling`: the policy of a `FrameSampling`; the number of frames is the field `frames`."""

    policy: Policy = "uniform"  # which frames; see `FrameSampling`
    stride: PositiveInt = 5  # for policy "every"; the extractor of SA-LSTM took every fifth frame

    def with_frames(self, frames: int) -> FrameSampling:
        """This policy for a number of frames."""
        return FrameSampling(frames, self.policy, self.stride)


def sample_positions(count: int, seed: int | None = None) -> list[Fraction]:
    """One position in [0, 1) from each of `count` equal parts: its middle, or with a seed a random one.

    >>> sample_positions(2)
    [Fraction(1, 4), Fraction(3, 4)]
    """
    if seed is None:
        return [Fraction(2 * k + 1, 2 * count) for k in range(count)]
    rng = random.Random(seed)
    return [(k + Fraction(rng.randrange(1 << 20), 1 << 20)) / count for k in range(count)]


def sample_indices(count: int, sampling: FrameSampling, seed: int | None = None) -> Sequence[int]:
    """Indices of the chosen rows out of `count`: ascending, without repeats, at most `sampling.frames` of them.

    Uniform is linspace(0, count - 1, frames), truncated, so the first and the last row are always chosen.  `seed` is
    for policy "random".

    >>> list(sample_indices(10, FrameSampling(4)))
    [0, 3, 6, 9]
    """
    frames = sampling.frames
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
        offsets = [position * frames - k for k, position in enumerate(sample_positions(frames, seed))]
        return [a + int((b - a) * offset) for a, b, offset in zip(edges, edges[1:], offsets, strict=False)]
    return [k * (count - 1) // max(1, frames - 1) for k in range(frames)]
