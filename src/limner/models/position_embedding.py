"""Position embedding of cells: a linear map of Fourier features of the cell's centre in time and space."""

from dataclasses import replace
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limner.core.types import Features

FREQUENCIES = 4  # half a period over the clip or the image, then one, two and four periods


def cell_centres(features: Features) -> Float[Tensor, "B N 3"]:
    """The centre (time, y, x) of every cell, in [0, 1].

    Time is relative to the real frames: a short clip also ends at 1, and padding frames lie beyond 1.
    """
    t, h, w = features.layout
    frame = torch.arange(t, device=features.device).repeat_interleave(h * w)
    length = (frame * features.mask).amax(1, keepdim=True) + 1
    x0, y0, x1, y1 = features.boxes.unbind(-1)
    return torch.stack([(frame + 0.5) / length, (y0 + y1) / 2, (x0 + x1) / 2], -1)


def fourier_features(centres: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N F"]:
    """sin and cos of 2^k pi p for k = 0 .. FREQUENCIES - 1 (NeRF, arXiv:2003.08934, eq. 4).

    F = 3 coordinates x 4 frequencies x 2 = 24: 12 sines, then 12 cosines, coordinate by coordinate.
    """
    angles = (centres[..., None] * (pi * 2 ** torch.arange(FREQUENCIES, device=centres.device))).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


class PositionEmbedding(nn.Linear):
    """Adds a linear map of `fourier_features(cell_centres(features))` to the cells: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__(3 * 2 * FREQUENCIES, dim, bias=False)

    def add_to(self, features: Features) -> Features:
        """The same features with the position embedding added to their channels."""
        if not features.grid.shape[1]:  # without cells there is no last frame
            return features
        added = self(fourier_features(cell_centres(features)).to(features.grid.dtype))
        return replace(features, grid=features.grid + added)
