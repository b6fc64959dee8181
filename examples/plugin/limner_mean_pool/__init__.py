"""A captioner of your own, outside limner: the mean of the cells starts a GRU, which writes the caption."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

import limner
from limner.models.captioner import Captioner, Step, TeacherForced, not_ended
from limner.models.layers import WordHead


@dataclass(frozen=True)
class MeanPoolConfig:
    name: Literal["mean_pool"] = "mean_pool"
    hidden: int = 256
    dropout: float = 0.1


class Memory(NamedTuple):
    start: Tensor  # (B, H): the GRU's first state
    attention: Tensor  # (B, N): the same for every word, 1 / (number of real cells)


@limner.register("captioner", MeanPoolConfig)
class MeanPool(Captioner):
    attends = False  # its attention does not depend on the word

    def __init__(self, config: MeanPoolConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        self.start = nn.Linear(feature_dim, config.hidden)
        self.embed = nn.Embedding(vocabulary_size, config.hidden)
        self.cell = nn.GRUCell(config.hidden, config.hidden)
        self.head = WordHead(config.hidden, vocabulary_size)  # never predicts PAD or BOS
        self.dropout = nn.Dropout(config.dropout)

    def encode(self, inputs):
        weights = inputs.mask / inputs.mask.sum(1, keepdim=True).clamp(min=1)
        return Memory(torch.tanh(self.start(inputs.pooled)), weights)

    def init_state(self, memory):
        return (memory.start,)

    def step(self, token, state, memory):
        hidden = self.cell(self.embed(token), state[0])
        captions = len(token) // len(memory.start)  # K neighbouring rows per medium
        return Step(self.head(self.dropout(hidden)), (hidden,), memory.attention.repeat_interleave(captions, 0))

    def forward_teacher_forced(self, memory, tokens):
        captions = len(tokens) // len(memory.start)
        hidden, outputs = memory.start.repeat_interleave(captions, 0), []
        for token in self.embed(tokens).unbind(1):
            outputs.append(hidden := self.cell(token, hidden))
        alive = not_ended(tokens)[..., None]  # (R, L, 1)
        logits = self.head(self.dropout(torch.stack(outputs, 1))).masked_fill(~alive, 0.0)
        return TeacherForced(logits, memory.attention.repeat_interleave(captions, 0)[:, None] * alive)
