"""Geometric attention of the Object Relation Transformer (Herdade et al. 2019, arXiv:1906.05963).

Attention weights are proportional to w_mn exp(q_m . k_n / sqrt(d)), where w_mn = relu(a linear function of 64 Fourier
features of the displacement between boxes m and n), for each head.  In logits this adds log max(w_mn, 1e-6).

The displacement holds log(w_m / w_n) and log(h_m / h_n), as in the published code.  The paper has the inverse ratios,
log(w_n / w_m) and log(h_n / h_m).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

FREQUENCIES = 8  # per number of the displacement; 4 numbers x 8 frequencies x (sine, cosine) = 64 features


def pairwise_geometry(boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N N 4"]:
    """The displacement of boxes m (rows) and n: log(|dx| / w_m), log(|dy| / h_m), log(w_m / w_n), log(h_m / h_n).

    dx and dy are the differences of the centres; |dx| / w_m and |dy| / h_m are at least 1e-3.  Boxes are relative
    x0, y0, x1, y1, and yet the sides w and h are max - min + 1, as if they were in pixels: as published.  Boxes are
    clipped to the image and sides are at least 1, so every box gives finite numbers.

    For two boxes of w 1.5 and 1.25 whose centres are 0.5 apart, log(0.5 / 1.5) and log(1.5 / 1.25):

    >>> boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.625, 0.0, 0.875, 1.0]]])
    >>> [round(value, 3) for value in pairwise_geometry(boxes)[0, 0, 1].tolist()]
    [-1.099, -6.908, 0.182, 0.0]
    """
    x0, y0, x1, y1 = boxes.clamp(0, 1).unbind(-1)
    w, h = (x1 - x0).clamp(min=0) + 1, (y1 - y0).clamp(min=0) + 1
    displacement = []
    for low, high, extent in ((x0, x1, w), (y0, y1, h)):
        centre = (low + high) * 0.5
        distance = (centre.unsqueeze(2) - centre.unsqueeze(1)).abs()
        displacement.append((distance / extent.unsqueeze(2)).clamp(min=1e-3).log())
    ratios = [(extent.unsqueeze(2) / extent.unsqueeze(1)).log() for extent in (w, h)]
    return torch.stack([*displacement, *ratios], -1)


def box_fourier_features(relation: Float[Tensor, "B N N 4"]) -> Float[Tensor, "B N N 64"]:
    """sin and cos of 100 x / 1000^(i / 8), i = 0 .. 7, for each of the four numbers x: 32 sines, then 32 cosines."""
    frequency = 1.0 / 1000 ** (torch.arange(FREQUENCIES, device=relation.device) / FREQUENCIES)
    angle = ((100.0 * relation).unsqueeze(-1) * frequency).flatten(-2)
    return torch.cat([angle.sin(), angle.cos()], -1)


class GeometryBias(nn.Linear):
    """The bias log max(w_mn, 1e-6) of the attention scores, for each head."""

    def __init__(self, heads: int):
        super().__init__(8 * FREQUENCIES, heads)

    def forward(self, features: Float[Tensor, "B N N 64"]) -> Float[Tensor, "B H N N"]:
        return torch.relu(super().forward(features)).clamp(min=1e-6).log().permute(0, 3, 1, 2)
