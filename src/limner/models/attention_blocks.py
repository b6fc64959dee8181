"""Parts of transformers: normalisation, feed-forward layers, word positions and dot-product attention.

Every attention has two methods.  `project(cells)` computes keys and values once per row; `forward(queries, key_value,
mask)` attends to them with any number of queries.
"""

from math import log
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.models.layers import masked_softmax
from limner.models.packed_linear import SmallBatchLinear

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class KeyValue(NamedTuple):
    """Keys and values of N cells or words, all heads side by side in D channels."""

    key: Float[Tensor, "B N D"]
    value: Float[Tensor, "B N D"]


class RMSNorm(nn.Module):
    """Root mean square normalisation x / (RMS(x) + 1e-8) * scale (Zhang, Sennrich 2019, arXiv:1910.07467, eq. 4)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        # vector_norm has a gradient at 0, where dropout can put a cell; the root of a mean of squares has none
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return x / (root + 1e-8) * self.weight


class UnbiasedNorm(nn.Module):
    """Layer normalisation as in "The Annotated Transformer" and the code that follows it.

    The standard deviation divides by D - 1, and 1e-6 is added outside the root.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            centred = x - x.mean(-1, keepdim=True)
            return self.weight * centred / (x.std(-1, keepdim=True) + 1e-6) + self.bias
        # torch's norm divides by s_D, the deviation that divides by D; here s = s_D (D / (D - 1)) ** .5, and
        # s_D / (s + 1e-6) = 1 / ((D / (D - 1)) ** .5 + 1e-6 / s_D): a quarter of the passes over a step's rows
        normed, _, inverse = torch.native_layer_norm(x, x.shape[-1:], None, None, 1e-30)
        share = 1 / ((x.shape[-1] / (x.shape[-1] - 1)) ** 0.5 + 1e-6 * inverse)
        return torch.addcmul(self.bias, self.weight, normed.mul_(share.to(x.dtype)))


NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "rms": RMSNorm, "unbiased": UnbiasedNorm}


class FeedForward(nn.Sequential):
    """Linear, activation, dropout, linear (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, dim: int, hidden: int, activation: str, dropout: float):
        layers = SmallBatchLinear(dim, hidden), SmallBatchLinear(hidden, dim)
        super().__init__(layers[0], ACTIVATIONS[activation](), nn.Dropout(dropout), layers[1])
        self.fuses_relu = activation == "relu"

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        if self.training or torch.is_grad_enabled() or not self.fuses_relu or type(self[0]) is not SmallBatchLinear:
            return cast(Tensor, super().forward(x))
        hidden = self[0]._packed.multiply(self[0].weight, self[0].bias, x, relu=True)
        return cast(Tensor, self[3](hidden))


class DotProduct(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query, self.value, self.output = (SmallBatchLinear(dim, dim) for _ in range(3))
        self.key = SmallBatchLinear(dim, dim, bias=False)  # a bias would add the same to all logits of a query
        self.dropout = nn.Dropout(dropout)

    def project(self, cells: Float[Tensor, "B N D"]) -> KeyValue:
        """Keys and values of the cells, computed once for all queries."""
        return KeyValue(self.key(cells), self.value(cells))

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        key_value: KeyValue,
        mask: Bool[Tensor, "#B #Q N"],
        bias: Float[Tensor, "#B H Q N"] | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B Q N"]]:
        """-> outputs, and attention weights averaged over the heads.  `bias` is added to the scores."""
        key, value = (split_heads(x, self.heads) for x in key_value)
        output, weights = self.attend_split(queries, key, value, mask, bias)
        return output, weights.mean(1)

    def attend_split(
        self,
        queries: Float[Tensor, "B Q D"],
        key: Float[Tensor, "B H N d"],
        value: Float[Tensor, "B H N d"],
        mask: Bool[Tensor, "#B #Q N"] | None,
        bias: Float[Tensor, "#B H Q N"] | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q N"]]:
        """`forward` for keys and values whose heads are split -> outputs, and the weights of every head.

        `mask` None: every query sees all cells.
        """
        scores = split_heads(self.query(queries), self.heads) @ key.transpose(-1, -2) / key.shape[-1] ** 0.5
        scores = scores if bias is None else scores + bias
        weights = scores.softmax(-1) if mask is None else masked_softmax(scores, mask[:, None])
        context = self.dropout(weights).to(value.dtype) @ value
        return self.output(context.transpose(1, 2).flatten(2)), weights


def channels_first_in_memory(x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """The same numbers, laid out channel by channel: products of heads with them then need no copy of them."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def split_heads(x: Float[Tensor, "B N D"], heads: int) -> Float[Tensor, "B H N d"]:
    """Split D = H * d channels into H heads."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def sinusoidal_table(position: Int[Tensor, " L"], dim: int) -> Float[Tensor, "L D"]:
    """Sinusoidal position encoding: sine in even, cosine in odd channels (Vaswani et al. 2017, section 3.5).

    `dim` must be even.

    >>> sinusoidal_table(torch.tensor([0]), 4).tolist()
    [[0.0, 1.0, 0.0, 1.0]]
    """
    frequency = torch.exp(torch.arange(0, dim, 2, device=position.device) * (-log(10000.0) / dim))
    angle = position[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
