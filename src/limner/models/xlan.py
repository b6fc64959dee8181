"""X-LAN: X-linear attention network (Pan et al. 2020, arXiv:2003.14080) as published in JDAI-CV/image-captioning.

Each encoder layer attends to the cells with a global vector and refines both.  The decoder is an LSTM whose hidden
state is the query of one X-linear attention.

As in the published code, and unlike the paper, keys and values come from one refined sequence of cells.  Two dropout
layers of the published training are left out: .5 on embedded words, and .3 in the join of vector and cells, where
`dropout` is used.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import Features, Pixels
from limner.models.attention_blocks import KeyValue
from limner.models.captioner import Captioner, Step, TeacherForced, unroll_recurrent
from limner.models.layers import WordHead
from limner.models.packed_linear import PackedWeight, SmallBatchLinear
from limner.models.position_embedding import PositionEmbedding
from limner.models.xlinear import XLinear

ALPHA = 1.3  # alpha of CELU, as published


@dataclass(frozen=True)
class XlanConfig:
    """Options of `xlan`.  Published: 4 layers, dim 1024, 8 heads, mid 64, dropout .5."""

    name: Literal["xlan"] = "xlan"
    layers: PositiveInt = 2  # of the encoder
    dim: PositiveInt = 512  # width of cells, words and states
    heads: PositiveInt = 8  # of every attention
    # width per head of the joint features m_n (see `xlinear`); None: half of a head's width
    mid: PositiveInt | None = None
    position_embedding: bool = False  # False: the cells have no order
    dropout: FractionBelowOne = 0.5  # on embedded cells, attention outputs and joined cells, and before the word layer
    map_dropout: FractionBelowOne = 0.1  # on m_n
    mask_special_tokens: bool = True  # PAD and BOS get probability 0

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; it must be a multiple of the number of heads, {self.heads}")


class Memory(NamedTuple):
    """What is computed once per medium."""

    key_value: KeyValue  # keys and values of the refined cells for the decoder's attention
    mask: Bool[Tensor, "B N"]
    global_feature: Float[Tensor, "B D"]
    gate_inputs: Float[Tensor, "B G"]  # its product with the LSTM's weights; of width 0 where gradients are needed


class State(NamedTuple):
    """The state of the decoder."""

    h: Float[Tensor, "R D"]
    c: Float[Tensor, "R D"]
    output: Float[Tensor, "R D"]  # s_t, from which the last logits were computed
    row: Int[Tensor, " R"]  # equal numbers: the same h, c and output, because both rows continue one hypothesis


class Xlan(Captioner):
    """Encoder of X-linear attention layers, and an LSTM decoder."""

    def __init__(self, config: XlanConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        dim, layers = config.dim, config.layers

        def attention() -> XLinear:
            return XLinear(dim, config.heads, config.mid, ALPHA, config.map_dropout)

        self.position_embedding = PositionEmbedding(feature_dim) if config.position_embedding else None
        self.cells = SmallBatchLinear(feature_dim, dim)
        self.embed = nn.Embedding(vocabulary_size, dim)
        self.refine = nn.ModuleList(attention() for _ in range(layers))
        self.join = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(layers))
        self.join_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.whole = SmallBatchLinear((layers + 1) * dim, dim)
        self.whole_norm = nn.LayerNorm(dim)
        self.lstm = nn.LSTMCell(2 * dim, dim)
        self.attend = attention()
        self.context = SmallBatchLinear(2 * dim, dim)
        self.context_norm = nn.LayerNorm(dim)
        self.say = SmallBatchLinear(2 * dim, 2 * dim)
        self.head = WordHead(dim, vocabulary_size, config.mask_special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self._packed_join = tuple((PackedWeight(), PackedWeight()) for _ in range(layers))
        self._packed_gates = tuple(PackedWeight() for _ in range(4))  # of the parts in `_lstm_for_siblings`
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        cells, global_feature, mask = *self.refine_cells(inputs), inputs.mask
        known = self.attend.project(cells)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return Memory(known, mask, global_feature, global_feature[:, :0])
        bias = self.lstm.bias_ih + self.lstm.bias_hh
        weight = self.lstm.weight_ih[:, self.config.dim :]
        return Memory(known, mask, global_feature, self._packed_gates[0].multiply(weight, bias, global_feature))

    def refine_cells(self, features: Features) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        """The encoder -> refined cells and the global vector.

        In each layer the global vector attends to the cells, and the new vector is joined to every cell.
        """
        grid = (self.position_embedding.add_to(features) if self.position_embedding else features).grid
        cells = self.dropout(F.celu(self.cells(grid), ALPHA))
        vectors = [Features(cells, features.mask, features.layout).pooled]
        for index, (layer, norm) in enumerate(zip(self.refine, self.join_norms, strict=True)):
            attend = cast(XLinear, layer)
            attended, _ = attend(vectors[-1][:, None], attend.project(cells), features.mask[:, None])
            vectors.append(self.dropout(attended[:, 0]))
            cells = norm(cells + self.dropout(self._join(index, vectors[-1], cells)))
        return cells, self.whole_norm(self.whole(torch.cat(vectors, -1)))

    def _join(self, index: int, vector: Float[Tensor, "B D"], cells: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """ReLU of the linear layer of encoder layer `index`, which reads the vector beside each cell."""
        join = cast(nn.Linear, self.join[index])
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return torch.relu(join(torch.cat([vector[:, None].expand_as(cells), cells], -1)))
        # the product with the vector once per medium and not once per cell; equal up to rounding
        weights, packed = join.weight.split(self.config.dim, 1), self._packed_join[index]
        shared = packed[0].multiply(weights[0], join.bias, vector)
        return packed[1].multiply(weights[1], None, cells).add_(shared[:, None]).relu_()

    def init_state(self, memory: Memory) -> State:
        zero = torch.zeros_like(memory.global_feature)
        return State(zero, zero, zero, torch.arange(len(zero), device=zero.device))

    def recurrent_step(
        self, token: Int[Tensor, " R"], state: State, memory: Memory
    ) -> tuple[State, Float[Tensor, "R N"]]:
        """One step of the decoder -> the new state, attention."""
        captions = len(token) // len(memory.global_feature)
        if memory.gate_inputs.shape[1] and token.device.type == "cpu" and not torch.is_grad_enabled():
            h, c = self._lstm_for_siblings(token, state, memory)
        else:
            word = F.celu(self.embed(token), ALPHA)
            inputs = torch.cat([word, memory.global_feature.repeat_interleave(captions, 0) + state.output], -1)
            h, c = self.lstm(inputs, (state.h, state.c))
        queries = h.view(len(memory.global_feature), captions, -1)  # the rows of a medium attend to its cells together
        attended, weights = self.attend(queries, memory.key_value, memory.mask[:, None])
        attended = self.dropout(attended.flatten(0, 1))
        context = self.context_norm(self.context(torch.cat([h, attended], -1)))
        output = F.glu(self.say(torch.cat([context, h], -1)))
        return State(h, c, output, torch.arange(len(h), device=h.device)), weights.flatten(0, 1)

    def _lstm_for_siblings(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> tuple[Tensor, Tensor]:
        """The LSTM for a beam on a CPU, without repeated work: equal to `lstm` of the joined inputs, up to rounding.

        Its matrix product has four parts.  That with the global vector is in the memory; those with the last output and
        with h are computed once for all rows that continue one hypothesis, that with a word once for all its rows.
        """
        words, which = token.unique(return_inverse=True)
        _, sibling = state.row.unique(return_inverse=True)
        first = torch.empty(int(sibling.max()) + 1, dtype=torch.long).index_copy_(0, sibling, torch.arange(len(token)))
        word_weight, output_weight = self.lstm.weight_ih.split(self.config.dim, 1)
        medium = first // (len(token) // len(memory.gate_inputs))
        before = (
            self._packed_gates[1].multiply(output_weight, None, state.output[first])
            + self._packed_gates[2].multiply(self.lstm.weight_hh, None, state.h[first])
            + memory.gate_inputs[medium]
        )
        said = self._packed_gates[3].multiply(word_weight, None, F.celu(self.embed(words), ALPHA))
        i, f, g, o = before.index_select(0, sibling).add_(said.index_select(0, which)).chunk(4, 1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        state, attention = self.recurrent_step(token, state, memory)
        return Step(self.head(self.dropout(state.output)), state, attention)

    def hidden(self, state: State) -> Float[Tensor, "R D"]:
        return state.output

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        def predict(output: Tensor) -> Tensor:
            return self.head(self.dropout(output))

        return unroll_recurrent(
            partial(self.recurrent_step, memory=memory), self.hidden, predict, self.init_state(memory), tokens
        )
