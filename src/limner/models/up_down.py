"""Up-Down (Anderson et al. 2018, arXiv:1707.07998, section 3.2): one LSTM looks, a second one speaks.

The first reads what was said, the picture's mean and the last word, and its state attends the regions; the second reads
what was attended.  Layers and activations are those of ruotianluo/self-critical.pytorch.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import Features, Pixels
from limner.models.captioner import Captioner, Step, TeacherForced, unroll_recurrent
from limner.models.layers import AdditiveAttention, WordHead
from limner.models.position_embedding import PositionEmbedding


@dataclass(frozen=True)
class UpDownConfig:
    name: Literal["up_down"] = "up_down"
    hidden: PositiveInt = 512  # of both LSTMs, and width of the cells
    embed: PositiveInt = 512  # width of the word vectors
    attention: PositiveInt = 512  # width of the attention's MLP
    position_embedding: bool = False  # without it the cells are a set
    dropout: FractionBelowOne = 0.5  # on embedded words and cells, and before the word head
    mask_special_tokens: bool = True  # PAD and BOS are outside the softmax


class Memory(NamedTuple):
    cells: Float[Tensor, "B N H"]
    keys: Float[Tensor, "B N A"]  # attention's projection of the cells, computed once
    mask: Bool[Tensor, "B N"]
    whole: Float[Tensor, "B H"]


class State(NamedTuple):
    """Of the LSTM that looks and of the one that speaks."""

    look_h: Float[Tensor, "R H"]
    look_c: Float[Tensor, "R H"]
    speak_h: Float[Tensor, "R H"]
    speak_c: Float[Tensor, "R H"]


class UpDown(Captioner):
    def __init__(self, config: UpDownConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.position_embedding = PositionEmbedding(feature_dim) if config.position_embedding else None
        self.whole = nn.Linear(feature_dim, hidden)
        self.cells = nn.Linear(feature_dim, hidden)
        self.embed = nn.Embedding(vocabulary_size, config.embed)
        self.look = nn.LSTMCell(2 * hidden + config.embed, hidden)
        self.attend = AdditiveAttention(hidden, hidden, config.attention)
        self.speak = nn.LSTMCell(2 * hidden, hidden)
        self.head = WordHead(hidden, vocabulary_size, config.mask_special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        grid = (self.position_embedding.add_to(inputs) if self.position_embedding else inputs).grid
        whole = self.dropout(torch.relu(self.whole(Features(grid, inputs.mask, inputs.layout).pooled)))
        cells = self.dropout(torch.relu(self.cells(grid)))
        return Memory(cells, self.attend.key(cells), inputs.mask, whole)

    def init_state(self, memory: Memory) -> State:
        zero = torch.zeros_like(memory.whole)
        return State(zero, zero, zero, zero)

    def advance(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> tuple[State, Float[Tensor, "R N"]]:
        """One word -> the new state, attention."""
        word = self.dropout(torch.relu(self.embed(token)))
        whole = memory.whole.repeat_interleave(len(token) // len(memory.whole), 0)
        h, c = self.look(torch.cat([state.speak_h, whole, word], -1), (state.look_h, state.look_c))
        context, weights = self.attend(h, memory.cells, memory.keys, memory.mask)
        said = self.speak(torch.cat([context, h], -1), (state.speak_h, state.speak_c))
        return State(h, c, *said), weights

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        state, attention = self.advance(token, state, memory)
        return Step(self.head(self.dropout(state.speak_h)), state, attention)

    def hidden(self, state: State) -> Float[Tensor, "R H"]:
        return state.speak_h

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        def say(said: Tensor) -> Tensor:
            return self.head(self.dropout(said))

        return unroll_recurrent(partial(self.advance, memory=memory), self.hidden, say, self.init_state(memory), tokens)
