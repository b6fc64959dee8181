"""The decoding step of Show, Attend and Tell for a search on a CPU: `ShowAttendTell.step` from packed weights.

A step of a small beam takes as long as its weights take to be read, if the rest is kept short.  So the three matrices
that multiply h (query, gate and recurrent gates) are one packed matrix, the product of an embedded word with the input
gates is computed once per word and kept, the gates are in the order i, f, o, g, so that one sigmoid covers three of
them, and nothing is masked where every cell is real.  For a beam of 3 with a state of 512 and 3,726 words that is .6
instead of 2.5 ms a step (one thread of an AMD EPYC, torch 2.13).

In a batch of media, rows that continue the same hypothesis have the same h: attention, gate and products with h and
the context are computed once for such siblings.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.models.captioner import Step
from limner.models.layers import masked_softmax
from limner.models.packed_linear import PackedLinear
from limner.models.show_attend_tell import Memory, ShowAttendTell, State


class PackedStep:
    """`ShowAttendTell.step` in evaluation mode, without gradients, from copies of the weights of `model`."""

    def __init__(self, model: ShowAttendTell):
        self.model, attend, lstm = model, model.attend, model.lstm
        self.width = model.config.hidden
        word_weight, context_weight = _order_gates(lstm.weight_ih).split(
            [model.config.embed, model.gate.out_features], 1
        )
        recurrent_weight = _order_gates(lstm.weight_hh)
        self.parts = [attend.query.out_features, model.gate.out_features, 4 * self.width]  # of what h is multiplied to
        self.from_h = PackedLinear(
            torch.cat([attend.query.weight, model.gate.weight, recurrent_weight]),
            torch.cat([attend.query.bias, model.gate.bias, recurrent_weight.new_zeros(4 * self.width)]),
        )
        self.from_context = PackedLinear(context_weight)
        self.from_word = PackedLinear(word_weight, _order_gates(lstm.bias_ih + lstm.bias_hh))
        words = model.embed.num_embeddings
        self.word_gates = word_weight.new_empty(words, 4 * self.width)  # rows are filled when a word is first read
        self.known = bytearray(words)
        self.deep = None if model.deep is None else PackedLinear(model.deep.weight, model.deep.bias)
        self.head = PackedLinear(model.head.weight, model.head.bias.masked_fill(model.head.never, -torch.inf))
        self.score = attend.score.weight[0].detach()  # without its bias, which the softmax removes
        self.whole: Tensor | None = None  # the mask that was last found to be True everywhere

    def __call__(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        """One token per row -> as `ShowAttendTell.step`."""
        if memory.cells.dtype != torch.float32 or not len(token):
            return self.model.step(token, state, memory)
        if len(memory.cells) == 1:
            query, gate, gates = self.from_h(state.h).split(self.parts, 1)
            context, attention = self._attend_to_one(query, memory)
            context = torch.sigmoid(gate).mul_(context)
            gates = self.from_context(context).add_(gates)
        else:
            first, sibling, counts = _siblings(state.row, len(memory.cells))
            query, gate, gates = self.from_h(state.h[first]).split(self.parts, 1)
            context, attention = self.model.attend.weigh(query, memory.cells, memory.keys, memory.mask, counts)
            context = torch.sigmoid(gate).mul_(context)
            gates = self.from_context(context).add_(gates).index_select(0, sibling)
            attention = attention.index_select(0, sibling)
            context = context.index_select(0, sibling) if self.deep is not None else context
        gates.add_(self._read_words(token))
        i, f, o = torch.sigmoid_(gates[:, : 3 * self.width]).split(self.width, 1)
        c = torch.addcmul(f * state.c, i, torch.tanh_(gates[:, 3 * self.width :]))  # eq. 2
        h = o * torch.tanh(c)  # eq. 3
        last = h
        if self.deep is not None:
            last = torch.tanh(self.deep(torch.cat([h, context, self.model.embed(token)], 1)))
        return Step(self.head(last), State(h, c, torch.arange(len(h))), attention)

    def _attend_to_one(self, query: Float[Tensor, "R A"], memory: Memory) -> tuple[Tensor, Tensor]:
        """`AdditiveAttention.weigh` for the rows of one medium -> context (R, D), attention (R, N)."""
        scores = self.model.attend.activation(query.unsqueeze(1) + memory.keys) @ self.score  # (R, N)
        if memory.mask is not self.whole:
            if not memory.mask.all():
                weights = masked_softmax(scores, memory.mask)
                return weights @ memory.cells[0], weights
            self.whole = memory.mask
        weights = scores.softmax(1)
        return weights @ memory.cells[0], weights

    def _read_words(self, token: Int[Tensor, " R"]) -> Float[Tensor, "R G"]:
        """The part of the gates that depends on the words, which is computed once for every word."""
        new = sorted({word for word in token.tolist() if not self.known[word]})
        if new:
            index = torch.tensor(new)
            self.word_gates[index] = self.from_word(self.model.embed(index))
            for word in new:
                self.known[word] = 1
        return self.word_gates.index_select(0, token)


def _order_gates(weights: Float[Tensor, "G ..."]) -> Float[Tensor, "G ..."]:
    """The rows of an LSTM's weights, from PyTorch's order i, f, g, o to i, f, o, g."""
    i, f, g, o = weights.detach().chunk(4)
    return torch.cat([i, f, o, g])


def _siblings(row: Int[Tensor, " R"], media: int) -> tuple[Tensor, Tensor, list[int]]:
    """The first row of every hypothesis that is continued, the number of each row's hypothesis, and how many each
    medium has.

    >>> _siblings(torch.tensor([0, 0, 1, 4, 4, 4]), 2)  # three rows for each of two media
    (tensor([1, 2, 5]), tensor([0, 0, 1, 2, 2, 2]), [2, 1])
    """
    _, sibling = row.unique(return_inverse=True)
    first = torch.empty(int(sibling.max()) + 1, dtype=torch.long)
    first[sibling] = torch.arange(len(row))
    counts = torch.bincount(first // (len(row) // media), minlength=media).tolist()
    return first, sibling, counts
