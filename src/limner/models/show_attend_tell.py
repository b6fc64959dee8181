"""Show, Attend and Tell with soft attention (Xu et al. 2015, arXiv:1502.03044).

It follows the public code (sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning) where that differs from the paper:

- The gate beta is a vector, one number per channel of the context.  The paper (section 4.2.1) has one number.
- Words are predicted from h alone.  `deep_output` adds the context and the last word as in eq. 7, but as one linear
  layer over all three and a tanh, where the paper sums linear maps of them without a tanh.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from limner.core.derived import Derived
from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import Features, Pixels
from limner.models.captioner import Captioner, DecodingStep, Step, TeacherForced, not_ended
from limner.models.layers import AdditiveAttention, WordHead, masked_max
from limner.models.packed_linear import can_pack


@dataclass(frozen=True)
class ShowAttendTellConfig:
    """Options of `show_attend_tell`."""

    name: Literal["show_attend_tell"] = "show_attend_tell"
    hidden: PositiveInt = 512  # width of the LSTM's state
    embed: PositiveInt = 512  # width of the word vectors
    attention: PositiveInt = 512  # width of the attention's MLP
    # width of a projection of the cells (LayerNorm, linear, ReLU); None: no projection
    project: PositiveInt | None = None
    activation: Literal["relu", "tanh"] = "relu"  # of the attention; the paper does not say, the public code uses ReLU
    # the first state is computed from the mean (published) or maximum of the cells
    initial: Literal["mean", "max"] = "mean"
    dropout: FractionBelowOne = 0.5  # before the word layer
    word_dropout: FractionBelowOne = 0.0  # on the embedded words
    cell_dropout: FractionBelowOne = 0.0  # on the (projected) cells
    deep_output: bool = False  # after eq. 7: words are predicted from the last word and the context too
    mask_special_tokens: bool = True  # PAD and BOS get probability 0


class Memory(NamedTuple):
    """What is computed once per medium: N cells of D channels and A attention channels."""

    cells: Float[Tensor, "B N D"]
    keys: Float[Tensor, "B N A"]  # the attention's linear map of the cells
    mask: Tensor
    pooled: Float[Tensor, "B D"]


class State(NamedTuple):
    """The state of the LSTM."""

    h: Float[Tensor, "R H"]
    c: Float[Tensor, "R H"]
    row: Int[
        Tensor, " R"
    ]  # the row of the last step that this row continues; rows with equal numbers are siblings in a beam


class ShowAttendTell(Captioner):
    """An LSTM that attends to the cells before every word."""

    reads_media_as_published = True

    def __init__(self, config: ShowAttendTellConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        width = config.project or feature_dim
        self.project = (
            nn.Sequential(nn.LayerNorm(feature_dim), nn.Linear(feature_dim, width), nn.ReLU())
            if config.project
            else nn.Identity()
        )
        self.embed = nn.Embedding(vocabulary_size, config.embed)
        self.attend = AdditiveAttention(config.hidden, width, config.attention, config.activation)
        self.init_h = nn.Linear(width, config.hidden)
        self.init_c = nn.Linear(width, config.hidden)
        self.gate = nn.Linear(config.hidden, width)
        self.lstm = nn.LSTMCell(config.embed + width, config.hidden)
        self.deep = nn.Linear(config.hidden + width + config.embed, config.hidden) if config.deep_output else None
        self.head = WordHead(config.hidden, vocabulary_size, config.mask_special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.word_dropout = nn.Dropout(config.word_dropout)
        self.cell_dropout = nn.Dropout(config.cell_dropout)
        self._packed_step = Derived[DecodingStep]()
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        nn.init.uniform_(self.head.weight, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        cells = self.cell_dropout(self.project(inputs.grid))
        if self.config.initial == "mean":
            pooled = Features(cells, inputs.mask, inputs.layout).pooled
        else:  # keeps small objects visible: learns faster from pixels
            pooled = masked_max(cells, inputs.mask)
        return Memory(cells, self.attend.key(cells), inputs.mask, pooled)

    def init_state(self, memory: Memory) -> State:
        h = self.init_h(memory.pooled)
        return State(h, self.init_c(memory.pooled), torch.arange(len(h), device=h.device))

    def recurrent_step(
        self, word: Float[Tensor, "R E"], h: Float[Tensor, "R H"], c: Float[Tensor, "R H"], memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step of attention and LSTM (eq. 1 to 6) -> h, c, gated context, attention.

        `word` is the embedded last word.  The attention and the gate read the h of the step before (section 4.2.1).
        """
        context, attention = self.attend(h, memory.cells, memory.keys, memory.mask)
        context = torch.sigmoid(self.gate(h)) * context
        h, c = self.lstm(torch.cat([word, context], -1), (h, c))
        return h, c, context, attention

    def word_logits(self, h: Tensor, context: Tensor, word: Tensor) -> Float[Tensor, "*B V"]:
        """Logits of the next word, from h alone; with `deep_output` also from the context and the last word."""
        if self.deep is not None:
            h = torch.tanh(self.deep(torch.cat([h, context, word], -1)))
        return self.head(self.dropout(h))

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        word = self.word_dropout(self.embed(token))
        h, c, context, attention = self.recurrent_step(word, state.h, state.c, memory)
        state = State(h, c, torch.arange(len(h), device=h.device))
        return Step(self.word_logits(h, context, word), state, attention)

    def decoding_step(self) -> DecodingStep:
        """`step` from packed weights, in evaluation without gradients on a CPU (`models.show_attend_tell_step`)."""
        if self.training or not can_pack(*self.parameters()):
            return self.step
        from limner.models.show_attend_tell_step import PackedStep  # imported here: it imports this module

        return self._packed_step.get(self.parameters(), lambda: PackedStep(self))

    def hidden(self, state: State) -> Float[Tensor, "R H"]:
        return state.h

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """All steps along given tokens.

        Rows are sorted by length, and step t computes only the rows that still have a word to predict.  The word layer
        runs once, over all positions together.
        """
        alive = not_ended(tokens)
        order = alive.sum(1).argsort(descending=True, stable=True)
        captions = len(tokens) // len(memory.cells)  # K rows of tokens share a row of memory
        memory = Memory(*(tensor[order // captions] for tensor in memory))
        embedded = self.word_dropout(self.embed(tokens[order]))
        h, c, _ = self.init_state(memory)
        hidden, contexts, attentions = [], [], []
        counts = alive.sum(0).tolist()
        for t, n in enumerate(counts):
            if n == 0:
                break
            rows = Memory(*(tensor[:n] for tensor in memory))
            h, c, context, attention = self.recurrent_step(embedded[:n, t], h[:n], c[:n], rows)
            hidden.append(h)
            contexts.append(context)
            attentions.append(attention)
        row = torch.cat([order[:n] for n in counts])
        time = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(order)
        words = torch.cat([embedded[:n, t] for t, n in enumerate(counts)])

        def spread(packed: Tensor) -> Tensor:
            return packed.new_zeros(*tokens.shape, packed.shape[-1]).index_put((row, time), packed)

        states = torch.cat(hidden)
        logits = self.word_logits(states, torch.cat(contexts), words)
        return TeacherForced(spread(logits), spread(torch.cat(attentions)), spread(states))
