"""A clip for a captioner of images: every frame is a medium of its own."""

from torch import Tensor

from limner.core.types import Features, Layout, Pixels
from limner.decode.ensemble import EnsembleInputs, Inputs


def frame_count(inputs: Inputs) -> int:
    """Number of frames T of each medium; for an ensemble that of its first member."""
    if isinstance(inputs, EnsembleInputs):
        return frame_count(inputs.parts[0])
    return inputs.frames.shape[1] if isinstance(inputs, Pixels) else inputs.layout.t


def frames_apart(inputs: Inputs) -> Inputs:
    """The frames of B media as B * T media of one frame each; those of a medium are neighbours, in their order.

    >>> import torch
    >>> frames_apart(Pixels(torch.zeros(2, 3, 3, 8, 8))).frames.shape
    torch.Size([6, 1, 3, 8, 8])
    """
    if isinstance(inputs, EnsembleInputs):
        return EnsembleInputs(tuple(_apart(part) for part in inputs.parts))
    return _apart(inputs)


def select_frame(inputs: Inputs, frame: int) -> Inputs:
    """One frame of each of the B media, as B media."""
    count = frame_count(inputs)
    apart = frames_apart(inputs)
    if isinstance(apart, EnsembleInputs):
        return EnsembleInputs(tuple(part.map(lambda x: x[frame::count]) for part in apart.parts))
    return apart.map(lambda x: x[frame::count])


def _apart(inputs: Features | Pixels) -> Features | Pixels:
    if isinstance(inputs, Pixels):
        return Pixels(inputs.frames.flatten(0, 1)[:, None])
    t, h, w = inputs.layout

    def split(x: Tensor) -> Tensor:
        return x.reshape(len(x) * t, h * w, *x.shape[2:])

    regions = None if inputs.regions is None else split(inputs.regions)
    return Features(split(inputs.grid), split(inputs.mask), Layout(1, h, w), regions)
