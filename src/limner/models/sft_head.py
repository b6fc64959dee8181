"""The caption head of SFTCap: a prefix language model (UniLM, arXiv:1905.03197) over frames and words.

The visual tokens are the frames and then the global vector.  They attend to each other; a word attends to them and to
the words up to itself.  Visual tokens do not depend on the words, so they pass through the layers once per clip.  Keys
and values of every layer are cached, for visual tokens (`Memory`) and for the words so far (`WordCache`).
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.types import UNK
from limner.models.layers import WordHead, masked_softmax
from limner.models.packed_linear import SmallBatchLinear
from limner.models.sft_network import frame_positions, input_projection, layer_norm, sinusoidal_encoding

GLOBAL_TYPE, FRAME_TYPE, WORD_TYPE = 0, 1, 2  # token types


class Memory(NamedTuple):
    """Keys and values of the M = N + 1 visual tokens, the global vector last, for every layer; c channels per head."""

    keys: tuple[Float[Tensor, "B heads M c"], ...]
    values: tuple[Float[Tensor, "B heads M c"], ...]
    mask: Bool[Tensor, "B M"]
    start: Int[Tensor, " B"]  # position of the first word


class WordCache(NamedTuple):
    """Keys and values of the t words so far, for every layer.  Later words attend to the `visible` ones only."""

    keys: tuple[Float[Tensor, "R heads t c"], ...]
    values: tuple[Float[Tensor, "R heads t c"], ...]
    visible: Bool[Tensor, "R t"]


class Block(nn.Module):
    """A post-norm transformer layer whose feed-forward part is as wide as its input."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.query, self.key, self.value = (SmallBatchLinear(width, width) for _ in range(3))
        self.out, self.norm = SmallBatchLinear(width, width), layer_norm(width)
        self.up, self.down, self.down_norm = (
            SmallBatchLinear(width, width),
            SmallBatchLinear(width, width),
            layer_norm(width),
        )
        self.dropout = nn.Dropout(dropout)

    def after_attention(self, x: Float[Tensor, "B L h"], context: Float[Tensor, "B L h"]) -> Float[Tensor, "B L h"]:
        """What follows the attention: output layer, residual, feed-forward."""
        x = self.norm(self.dropout(self.out(context)) + x)
        return self.down_norm(self.dropout(self.down(F.gelu(self.up(x)))) + x)


class SftHead(nn.Module):
    """The caption head; `words` is its word layer, `dense` and `dense_norm` the transform before it (as in BERT)."""

    def __init__(
        self,
        vocabulary_size: int,
        feature_dim: int,
        embed: int,
        hidden: int,
        layers: int,
        heads: int,
        dropout: float,
        mask_special_tokens: bool,
        unknown: bool,
    ):
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocabulary_size, embed)
        self.read_words = input_projection(embed, hidden, dropout)
        self.read_frames = input_projection(feature_dim, hidden, dropout)
        self.kinds = nn.Embedding(3, hidden)
        self.norm, self.dropout = layer_norm(hidden), nn.Dropout(dropout)
        self.blocks: Any = nn.ModuleList(Block(hidden, dropout) for _ in range(layers))
        self.dense, self.dense_norm = SmallBatchLinear(hidden, hidden), layer_norm(hidden)
        self.words = WordHead(hidden, vocabulary_size, mask_special_tokens)
        self.words.never[UNK] = not unknown
        for weight in (self.embed.weight, self.kinds.weight, self.words.weight):
            nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(self.words.bias)

    def encode_visual(
        self, grid: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], vector: Float[Tensor, "B D"]
    ) -> Memory:
        """Compute the memory: everything that does not depend on the words.

        Positions count real frames only, so padding changes neither the global vector's position nor those of words.
        """
        x = self.read_frames(torch.cat([grid, vector[:, None]], 1))
        count = mask.sum(1)
        real = F.pad(mask, (0, 1), value=True)
        kind = torch.tensor([FRAME_TYPE] * mask.shape[1] + [GLOBAL_TYPE], device=mask.device)
        x = self._add_type_and_position(x, kind, torch.cat([frame_positions(mask), count[:, None]], 1))
        keys, values = [], []
        for number, block in enumerate(self.blocks):
            keys.append(self._split(block.key(x)).contiguous())
            values.append(self._split(block.value(x)).contiguous())
            if number + 1 < len(self.blocks):
                q = self._split(block.query(x))
                context = F.scaled_dot_product_attention(
                    q, keys[-1], values[-1], real[:, None, None], self._attention_dropout
                )
                x = block.after_attention(x, context.transpose(1, 2).flatten(2))
        return Memory(tuple(keys), tuple(values), real, count + 1)

    def empty_cache(self, memory: Memory, captions: int = 1) -> WordCache:
        """A cache without words, `captions` rows for each clip."""
        empty = memory.keys[0][:, :, :0].repeat_interleave(captions, 0)
        layers = (empty,) * len(memory.keys)
        return WordCache(layers, layers, memory.mask[:, :0].repeat_interleave(captions, 0))

    def decode_words(
        self, tokens: Int[Tensor, "R L"], visible: Bool[Tensor, "R L"], cache: WordCache, memory: Memory
    ) -> tuple[Float[Tensor, "R L h"], Float[Tensor, "R L N"], WordCache]:
        """Read L more words, K neighbouring rows per clip.

        -> the vectors from which the next words are predicted, the last layer's attention among the frames (mean of
        its heads), and the cache with these words.
        """
        before, length = cache.visible.shape[1], tokens.shape[1]
        start = memory.start.repeat_interleave(len(tokens) // len(memory.start), 0)
        position = start[:, None] + torch.arange(before, before + length, device=start.device)
        x = self._add_type_and_position(
            self.read_words(self.embed(tokens)), torch.full_like(tokens[0], WORD_TYPE), position
        )
        visible = torch.cat([cache.visible, visible], 1)
        causal = torch.ones(length, before + length, dtype=torch.bool, device=x.device).tril(before)
        keys, values = [], []
        for number, block in enumerate(self.blocks):
            keys.append(torch.cat([cache.keys[number], self._split(block.key(x))], 2))
            values.append(torch.cat([cache.values[number], self._split(block.value(x))], 2))
            own = (keys[-1], values[-1], causal & visible[:, None])
            visual = (memory.keys[number], memory.values[number], memory.mask)
            context, scores = self._attend(block.query(x), visual, own)
            x = block.after_attention(x, context)
        frames = memory.mask[:, :-1].repeat_interleave(len(tokens) // len(memory.mask), 0)
        # the global vector has no place in the clip, so its weight is left out
        attention = masked_softmax(scores[..., :-1], frames[:, None, None]).mean(1)
        hidden = self.dense_norm(F.gelu(self.dense(x)))
        return hidden, attention, WordCache(tuple(keys), tuple(values), visible)

    def transform(self, semantics: Float[Tensor, "*B h"]) -> Float[Tensor, "*B h"]:
        """The hidden state from which `words` predicts the name of an object or action, given its semantics."""
        return self.dense_norm(F.gelu(self.dense(semantics)))

    def token_nll(
        self, hidden: Float[Tensor, "M h"], targets: Int[Tensor, " M"], epsilon: float
    ) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
        """-> label-smoothed loss and -log p of each target, defined as in `cross_entropy.smoothed_cross_entropy`.

        The (M, V) tensor of logits is read once, by cross entropy; the term of the n - 1 other allowed words needs no
        second pass.  With logits s_v = x . W_v + b_v and log Z = logsumexp(s), the sum of -log p over all n allowed
        words is n log Z - sum_v s_v.  Here

            log Z     = -log p(target) + s_target
            sum_v s_v = x . (sum_v W_v) + sum_v b_v         one product with the sum of the word matrix

        Example with n = 3 words, s = (2, 1, 0), target 0, epsilon = 0.1:

            log Z = 2.4076,   -log p(target) = 2.4076 - 2 = 0.4076
            others: n log Z - sum s - 0.4076 = 7.2228 - 3 - 0.4076 = 3.8152   (1.4076 + 2.4076)
            smoothed: 0.9 * 0.4076 + 0.1 / 2 * 3.8152 = 0.5576
        """
        nll = F.cross_entropy(self.words(hidden).float(), targets, reduction="none")
        if epsilon == 0:
            return nll, nll.detach()
        allowed = ~self.words.never
        count = int(allowed.sum())
        with torch.autocast(hidden.device.type, enabled=False):
            rows, weight, bias = hidden.float(), self.words.weight, self.words.bias
            target = (rows * weight[targets]).sum(-1) + bias[targets]
            total = rows @ (allowed.to(weight.dtype) @ weight) + (bias * allowed).sum()
        rest = count * (nll + target) - total - nll
        return (1 - epsilon) * nll + epsilon * rest / (count - 1), nll.detach()

    def _add_type_and_position(
        self, x: Float[Tensor, "B L h"], kind: Int[Tensor, " L"], position: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L h"]:
        return self.dropout(self.norm(x + sinusoidal_encoding(position, x.shape[-1]).to(x.dtype) + self.kinds(kind)))

    @property
    def _attention_dropout(self) -> float:
        return self.dropout.p if self.training else 0.0

    def _split(self, x: Float[Tensor, "B L h"]) -> Float[Tensor, "B heads L c"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend(
        self, query: Float[Tensor, "R L h"], visual: tuple[Tensor, Tensor, Tensor], own: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Float[Tensor, "R L h"], Float[Tensor, "R heads L M"]]:
        """Attention of words to the clip's visual tokens, which K rows share, and to the words of their own row.

        `visual` and `own` are (keys, values, mask).  -> outputs, and the scores of the visual tokens.
        """
        keys, values, mask = visual
        q = self._split(query * (query.shape[-1] // self.heads) ** -0.5)  # (R, heads, L, c)
        media, count = len(keys), keys.shape[2]
        shared = q.unflatten(0, (media, -1)).transpose(1, 2).flatten(2, 3)  # (B, heads, K L, c)
        scores = shared @ keys.transpose(-1, -2)
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        scores = scores.unflatten(2, (-1, q.shape[2])).transpose(1, 2).flatten(0, 1)  # (R, heads, L, M)
        inner = (q @ own[0].transpose(-1, -2)).masked_fill(~own[2][:, None], -torch.inf)
        weights = F.dropout(torch.cat([scores, inner], -1).softmax(-1), self._attention_dropout)
        outer, inner = weights.split([count, weights.shape[-1] - count], -1)
        outer = outer.unflatten(0, (media, -1)).transpose(1, 2).flatten(2, 3) @ values
        outer = outer.unflatten(2, (-1, q.shape[2])).transpose(1, 2).flatten(0, 1)
        context = outer + inner @ own[1]
        return context.transpose(1, 2).flatten(2), scores
