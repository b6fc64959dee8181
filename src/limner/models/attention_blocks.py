"""Parts of transformers: norms, feed-forward, positions of words, and attention of queries over what their row knows.

Every attention here has the same two verbs: `project(cells)` gives what is computed once per row, a `Known`, and
`forward(queries, known, mask)` reads it with any number of queries.
"""

from math import log
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.models.layers import masked_softmax

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class Known(NamedTuple):
    """What attention reads of N cells or words."""

    key: Float[Tensor, "B N D"]
    value: Float[Tensor, "B N D"]


class RMSNorm(nn.Module):
    """x / (root mean square + 1e-8) * scale (Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        # not the root of a mean of squares: that has no gradient at 0, which is what dropout makes of a cell
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return x / (root + 1e-8) * self.weight


class UnbiasedNorm(nn.Module):
    """As in "The Annotated Transformer" and all that descends from it: the deviation divides by D - 1, and the 1e-6
    stand outside the root."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        centred = x - x.mean(-1, keepdim=True)
        return self.weight * centred / (x.std(-1, keepdim=True) + 1e-6) + self.bias


NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "rms": RMSNorm, "unbiased": UnbiasedNorm}


class FeedForward(nn.Sequential):
    def __init__(self, dim: int, hidden: int, activation: str, dropout: float):
        super().__init__(nn.Linear(dim, hidden), ACTIVATIONS[activation](), nn.Dropout(dropout), nn.Linear(hidden, dim))


class DotProduct(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query, self.value, self.output = (nn.Linear(dim, dim) for _ in range(3))
        self.key = nn.Linear(dim, dim, bias=False)  # a bias would add the same to all logits of a query
        self.dropout = nn.Dropout(dropout)

    def project(self, cells: Float[Tensor, "B N D"]) -> Known:
        return Known(self.key(cells), self.value(cells))

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        known: Known,
        mask: Bool[Tensor, "#B #Q N"],
        bias: Float[Tensor, "#B H Q N"] | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B Q N"]]:
        """-> what was read, and the weights, their mean over the heads.  `bias` is added to the logits."""
        query, key, value = (split_heads(x, self.heads) for x in (self.query(queries), *known))
        scores = query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5
        scores = scores if bias is None else scores + bias
        weights = masked_softmax(scores, mask[:, None])
        read = self.dropout(weights).to(value.dtype) @ value
        return self.output(read.transpose(1, 2).flatten(2)), weights.mean(1)


def split_heads(x: Float[Tensor, "B N D"], heads: int) -> Float[Tensor, "B H N d"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def sinusoids(place: Int[Tensor, " L"], dim: int) -> Float[Tensor, "L D"]:
    """sin at even, cos at odd channels (Vaswani et al. 2017, section 3.5); `dim` is even."""
    frequency = torch.exp(torch.arange(0, dim, 2, device=place.device) * (-log(10000.0) / dim))
    angle = place[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
