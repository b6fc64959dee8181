"""X-linear attention (Pan et al. 2020, arXiv:2003.14080): queries and keys meet in products of their channels.

With q1, q2 made of the query, k_n and v_n of cell n (each linear, CELU, normalised per head), all per head:
    m_n = relu(W (q1 * k_n))                            what the query and cell n have in common
    a_n = softmax over the real cells of w . m_n        where to look
    g   = sigmoid(U mean over the real cells of m_n)    which channels to let through
    out = g * sum_n a_n (q2 * v_n) = g * q2 * (sum_n a_n v_n)
The last form needs no (B, H, Q, N, d) of values.  That of q1 * k_n is needed, but only a piece that fits the cache at a
time, and in training each piece is computed again on the way back instead of being kept.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from limner.models.attention_blocks import Known, split_heads
from limner.models.layers import masked_softmax

PIECE = {"cpu": 1 << 18}  # numbers of q1 * k_n at a time: 1 MB fits a core's cache
LARGE_PIECE = 1 << 26  # elsewhere


class Projection(nn.Module):
    """Linear, CELU, and per head a normalisation of each vector (GroupNorm with a group per head)."""

    def __init__(self, dim: int, heads: int, alpha: float):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.heads, self.alpha = heads, alpha
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        parts = F.celu(self.linear(x), self.alpha).unflatten(-1, (self.heads, -1))
        return F.layer_norm(parts, parts.shape[-1:]).flatten(-2) * self.weight + self.bias


class XLinear(nn.Module):
    """`mid`: width of m per head.  There is no output layer."""

    def __init__(self, dim: int, heads: int = 1, mid: int | None = None, alpha: float = 1.0, dropout: float = 0.0):
        super().__init__()
        mid = mid or max(1, dim // heads // 2)
        self.heads = heads
        self.query, self.key, self.query2, self.value = (Projection(dim, heads, alpha) for _ in range(4))
        self.common = nn.Linear(dim // heads, mid)
        self.spatial = nn.Linear(mid, 1, bias=False)  # which would add the same to all scores of a query
        self.channel = nn.Linear(mid, dim // heads)
        self.dropout = nn.Dropout(dropout)
        # begin near the dot product: what is read is about g * sum_n a_n v_n, not that times random signs; measured in
        # docs/experiments/transformers.md
        nn.init.constant_(self.query2.weight, 0.1)
        nn.init.ones_(self.query2.bias)

    def project(self, cells: Float[Tensor, "B N D"]) -> Known:
        return Known(self.key(cells), self.value(cells))

    def forward(
        self, queries: Float[Tensor, "B Q D"], known: Known, mask: Bool[Tensor, "B #Q N"]
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B Q N"]]:
        """-> what was read, and the weights, their mean over the heads.

        A query sees the cells of its medium, or none at all (padding of captions): then it reads 0 and costs nothing.
        """
        q1, k, q2, v = (
            split_heads(x, self.heads) for x in (self.query(queries), known[0], self.query2(queries), known[1])
        )
        scores, mean = self.meet(q1, k, mask[:, 0]) if mask.shape[1] == 1 else self.meet_some(q1, k, mask)
        weights = masked_softmax(scores, mask[:, None])
        read = torch.sigmoid(self.channel(mean)) * q2 * (weights.to(v.dtype) @ v)
        return read.transpose(1, 2).flatten(2), weights.mean(1)

    def meet_some(
        self, q: Float[Tensor, "B H Q d"], k: Float[Tensor, "B H N d"], mask: Bool[Tensor, "B Q N"]
    ) -> tuple[Float[Tensor, "B H Q N"], Float[Tensor, "B H Q M"]]:
        """`meet` of the queries that see something; 0 for the others."""
        alive, real = mask.any(2), mask.any(1)
        if not alive.any():  # media without cells only: `meet` knows what is then read
            alive = torch.ones_like(alive)
        row, place = alive.nonzero(as_tuple=True)
        each = q.transpose(1, 2)[row, place].split(alive.sum(1).tolist())
        found = [
            self.meet(mine.transpose(0, 1)[None], k[i : i + 1], real[i : i + 1])
            for i, mine in enumerate(each)
            if len(mine)
        ]
        both = []
        for width, parts in zip((k.shape[2], self.common.out_features), zip(*found, strict=True), strict=True):
            packed = torch.cat([part[0].transpose(0, 1) for part in parts])
            both.append(packed.new_zeros(*alive.shape, self.heads, width).index_put((row, place), packed))
        return both[0].transpose(1, 2), both[1].transpose(1, 2)

    def meet(
        self, q: Float[Tensor, "B H Q d"], k: Float[Tensor, "B H N d"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B H Q N"], Float[Tensor, "B H Q M"]]:
        """-> w . m_n and the mean of m_n over the real cells, piece by piece."""
        if torch.compiler.is_compiling():  # a graph knows neither sizes nor masks beforehand
            return self._common(q, k, share_of(mask))
        limit = PIECE.get(q.device.type, LARGE_PIECE)
        media = max(1, limit // max(1, q[0].numel() * k.shape[2]))
        queries = max(1, limit // max(1, k[0].numel()))
        rows = []
        for some_q, some_k, real in zip(q.split(media), k.split(media), mask.split(media), strict=True):
            parts = some_q.split(queries, 2) if media == 1 else [some_q]
            found = [self._piece(part, some_k, real) for part in parts]
            rows.append([torch.cat(column, 2) for column in zip(*found, strict=True)])
        scores, mean = (torch.cat(column) for column in zip(*rows, strict=True))
        return scores, mean

    def _piece(self, q: Tensor, k: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            pair: tuple[Tensor, Tensor] = checkpoint(self._meet, q, k, real, use_reentrant=False)
            return pair
        return self._meet(q, k, real)

    def _meet(self, q: Tensor, k: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        used = real.any(0)  # cells that are padding in all of these media are not computed
        some, mean = self._common(q, k[:, :, used], share_of(real)[:, used])
        scores = some.new_zeros(*q.shape[:3], len(used))
        scores[..., used] = some
        return scores, mean

    def _common(self, q: Tensor, k: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        m = torch.relu(self.common(q.unsqueeze(3) * k.unsqueeze(2)))  # (B, H, Q, N, M)
        # a channel is dropped for all cells of a query: random numbers for each cell took a third of a training step
        m = m * self.dropout(m.new_ones(*q.shape[:3], 1, m.shape[-1]))
        return self.spatial(m).squeeze(-1), torch.einsum("bhqnm,bn->bhqm", m, share.to(m.dtype))


def share_of(real: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Weights of a mean over the real cells; 0 where there are none."""
    return real / real.sum(1, keepdim=True).clamp(min=1)
