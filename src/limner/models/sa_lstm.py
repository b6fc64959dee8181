"""SA-LSTM: temporal attention (Yao et al. 2015, arXiv:1502.08029) as hobincar/SA-LSTM publishes it, with LSTM or GRU.

Frame vectors are cells of the layout (T, 1, 1); maps and regions are attended in the same way.  The attention reads
the top state of the step before; its context and the last word are what the first layer reads; states begin at zero.

Of a context c = sum_n a_n v_n the first layer needs only W c = sum_n a_n W v_n.  Where few cells are read often (a
beam, many captions) W v_n is computed once per cell and the contexts themselves never are.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import Features, Pixels
from limner.models.captioner import Captioner, Step, TeacherForced, map_tensors, not_ended
from limner.models.layers import AdditiveAttention, WordHead
from limner.models.position_embedding import PositionEmbedding

GATES = {"lstm": 4, "gru": 3}  # in torch's order: i, f, g, o and r, z, n
FEW = 64  # cells: what a beam of 5 reads within a dozen words


@dataclass(frozen=True)
class SaLstmConfig:
    name: Literal["sa_lstm"] = "sa_lstm"
    rnn: Literal["lstm", "gru"] = "lstm"  # kind of the recurrent layers
    layers: PositiveInt = 1  # recurrent layers
    hidden: PositiveInt = 512  # width of their states
    embed: PositiveInt = 468  # width of the word vectors
    attention: PositiveInt = 256  # width of the attention's MLP
    project: PositiveInt | None = (
        None  # cells are first brought to this width (LayerNorm, ReLU); None = raw, as published
    )
    position_embedding: bool = False  # without it the order of the frames is not known
    dropout: FractionBelowOne = 0.5  # between layers and before the word head
    word_dropout: FractionBelowOne = 0.0  # on the embedded words
    cell_dropout: FractionBelowOne = 0.0  # on the (projected) cells
    masked: bool = True  # False: padded frames are attended as zeros, as published
    mask_special_tokens: bool = True  # PAD and BOS are outside the softmax


class Memory(NamedTuple):
    """Either `cells` or `reads` is empty (M = 0 or N = 0)."""

    cells: Float[Tensor, "B M D"]
    reads: Float[Tensor, "B N G"]  # what the first layer's gates read of each cell
    keys: Float[Tensor, "B C A"]  # attention's projection of the cells, computed once
    mask: Bool[Tensor, "B C"]


Layer = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of a GRU, each (R, H)


class SaLstm(Captioner):
    def __init__(self, config: SaLstmConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        width, gates = config.project or feature_dim, GATES[config.rnn] * config.hidden
        self.position_embedding = PositionEmbedding(feature_dim) if config.position_embedding else None
        self.project = (
            nn.Sequential(nn.LayerNorm(feature_dim), nn.Linear(feature_dim, width), nn.ReLU())
            if config.project
            else nn.Identity()
        )
        self.embed = nn.Embedding(vocabulary_size, config.embed)
        self.attend = AdditiveAttention(config.hidden, width, config.attention)
        self.read_word = nn.Linear(config.embed, gates)
        self.read_context = nn.Linear(width, gates, bias=False)
        self.read_below = nn.ModuleList(nn.Linear(config.hidden, gates) for _ in range(config.layers - 1))
        self.carry = nn.ModuleList(nn.Linear(config.hidden, gates) for _ in range(config.layers))
        self.head = WordHead(config.hidden, vocabulary_size, config.mask_special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.word_dropout = nn.Dropout(config.word_dropout)
        self.cell_dropout = nn.Dropout(config.cell_dropout)
        self._initialise()

    def _initialise(self) -> None:
        for linear in (self.read_word, self.read_context, *self.read_below, *self.carry):
            for parameter in linear.parameters():  # as torch's recurrent layers
                nn.init.uniform_(parameter, -(self.config.hidden**-0.5), self.config.hidden**-0.5)
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        nn.init.uniform_(self.head.weight, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        inputs = self.located(inputs)
        cells = self.cell_dropout(self.project(inputs.grid))
        memory = Memory(cells, cells.new_empty(len(cells), 0, 0), self.attend.key(cells), inputs.mask)
        return memory if torch.is_grad_enabled() or cells.shape[1] > FEW else self.read(memory)

    def located(self, features: Features) -> Features:
        """Cells as they are attended: told their places; unmasked, padding is 0 but for its place, and attended too."""
        if not self.config.masked:
            features = replace(features, grid=features.grid.masked_fill(~features.mask[..., None], 0.0))
        told = self.position_embedding.add_to(features) if self.position_embedding else features
        return told if self.config.masked else replace(told, mask=torch.ones_like(told.mask))

    @torch.no_grad()
    def prepare_for_occlusion(self, features: Features) -> tuple[Captioner, Features]:
        return (
            (self.without("position_embedding"), self.located(features))
            if self.position_embedding
            else (self, features)
        )

    def read(self, memory: Memory) -> Memory:
        """The memory of which only `reads` is left, not the cells."""
        return memory._replace(cells=memory.cells[:, :0], reads=self.read_context(memory.cells))

    def init_state(self, memory: Memory) -> tuple[Layer, ...]:
        zero = memory.keys.new_zeros(len(memory.keys), self.config.hidden)
        return ((zero, zero) if self.config.rnn == "lstm" else (zero,),) * self.config.layers

    def advance(
        self, word: Float[Tensor, "R G"], state: tuple[Layer, ...], memory: Memory
    ) -> tuple[tuple[Layer, ...], Float[Tensor, "R N"]]:
        """One recurrence: what the first layer's gates read of the word, and the state -> the new state, attention."""
        known = memory.reads.shape[1] > 0
        values = memory.reads if known else memory.cells
        context, attention = self.attend(self.hidden(state), values, memory.keys, memory.mask)
        read = word + (context if known else self.read_context(context))
        new: list[Layer] = []
        for layer, carry in zip(state, self.carry, strict=True):
            if new:
                read = self.read_below[len(new) - 1](self.dropout(new[-1][0]))
            new.append(recur(read, carry(layer[0]), layer))
        return tuple(new), attention

    def step(self, token: Int[Tensor, " R"], state: tuple[Layer, ...], memory: Memory) -> Step:
        word = self.read_word(self.word_dropout(self.embed(token)))
        state, attention = self.advance(word, state, memory)
        return Step(self.head(self.dropout(self.hidden(state))), state, attention)

    def hidden(self, state: tuple[Layer, ...]) -> Float[Tensor, "R H"]:
        return state[-1][0]

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """Rows are sorted by length, so that step t runs only the rows that still have a word to predict; the words
        are embedded and multiplied at once, and the word head runs once."""
        alive = not_ended(tokens)
        order = alive.sum(1).argsort(descending=True, stable=True)
        counts = [n for n in alive.sum(0).tolist() if n]
        # each cell once, or each context: measured on a CPU (2,048 channels, with gradients), where a step costs as
        # much as 20 cells and a context as much as 2
        if memory.reads.shape[1] == 0 and memory.mask.numel() <= 2 * sum(counts) + 20 * len(counts):
            memory = self.read(memory)
        captions = len(tokens) // len(memory.keys)  # K rows of tokens share a row of memory
        memory = Memory(*(tensor[order // captions] for tensor in memory))
        row = torch.cat([order[:n] for n in counts])
        time = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(order)
        words = self.read_word(self.word_dropout(self.embed(tokens[row, time]))).split(counts)
        state, hidden, attentions = self.init_state(memory), [], []
        for n, word in zip(counts, words, strict=True):
            state, attention = self.advance(
                word, map_tensors(lambda x, n=n: x[:n], state), Memory(*(tensor[:n] for tensor in memory))
            )
            hidden.append(self.hidden(state))
            attentions.append(attention)

        def spread(packed: Tensor) -> Tensor:
            return packed.new_zeros(*tokens.shape, packed.shape[-1]).index_put((row, time), packed)

        states = torch.cat(hidden)
        return TeacherForced(spread(self.head(self.dropout(states))), spread(torch.cat(attentions)), spread(states))


def recur(read: Float[Tensor, "R G"], carried: Float[Tensor, "R G"], layer: Layer) -> Layer:
    """One step of an LSTM (Hochreiter and Schmidhuber 1997, with forget gate) or a GRU (Cho et al. 2014,
    arXiv:1406.1078, the reset gate after the product as in cuDNN): `read` and `carried` are the gates' products with
    the layer's input and with its last h."""
    if len(layer) == 2:
        i, f, g, o = (read + carried).chunk(4, 1)
        c = torch.sigmoid(f) * layer[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (h,) = layer
    (r, z, n), (hr, hz, hn) = read.chunk(3, 1), carried.chunk(3, 1)
    n = torch.tanh(n + torch.sigmoid(r + hr) * hn)
    return (n + torch.sigmoid(z + hz) * (h - n),)
