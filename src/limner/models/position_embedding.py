"""Where and when a cell lies, as numbers that a network can read: its centre, and waves over it."""

from dataclasses import replace
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limner.core.types import Features

WAVES = 4  # half a wave over the clip or the picture, one, two and four waves


def places(features: Features) -> Float[Tensor, "B N 3"]:
    """The centre of every cell: share of the clip's real frames that has passed, y, x; in [0, 1] but for padding."""
    t, h, w = features.layout
    frame = torch.arange(t, device=features.device).repeat_interleave(h * w)
    length = (frame * features.mask).amax(1, keepdim=True) + 1
    x0, y0, x1, y1 = features.boxes.unbind(-1)
    return torch.stack([(frame + 0.5) / length, (y0 + y1) / 2, (x0 + x1) / 2], -1)


def waves(place: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N F"]:
    """sin and cos of 2^k pi p for k = 0 .. WAVES - 1, as positions are told to NeRF (arXiv:2003.08934, eq. 4)."""
    angles = (place[..., None] * (pi * 2 ** torch.arange(WAVES, device=place.device))).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


class Places(nn.Linear):
    """Cells are told when and where they are: a linear map of `waves(places)` is added to them."""

    def __init__(self, dim: int) -> None:
        super().__init__(3 * 2 * WAVES, dim, bias=False)

    def tell(self, features: Features) -> Features:
        if not features.grid.shape[1]:  # no cells, no last frame
            return features
        return replace(features, grid=features.grid + self(waves(places(features)).to(features.grid.dtype)))
