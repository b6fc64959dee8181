"""X-linear attention (Pan et al. 2020, arXiv:2003.14080): bilinear pooling of a query with every cell.

q1 and q2 are computed from the query, k_n and v_n from cell n (each by a linear layer, CELU and a normalisation per
head).  Per head, with elementwise products *:

    m_n = relu(W (q1 * k_n))                            joint features of the query and cell n
    a_n = softmax over the real cells of w . m_n        spatial attention
    g   = sigmoid(U mean over the real cells of m_n)    channel attention
    out = g * sum_n a_n (q2 * v_n) = g * q2 * (sum_n a_n v_n)

Example with one head, two channels and two cells; W = identity, w = (1, 1), U = 0, q1 = q2 = (1, 2):

    cell   k_n       q1 * k_n   m_n      w . m_n   a_n    v_n
    1      (1, 0)    (1, 0)     (1, 0)   1         0.27   (1, 0)
    2      (2, -1)   (2, -2)    (2, 0)   2         0.73   (0, 1)

    g = sigmoid(0) = 1/2,   sum_n a_n v_n = (0.27, 0.73),   out = 1/2 * (1, 2) * (0.27, 0.73) = (0.13, 0.73)

The last form of `out` needs no (B, H, Q, N, d) tensor of values.  The tensor q1 * k_n is needed, but it is computed in
pieces that fit the cache, and in training each piece is computed again in the backward pass instead of being stored.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from limner.models.attention_blocks import KeyValue, split_heads
from limner.models.layers import masked_softmax
from limner.models.packed_linear import SmallBatchLinear

PIECE_SIZE = {"cpu": 1 << 18}  # numbers of q1 * k_n in a piece, by device: 1 MB fits the cache of a core
DEFAULT_PIECE_SIZE = 1 << 26  # on other devices


class Projection(nn.Module):
    """Linear layer, CELU, and a normalisation of every vector per head (GroupNorm with one group per head)."""

    def __init__(self, dim: int, heads: int, alpha: float):
        super().__init__()
        self.linear = SmallBatchLinear(dim, dim)
        self.heads, self.alpha = heads, alpha
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        parts = F.celu(self.linear(x), self.alpha).unflatten(-1, (self.heads, -1))
        normed = F.layer_norm(parts, parts.shape[-1:]).flatten(-2)
        if torch.is_grad_enabled():
            return normed * self.weight + self.bias
        return torch.addcmul(self.bias, normed, self.weight)  # in one pass


class XLinear(nn.Module):
    """Multi-head X-linear attention; `mid` is the width of m_n per head (None: half).  There is no output layer."""

    def __init__(self, dim: int, heads: int = 1, mid: int | None = None, alpha: float = 1.0, dropout: float = 0.0):
        super().__init__()
        mid = mid or max(1, dim // heads // 2)
        self.heads = heads
        self.query, self.key, self.query2, self.value = (Projection(dim, heads, alpha) for _ in range(4))
        self.common = nn.Linear(dim // heads, mid)
        self.spatial = nn.Linear(mid, 1, bias=False)  # a bias would add the same to all scores of a query
        self.channel = nn.Linear(mid, dim // heads)
        self.dropout = nn.Dropout(dropout)
        # q2 begins near 1, so the output is about g * sum_n a_n v_n and not that times random signs; measured in
        # docs/experiments/transformers.md
        nn.init.constant_(self.query2.weight, 0.1)
        nn.init.ones_(self.query2.bias)

    def project(self, cells: Float[Tensor, "B N D"]) -> KeyValue:
        """Keys k_n and values v_n of the cells, computed once for all queries."""
        return KeyValue(self.key(cells), self.value(cells))

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        key_value: KeyValue,
        mask: Bool[Tensor, "B #Q N"],  # noqa: F821 (a shape, not a name)
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B Q N"]]:
        """-> outputs, and attention weights averaged over the heads.

        A query sees all real cells of its medium, or no cell at all (padding of captions).  In that case its output is
        0 and it is not computed.
        """
        q1, k, q2, v = (
            split_heads(x, self.heads) for x in (self.query(queries), key_value[0], self.query2(queries), key_value[1])
        )
        scores, mean = (
            self.score_cells(q1, k, mask[:, 0]) if mask.shape[1] == 1 else self.score_visible_queries(q1, k, mask)
        )
        weights = masked_softmax(scores, mask[:, None])
        output = torch.sigmoid(self.channel(mean)) * q2 * (weights.to(v.dtype) @ v)
        return output.transpose(1, 2).flatten(2), weights.mean(1)

    def score_visible_queries(
        self, q: Float[Tensor, "B H Q d"], k: Float[Tensor, "B H N d"], mask: Bool[Tensor, "B Q N"]
    ) -> tuple[Float[Tensor, "B H Q N"], Float[Tensor, "B H Q M"]]:
        """`score_cells` for the queries that see a cell; 0 for the others."""
        alive, real = mask.any(2), mask.any(1)
        if not alive.any():  # no medium has a cell: `score_cells` handles that
            alive = torch.ones_like(alive)
        row, place = alive.nonzero(as_tuple=True)
        per_medium = q.transpose(1, 2)[row, place].split(alive.sum(1).tolist())
        results = [
            self.score_cells(part.transpose(0, 1)[None], k[i : i + 1], real[i : i + 1])
            for i, part in enumerate(per_medium)
            if len(part)
        ]
        both = []
        for width, parts in zip((k.shape[2], self.common.out_features), zip(*results, strict=True), strict=True):
            packed = torch.cat([part[0].transpose(0, 1) for part in parts])
            both.append(packed.new_zeros(*alive.shape, self.heads, width).index_put((row, place), packed))
        return both[0].transpose(1, 2), both[1].transpose(1, 2)

    def score_cells(
        self, q: Float[Tensor, "B H Q d"], k: Float[Tensor, "B H N d"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B H Q N"], Float[Tensor, "B H Q M"]]:
        """-> scores w . m_n, and the mean of m_n over the real cells; computed piece by piece."""
        if torch.compiler.is_compiling():  # a traced graph has no fixed sizes and masks
            return self._score_product(q, k, mean_weights(mask))
        if q.device.type == "cpu" and not torch.is_grad_enabled() and not self.training:
            return self._score_without_gradients(q, k, mask)
        limit = PIECE_SIZE.get(q.device.type, DEFAULT_PIECE_SIZE)
        media = max(1, limit // max(1, q[0].numel() * k.shape[2]))
        queries = max(1, limit // max(1, k[0].numel()))
        rows = []
        for some_q, some_k, real in zip(q.split(media), k.split(media), mask.split(media), strict=True):
            parts = some_q.split(queries, 2) if media == 1 else [some_q]
            results = [self._score_piece(part, some_k, real) for part in parts]
            rows.append([torch.cat(column, 2) for column in zip(*results, strict=True)])
        scores, mean = (torch.cat(column) for column in zip(*rows, strict=True))
        return scores, mean

    def _score_without_gradients(self, q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`score_cells` in evaluation on a CPU: per piece one product of q1 * k_n with W and ReLU, and two readings."""
        (B, H, Q, d), N, M = q.shape, k.shape[2], self.common.out_features
        share, score = mean_weights(mask).to(k.dtype), self.spatial.weight[0]
        complete = bool(mask.all())
        scores, mean = q.new_zeros(B, H, Q, N), q.new_empty(B, H, Q, M)
        queries = max(1, PIECE_SIZE["cpu"] // max(1, H * N * d))
        for i in range(B):
            used = slice(None) if complete else mask[i].nonzero().squeeze(1)  # padding is not computed
            keys = k[i][:, None, used]
            for first in range(0, Q, queries):
                piece = slice(first, first + queries)
                product = q[i, :, piece, None] * keys  # (H, Q, N, d)
                m = self.common(product).relu_()
                scores[i, :, piece, used] = m @ score
                mean[i, :, piece] = share[i, used] @ m
        return scores, mean

    def _score_piece(self, q: Tensor, k: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            pair: tuple[Tensor, Tensor] = checkpoint(self._score_real_cells, q, k, real, use_reentrant=False)
            return pair
        return self._score_real_cells(q, k, real)

    def _score_real_cells(self, q: Tensor, k: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        used = real.any(0)  # cells that are padding in all of these media are not computed
        used_scores, mean = self._score_product(q, k[:, :, used], mean_weights(real)[:, used])
        scores = used_scores.new_zeros(*q.shape[:3], len(used))
        scores[..., used] = used_scores
        return scores, mean

    def _score_product(self, q: Tensor, k: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        m = torch.relu(self.common(q.unsqueeze(3) * k.unsqueeze(2)))  # (B, H, Q, N, M)
        # a channel is dropped for all cells of a query at once: random numbers per cell took a third of a training step
        m = m * self.dropout(m.new_ones(*q.shape[:3], 1, m.shape[-1]))
        return self.spatial(m).squeeze(-1), torch.einsum("bhqnm,bn->bhqm", m, share.to(m.dtype))


def mean_weights(real: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """1 / (number of real cells) at the real cells, 0 elsewhere: the weights of a mean."""
    return real / real.sum(1, keepdim=True).clamp(min=1)
