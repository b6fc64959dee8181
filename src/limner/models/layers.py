"""Layers that several captioners share: masked softmax and maximum, the word head, additive attention."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from limner.core.types import BOS, PAD
from limner.models.packed_linear import PackedWeight

ACTIVATIONS = {
    "tanh": torch.tanh_,
    "relu": torch.relu_,
}  # in place: their input (B, K, N, A) is the largest tensor of a step


def masked_softmax(scores: Float[Tensor, "*B N"], mask: Bool[Tensor, "*b N"]) -> Float[Tensor, "*B N"]:
    """Softmax over the positions where `mask` is True; all zeros where there is none (an image without regions)."""
    hidden = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return hidden.softmax(-1).masked_fill(~mask, 0.0)


class WordHead(nn.Linear):
    """Linear layer from hidden states to logits of the vocabulary.

    PAD and BOS score -inf, unless `mask_special_tokens` is False (converted models whose softmax includes them).
    `never` (V,) marks the words that score -inf.
    """

    never: Tensor

    def __init__(self, dim: int, vocabulary_size: int, mask_special_tokens: bool = True):
        super().__init__(dim, vocabulary_size)
        never = torch.zeros(vocabulary_size, dtype=torch.bool)
        never[[PAD, BOS]] = mask_special_tokens
        self.register_buffer("never", never, persistent=False)
        self._packed = PackedWeight()

    def forward(self, x: Float[Tensor, "*B H"]) -> Float[Tensor, "*B V"]:
        return self._packed.multiply(self.weight, self.bias.masked_fill(self.never, -torch.inf), x)


def masked_max(cells: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B D"]:
    """Maximum of each channel over the real cells; 0 where there is none."""
    if not cells.shape[1]:
        return cells.sum(1)
    highest = cells.masked_fill(~mask[..., None], -torch.inf).amax(1)
    return highest.masked_fill(~mask.any(1, keepdim=True), 0.0)


class AdditiveAttention(nn.Module):
    """Additive attention: score = w . f(Wq q + Wk k), where f is tanh or ReLU.

    With tanh it is that of Bahdanau et al. 2015 (arXiv:1409.0473, A.1.2).

    `keys` = Wk k is computed once per medium.  Each row of keys belongs to K neighbouring rows of queries, or row i to
    `counts[i]` rows.
    """

    def __init__(self, query_dim: int, key_dim: int, dim: int, activation: str = "tanh"):
        super().__init__()
        self.query = nn.Linear(query_dim, dim)
        self.key = nn.Linear(key_dim, dim)
        self.score = nn.Linear(dim, 1)
        self.activation = ACTIVATIONS[activation]

    def forward(
        self,
        query: Float[Tensor, "R Q"],
        values: Float[Tensor, "B N D"],
        keys: Float[Tensor, "B N A"],
        mask: Bool[Tensor, "B N"],
        counts: list[int] | None = None,
    ) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R N"]]:
        """-> context (R, D) and attention weights (R, N); `keys` must be `self.key(values)`."""
        return self.weigh(self.query(query), values, keys, mask, counts)

    def weigh(
        self,
        query: Float[Tensor, "R A"],
        values: Float[Tensor, "B N D"],
        keys: Float[Tensor, "B N A"],
        mask: Bool[Tensor, "B N"],
        counts: list[int] | None = None,
    ) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R N"]]:
        """As `forward`, for queries that are Wq q already."""
        if counts is not None or (keys.device.type == "cpu" and not torch.is_grad_enabled()):
            # one medium at a time: its (K, N, A) numbers fit the cache, those of a batch do not
            counts = counts or [len(query) // len(keys)] * len(keys)
            pairs = zip(query.unsqueeze(1).split(counts), keys, strict=True)
            scores = torch.cat([self.score(self.activation(q + k)).squeeze(-1) for q, k in pairs])  # (R, N)
            real = mask.repeat_interleave(torch.tensor(counts, device=mask.device), 0)
            weights = masked_softmax(scores, real)
            parts = zip(weights.to(values.dtype).split(counts), values, strict=True)
            return torch.cat([part @ value for part, value in parts]), weights
        beams = query.view(len(keys), -1, 1, keys.shape[-1])  # (B, K, 1, A)
        scores = self.score(self.activation(beams + keys.unsqueeze(1))).squeeze(-1)  # (B, K, N)
        weights = masked_softmax(scores, mask.unsqueeze(1))
        context = torch.bmm(weights.to(values.dtype), values)
        return context.flatten(0, 1), weights.flatten(0, 1)
