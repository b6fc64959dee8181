"""How boxes lie to each other, as a factor of attention between them (Herdade et al. 2019, arXiv:1906.05963).

Weights are proportional to w_mn exp(q_m . k_n / sqrt(d)): what is added to the logits is log max(w_mn, 1e-6), where
w_mn = relu(a linear function of 64 Fourier features of four numbers), for each head.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

FREQUENCIES = 8  # of each of the four numbers, as sines and as cosines: 64


def relations(boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N N 4"]:
    """log(|dx| / w_m), log(|dy| / h_m), log(w_m / w_n), log(h_m / h_n) of boxes m (row) and n; two >= log 1e-3.

    Boxes are relative, and yet extents are max - min + 1, as if they were pixels: as published.  Boxes are cut at the
    picture's border, and extents are at least 1, so that every box gives finite numbers.
    """
    x0, y0, x1, y1 = boxes.clamp(0, 1).unbind(-1)
    w, h = (x1 - x0).clamp(min=0) + 1, (y1 - y0).clamp(min=0) + 1
    found = []
    for low, high, extent in ((x0, x1, w), (y0, y1, h)):
        centre = (low + high) * 0.5
        apart = (centre.unsqueeze(2) - centre.unsqueeze(1)).abs()
        found.append((apart / extent.unsqueeze(2)).clamp(min=1e-3).log())
    ratios = [(extent.unsqueeze(2) / extent.unsqueeze(1)).log() for extent in (w, h)]
    return torch.stack([*found, *ratios], -1)


def box_fourier_features(relation: Float[Tensor, "B N N 4"]) -> Float[Tensor, "B N N 64"]:
    """sin and cos of 100 x / 1000^(i / 8), i = 0 .. 7: 32 sines, then 32 cosines, those of a number side by side."""
    frequency = 1.0 / 1000 ** (torch.arange(FREQUENCIES, device=relation.device) / FREQUENCIES)
    angle = ((100.0 * relation).unsqueeze(-1) * frequency).flatten(-2)
    return torch.cat([angle.sin(), angle.cos()], -1)


class GeometryBias(nn.Linear):
    """-> log max(w_mn, 1e-6) for each head."""

    def __init__(self, heads: int):
        super().__init__(8 * FREQUENCIES, heads)

    def forward(self, features: Float[Tensor, "B N N 64"]) -> Float[Tensor, "B H N N"]:
        return torch.relu(super().forward(features)).clamp(min=1e-6).log().permute(0, 3, 1, 2)
