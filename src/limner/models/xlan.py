"""X-LAN: X-linear attention networks (Pan et al. 2020, arXiv:2003.14080) as JDAI-CV/image-captioning publishes them.

The encoder refines one vector of the whole medium, and with it the cells; the decoder is an LSTM with one X-linear
attention, whose query is its hidden state.
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
from limner.models.attention_blocks import Known
from limner.models.captioner import Captioner, Step, TeacherForced, unroll_recurrent
from limner.models.layers import WordHead
from limner.models.position_embedding import PositionEmbedding
from limner.models.xlinear import XLinear

ALPHA = 1.3  # of CELU, as published


@dataclass(frozen=True)
class XlanConfig:
    """As published: 4 layers, dim 1024, 8 heads, mid 64, dropout .5."""

    name: Literal["xlan"] = "xlan"
    layers: PositiveInt = 2  # of the encoder
    dim: PositiveInt = 512  # width of everything
    heads: PositiveInt = 8  # of the attention
    mid: PositiveInt | None = None  # width, per head, of what query and cell have in common; None = half a head
    position_embedding: bool = False  # without it the cells are a set
    dropout: FractionBelowOne = 0.5  # on the embedded cells, what is attended, and before the word head
    map_dropout: FractionBelowOne = 0.1  # on what query and cell have in common
    mask_special_tokens: bool = True  # PAD and BOS are outside the softmax

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of the number of heads, {self.heads}")


class Memory(NamedTuple):
    known: Known  # what the decoder's attention reads of the refined cells
    mask: Bool[Tensor, "B N"]
    whole: Float[Tensor, "B D"]


class State(NamedTuple):
    h: Float[Tensor, "R D"]
    c: Float[Tensor, "R D"]
    said: Float[Tensor, "R D"]  # what the last scores were read from


class Xlan(Captioner):
    def __init__(self, config: XlanConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        dim, layers = config.dim, config.layers

        def attention() -> XLinear:
            return XLinear(dim, config.heads, config.mid, ALPHA, config.map_dropout)

        self.position_embedding = PositionEmbedding(feature_dim) if config.position_embedding else None
        self.cells = nn.Linear(feature_dim, dim)
        self.embed = nn.Embedding(vocabulary_size, dim)
        self.refine = nn.ModuleList(attention() for _ in range(layers))
        self.join = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(layers))
        self.join_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.whole = nn.Linear((layers + 1) * dim, dim)
        self.whole_norm = nn.LayerNorm(dim)
        self.lstm = nn.LSTMCell(2 * dim, dim)
        self.attend = attention()
        self.context = nn.Linear(2 * dim, dim)
        self.context_norm = nn.LayerNorm(dim)
        self.say = nn.Linear(2 * dim, 2 * dim)
        self.head = WordHead(dim, vocabulary_size, config.mask_special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        cells, whole, mask = *self.refined(inputs), inputs.mask
        return Memory(self.attend.project(cells), mask, whole)

    def refined(self, features: Features) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        """-> the cells and the vector of the whole: each layer attends with the vector, then tells the cells."""
        grid = (self.position_embedding.add_to(features) if self.position_embedding else features).grid
        cells = self.dropout(F.celu(self.cells(grid), ALPHA))
        vectors = [Features(cells, features.mask, features.layout).pooled]
        for layer, join, norm in zip(self.refine, self.join, self.join_norms, strict=True):
            attend = cast(XLinear, layer)
            read, _ = attend(vectors[-1][:, None], attend.project(cells), features.mask[:, None])
            vectors.append(self.dropout(read[:, 0]))
            told = torch.cat([vectors[-1][:, None].expand_as(cells), cells], -1)
            cells = norm(cells + self.dropout(torch.relu(join(told))))
        return cells, self.whole_norm(self.whole(torch.cat(vectors, -1)))

    def init_state(self, memory: Memory) -> State:
        zero = torch.zeros_like(memory.whole)
        return State(zero, zero, zero)

    def advance(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> tuple[State, Float[Tensor, "R N"]]:
        """One word -> the new state, attention."""
        captions = len(token) // len(memory.whole)
        word = F.celu(self.embed(token), ALPHA)
        read = torch.cat([word, memory.whole.repeat_interleave(captions, 0) + state.said], -1)
        h, c = self.lstm(read, (state.h, state.c))
        queries = h.view(len(memory.whole), captions, -1)  # the rows of a medium read its cells together
        attended, weights = self.attend(queries, memory.known, memory.mask[:, None])
        attended = self.dropout(attended.flatten(0, 1))
        context = self.context_norm(self.context(torch.cat([h, attended], -1)))
        said = F.glu(self.say(torch.cat([context, h], -1)))
        return State(h, c, said), weights.flatten(0, 1)

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        state, attention = self.advance(token, state, memory)
        return Step(self.head(self.dropout(state.said)), state, attention)

    def hidden(self, state: State) -> Float[Tensor, "R D"]:
        return state.said

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        def say(said: Tensor) -> Tensor:
            return self.head(self.dropout(said))

        return unroll_recurrent(partial(self.advance, memory=memory), self.hidden, say, self.init_state(memory), tokens)
