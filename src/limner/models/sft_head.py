"""SFTCap's caption head: a prefix language model (UniLM, arXiv:1905.03197) over a clip's frames and its words.

Visual tokens, the frames and then the global vector, see each other; a word sees them and the words up to itself.
Nothing of the visual tokens depends on the words, so they go through the layers once per clip; what is kept are each
layer's keys and values, also of the words that have been read.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.types import UNK
from limner.models.layers import WordHead, masked_softmax
from limner.models.packed_linear import PackedWeight, SmallBatchLinear
from limner.models.sft_network import normed, ranks, reading, sinusoid

WHOLE, FRAME, WORD = 0, 1, 2  # token types


class Memory(NamedTuple):
    """Every layer's keys and values of the M = N + 1 visual tokens, the global vector last; `heads` of c channels."""

    keys: tuple[Float[Tensor, "B heads M c"], ...]
    values: tuple[Float[Tensor, "B heads M c"], ...]
    mask: Bool[Tensor, "B M"]
    start: Int[Tensor, " B"]  # position of the first word


class Words(NamedTuple):
    """Every layer's keys and values of t words that were read; those not `seen` are hidden from the following ones."""

    keys: tuple[Float[Tensor, "R heads t c"], ...]
    values: tuple[Float[Tensor, "R heads t c"], ...]
    seen: Bool[Tensor, "R t"]


class Block(nn.Module):
    """A post-norm transformer layer, as wide inside as outside."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.query, self.key, self.value = (SmallBatchLinear(width, width) for _ in range(3))
        self.out, self.norm = SmallBatchLinear(width, width), normed(width)
        self.up, self.down, self.down_norm = (
            SmallBatchLinear(width, width),
            SmallBatchLinear(width, width),
            normed(width),
        )
        self.dropout = nn.Dropout(dropout)

    def finish(self, x: Float[Tensor, "B L h"], context: Float[Tensor, "B L h"]) -> Float[Tensor, "B L h"]:
        x = self.norm(self.dropout(self.out(context)) + x)
        return self.down_norm(self.dropout(self.down(F.gelu(self.up(x)))) + x)


class SftHead(nn.Module):
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
        self.read_words = reading(embed, hidden, dropout)
        self.read_frames = reading(feature_dim, hidden, dropout)
        self.kinds = nn.Embedding(3, hidden)
        self.norm, self.dropout = normed(hidden), nn.Dropout(dropout)
        self.blocks: Any = nn.ModuleList(Block(hidden, dropout) for _ in range(layers))
        self.dense, self.dense_norm = SmallBatchLinear(hidden, hidden), normed(hidden)
        self.words = WordHead(hidden, vocabulary_size, mask_special_tokens)
        self.words.never[UNK] = not unknown
        self._laid = PackedWeight()
        for weight in (self.embed.weight, self.kinds.weight, self.words.weight):
            nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(self.words.bias)

    def watch(self, grid: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], vector: Float[Tensor, "B D"]) -> Memory:
        """Everything that does not depend on the words.  A clip's positions count its real frames only, so that padding
        moves neither the global vector nor the words."""
        x = self.read_frames(torch.cat([grid, vector[:, None]], 1))
        count = mask.sum(1)
        seen = F.pad(mask, (0, 1), value=True)
        kind = torch.tensor([FRAME] * mask.shape[1] + [WHOLE], device=mask.device)
        x = self._placed(x, kind, torch.cat([ranks(mask), count[:, None]], 1))
        keys, values = [], []
        for number, block in enumerate(self.blocks):
            keys.append(self._split(block.key(x)).contiguous())
            values.append(self._split(block.value(x)).contiguous())
            if number + 1 < len(self.blocks):
                q = self._split(block.query(x))
                found = F.scaled_dot_product_attention(q, keys[-1], values[-1], seen[:, None, None], self._drop)
                x = block.finish(x, found.transpose(1, 2).flatten(2))
        return Memory(tuple(keys), tuple(values), seen, count + 1)

    def nothing(self, memory: Memory, captions: int = 1) -> Words:
        """No words yet, so many rows for each clip."""
        empty = memory.keys[0][:, :, :0].repeat_interleave(captions, 0)
        none = (empty,) * len(memory.keys)
        return Words(none, none, memory.mask[:, :0].repeat_interleave(captions, 0))

    def read(
        self, tokens: Int[Tensor, "R L"], seen: Bool[Tensor, "R L"], words: Words, memory: Memory
    ) -> tuple[Float[Tensor, "R L h"], Float[Tensor, "R L N"], Words]:
        """L words more, K neighbouring rows per clip -> what their successors are told from, the last layer's attention
        among the frames (mean of its heads), and all words with these."""
        before, length = words.seen.shape[1], tokens.shape[1]
        start = memory.start.repeat_interleave(len(tokens) // len(memory.start), 0)
        place = start[:, None] + torch.arange(before, before + length, device=start.device)
        x = self._placed(self.read_words(self.embed(tokens)), torch.full_like(tokens[0], WORD), place)
        seen = torch.cat([words.seen, seen], 1)
        causal = torch.ones(length, before + length, dtype=torch.bool, device=x.device).tril(before)
        keys, values = [], []
        for number, block in enumerate(self.blocks):
            keys.append(torch.cat([words.keys[number], self._split(block.key(x))], 2))
            values.append(torch.cat([words.values[number], self._split(block.value(x))], 2))
            own = (keys[-1], values[-1], causal & seen[:, None])
            theirs = (memory.keys[number], memory.values[number], memory.mask)
            context, scores = self._attend(block.query(x), theirs, own)
            x = block.finish(x, context)
        frames = memory.mask[:, :-1].repeat_interleave(len(tokens) // len(memory.mask), 0)
        # without the global vector, which is no place
        attention = masked_softmax(scores[..., :-1], frames[:, None, None]).mean(1)
        hidden = self.dense_norm(F.gelu(self.dense(x)))
        return hidden, attention, Words(tuple(keys), tuple(values), seen)

    def next_words(self, hidden: Float[Tensor, "R h"]) -> Float[Tensor, "R V"]:
        """`words`, for the few rows of a step."""
        bias = self.words.bias.masked_fill(self.words.never, -torch.inf)
        return self._laid.product(self.words, bias, hidden)

    def tell(self, semantics: Float[Tensor, "*B h"]) -> Float[Tensor, "*B h"]:
        """Semantics of an object or action -> what `words` reads its name from."""
        return self.dense_norm(F.gelu(self.dense(semantics)))

    def token_nll(
        self, hidden: Float[Tensor, "M h"], targets: Int[Tensor, " M"], epsilon: float
    ) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
        """-> smoothed loss and plain -log p of the targets, a number each, as `cross_entropy.smoothed` defines them.

        The scores of all V words are gone through once: the sum over the other words is that of a linear map, hence
        n log Z less the hidden state's product with the sum of the word matrix.
        """
        nll = F.cross_entropy(self.words(hidden).float(), targets, reduction="none")
        if epsilon == 0:
            return nll, nll.detach()
        said = ~self.words.never
        count = int(said.sum())
        with torch.autocast(hidden.device.type, enabled=False):
            rows, weight, bias = hidden.float(), self.words.weight, self.words.bias
            target = (rows * weight[targets]).sum(-1) + bias[targets]
            total = rows @ (said.to(weight.dtype) @ weight) + (bias * said).sum()
        rest = count * (nll + target) - total - nll
        return (1 - epsilon) * nll + epsilon * rest / (count - 1), nll.detach()

    def _placed(
        self, x: Float[Tensor, "B L h"], kind: Int[Tensor, " L"], place: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L h"]:
        return self.dropout(self.norm(x + sinusoid(place, x.shape[-1]).to(x.dtype) + self.kinds(kind)))

    @property
    def _drop(self) -> float:
        return self.dropout.p if self.training else 0.0

    def _split(self, x: Float[Tensor, "B L h"]) -> Float[Tensor, "B heads L c"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend(
        self, query: Float[Tensor, "R L h"], theirs: tuple[Tensor, Tensor, Tensor], own: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Float[Tensor, "R L h"], Float[Tensor, "R heads L M"]]:
        """Attention to a clip's visual tokens, which K rows share, and to a row's own words -> what was read, and the
        scores of the visual tokens."""
        keys, values, mask = theirs
        q = self._split(query * (query.shape[-1] // self.heads) ** -0.5)  # (R, heads, L, c)
        media, visual = len(keys), keys.shape[2]
        shared = q.unflatten(0, (media, -1)).transpose(1, 2).flatten(2, 3)  # (B, heads, K L, c)
        scores = shared @ keys.transpose(-1, -2)
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        scores = scores.unflatten(2, (-1, q.shape[2])).transpose(1, 2).flatten(0, 1)  # (R, heads, L, M)
        inner = (q @ own[0].transpose(-1, -2)).masked_fill(~own[2][:, None], -torch.inf)
        weights = F.dropout(torch.cat([scores, inner], -1).softmax(-1), self._drop)
        outer, inner = weights.split([visual, weights.shape[-1] - visual], -1)
        outer = outer.unflatten(0, (media, -1)).transpose(1, 2).flatten(2, 3) @ values
        outer = outer.unflatten(2, (-1, q.shape[2])).transpose(1, 2).flatten(0, 1)
        context = outer + inner @ own[1]
        return context.transpose(1, 2).flatten(2), scores
