"""Up-Down: an attention LSTM and a language LSTM (Anderson et al. 2018, arXiv:1707.07998, section 3.2).

The attention LSTM reads the language LSTM's last state, the mean of the regions and the last word; its state attends to
the regions.  The language LSTM reads the attended regions and predicts the word.  Layers and activations are those of
ruotianluo/self-critical.pytorch.
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
    """Options of `up_down`."""

    name: Literal["up_down"] = "up_down"
    hidden: PositiveInt = 512  # of both LSTMs, and width of the cells
    embed: PositiveInt = 512  # width of the word vectors
    attention: PositiveInt = 512  # width of the attention's hidden layer
    position_embedding: bool = False  # False: the cells have no order
    dropout: FractionBelowOne = 0.5  # on embedded words and cells, and before the word layer
    mask_special_tokens: bool = True  # PAD and BOS get probability 0


class Memory(NamedTuple):
    """What is computed once per image."""

    cells: Float[Tensor, "B N H"]
    keys: Float[Tensor, "B N A"]  # the attention's linear map of the cells
    mask: Bool[Tensor, "B N"]
    pooled: Float[Tensor, "B H"]  # the embedded mean of the cells


class State(NamedTuple):
    """The states of the attention LSTM and of the language LSTM."""

    attention_h: Float[Tensor, "R H"]
    attention_c: Float[Tensor, "R H"]
    language_h: Float[Tensor, "R H"]
    language_c: Float[Tensor, "R H"]


class UpDown(Captioner):
    """Two LSTMs; the parameters call the attention LSTM `look` and the language LSTM `speak`."""

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
        pooled = self.dropout(torch.relu(self.whole(Features(grid, inputs.mask, inputs.layout).pooled)))
        cells = self.dropout(torch.relu(self.cells(grid)))
        return Memory(cells, self.attend.key(cells), inputs.mask, pooled)

    def init_state(self, memory: Memory) -> State:
        zero = torch.zeros_like(memory.pooled)
        return State(zero, zero, zero, zero)

    def recurrent_step(
        self, token: Int[Tensor, " R"], state: State, memory: Memory
    ) -> tuple[State, Float[Tensor, "R N"]]:
        """One step of both LSTMs -> the new state, attention (sections 3.2.1 and 3.2.2)."""
        word = self.dropout(torch.relu(self.embed(token)))
        pooled = memory.pooled.repeat_interleave(len(token) // len(memory.pooled), 0)
        h, c = self.look(torch.cat([state.language_h, pooled, word], -1), (state.attention_h, state.attention_c))
        context, weights = self.attend(h, memory.cells, memory.keys, memory.mask)
        language = self.speak(torch.cat([context, h], -1), (state.language_h, state.language_c))
        return State(h, c, *language), weights

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        state, attention = self.recurrent_step(token, state, memory)
        return Step(self.head(self.dropout(state.language_h)), state, attention)

    def hidden(self, state: State) -> Float[Tensor, "R H"]:
        return state.language_h

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        def predict(hidden: Tensor) -> Tensor:
            return self.head(self.dropout(hidden))

        return unroll_recurrent(
            partial(self.recurrent_step, memory=memory), self.hidden, predict, self.init_state(memory), tokens
        )
