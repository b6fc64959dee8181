"""SA-LSTM: temporal attention (Yao et al. 2015, arXiv:1502.08029) as published in hobincar/SA-LSTM, with LSTM or GRU.

Frame vectors are the cells of a layout (T, 1, 1); maps and regions are attended in the same way.  The attention reads
the top h of the step before.  The first layer reads the context and the last word.  States begin at zero.  The word
layer reads h alone, as in the published code; in the paper it also reads the context and the last word.

The first layer needs only W c of a context c = sum_n a_n v_n, and W c = sum_n a_n (W v_n).  When few cells are read
often (a beam, many captions), W v_n is computed once per cell and contexts are never computed.  Example: 28 frames and
a beam of 5 over 12 words need 28 products with W instead of 60.
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

GATES = {"lstm": 4, "gru": 3}  # gates in torch's order: i, f, g, o and r, z, n
MAX_PRECOMPUTED_CELLS = 64  # about the contexts that a beam of 5 reads in a dozen words


@dataclass(frozen=True)
class SaLstmConfig:
    """Options of `sa_lstm`."""

    name: Literal["sa_lstm"] = "sa_lstm"
    rnn: Literal["lstm", "gru"] = "lstm"  # kind of the recurrent layers
    layers: PositiveInt = 1  # recurrent layers
    hidden: PositiveInt = 512  # width of their states
    embed: PositiveInt = 468  # width of the word vectors
    attention: PositiveInt = 256  # width of the attention's MLP
    # width of a projection of the cells (LayerNorm, linear, ReLU); None: no projection
    project: PositiveInt | None = None
    position_embedding: bool = False  # False: the model does not know the order of the frames
    dropout: FractionBelowOne = 0.5  # between layers and before the word layer
    word_dropout: FractionBelowOne = 0.0  # on the embedded words
    cell_dropout: FractionBelowOne = 0.0  # on the (projected) cells
    masked: bool = True  # False: padded frames take part in the attention as zeros, as published
    mask_special_tokens: bool = True  # PAD and BOS get probability 0


class Memory(NamedTuple):
    """What is computed once per clip of C cells.  Either `cells` or `gate_inputs` is empty (M = 0 or N = 0)."""

    cells: Float[Tensor, "B M D"]
    gate_inputs: Float[Tensor, "B N G"]  # W v_n: the product of each cell with the first layer's gate weights
    keys: Float[Tensor, "B C A"]  # the attention's linear map of the cells
    mask: Bool[Tensor, "B C"]


LayerState = tuple[Tensor, ...]  # state of one layer: (h, c) of an LSTM, (h,) of a GRU, each (R, H)


class SaLstm(Captioner):
    """LSTM or GRU layers with attention to the frames before every word."""

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
            for parameter in linear.parameters():  # the initialisation of torch's recurrent layers
                nn.init.uniform_(parameter, -(self.config.hidden**-0.5), self.config.hidden**-0.5)
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        nn.init.uniform_(self.head.weight, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        inputs = self.with_positions(inputs)
        cells = self.cell_dropout(self.project(inputs.grid))
        memory = Memory(cells, cells.new_empty(len(cells), 0, 0), self.attend.key(cells), inputs.mask)
        return (
            memory
            if torch.is_grad_enabled() or cells.shape[1] > MAX_PRECOMPUTED_CELLS
            else self.with_gate_inputs(memory)
        )

    def with_positions(self, features: Features) -> Features:
        """The cells with their position embedding.

        With `masked` False padded cells are zeros plus their position, and count as real cells.
        """
        if not self.config.masked:
            features = replace(features, grid=features.grid.masked_fill(~features.mask[..., None], 0.0))
        placed = self.position_embedding.add_to(features) if self.position_embedding else features
        return placed if self.config.masked else replace(placed, mask=torch.ones_like(placed.mask))

    @torch.no_grad()
    def prepare_for_occlusion(self, features: Features) -> tuple[Captioner, Features]:
        return (
            (self.without("position_embedding"), self.with_positions(features))
            if self.position_embedding
            else (self, features)
        )

    def with_gate_inputs(self, memory: Memory) -> Memory:
        """The memory with `gate_inputs` in place of `cells`."""
        return memory._replace(cells=memory.cells[:, :0], gate_inputs=self.read_context(memory.cells))

    def init_state(self, memory: Memory) -> tuple[LayerState, ...]:
        zero = memory.keys.new_zeros(len(memory.keys), self.config.hidden)
        return ((zero, zero) if self.config.rnn == "lstm" else (zero,),) * self.config.layers

    def recurrent_step(
        self, word: Float[Tensor, "R G"], state: tuple[LayerState, ...], memory: Memory
    ) -> tuple[tuple[LayerState, ...], Float[Tensor, "R N"]]:
        """One step of attention and all layers -> the new state, attention.

        `word` is the product of the embedded last word with the first layer's gate weights.
        """
        precomputed = memory.gate_inputs.shape[1] > 0
        values = memory.gate_inputs if precomputed else memory.cells
        context, attention = self.attend(self.hidden(state), values, memory.keys, memory.mask)
        gates = word + (context if precomputed else self.read_context(context))
        new: list[LayerState] = []
        for layer, carry in zip(state, self.carry, strict=True):
            if new:
                gates = self.read_below[len(new) - 1](self.dropout(new[-1][0]))
            new.append(rnn_cell(gates, carry(layer[0]), layer))
        return tuple(new), attention

    def step(self, token: Int[Tensor, " R"], state: tuple[LayerState, ...], memory: Memory) -> Step:
        word = self.read_word(self.word_dropout(self.embed(token)))
        state, attention = self.recurrent_step(word, state, memory)
        return Step(self.head(self.dropout(self.hidden(state))), state, attention)

    def hidden(self, state: tuple[LayerState, ...]) -> Float[Tensor, "R H"]:
        return state[-1][0]

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """All steps along given tokens.

        Rows are sorted by length, and step t computes only the rows that still have a word to predict.  Embedded words
        are multiplied once, and the word layer runs once, over all positions together.
        """
        alive = not_ended(tokens)
        order = alive.sum(1).argsort(descending=True, stable=True)
        counts = [n for n in alive.sum(0).tolist() if n]
        # multiply each cell once, or each context.  Measured on a CPU (2,048 channels, with gradients): a step costs as
        # much as 20 cells, a context as much as 2
        if memory.gate_inputs.shape[1] == 0 and memory.mask.numel() <= 2 * sum(counts) + 20 * len(counts):
            memory = self.with_gate_inputs(memory)
        captions = len(tokens) // len(memory.keys)  # K rows of tokens share a row of memory
        memory = Memory(*(tensor[order // captions] for tensor in memory))
        row = torch.cat([order[:n] for n in counts])
        time = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(order)
        words = self.read_word(self.word_dropout(self.embed(tokens[row, time]))).split(counts)
        state, hidden, attentions = self.init_state(memory), [], []
        for n, word in zip(counts, words, strict=True):
            state, attention = self.recurrent_step(
                word, map_tensors(lambda x, n=n: x[:n], state), Memory(*(tensor[:n] for tensor in memory))
            )
            hidden.append(self.hidden(state))
            attentions.append(attention)

        def spread(packed: Tensor) -> Tensor:
            return packed.new_zeros(*tokens.shape, packed.shape[-1]).index_put((row, time), packed)

        states = torch.cat(hidden)
        return TeacherForced(spread(self.head(self.dropout(states))), spread(torch.cat(attentions)), spread(states))


def rnn_cell(gates: Float[Tensor, "R G"], carried: Float[Tensor, "R G"], layer: LayerState) -> LayerState:
    """One step of a recurrent layer -> its new state.

    An LSTM (Hochreiter and Schmidhuber 1997, with forget gate) when the state is (h, c), else a GRU (Cho et al. 2014,
    arXiv:1406.1078, with the reset gate after the matrix product, as in cuDNN).  `gates` is the product of the gate
    weights with the layer's input, `carried` their product with its last h.
    """
    if len(layer) == 2:
        i, f, g, o = (gates + carried).chunk(4, 1)
        c = torch.sigmoid(f) * layer[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (h,) = layer
    (r, z, n), (hr, hz, hn) = gates.chunk(3, 1), carried.chunk(3, 1)
    n = torch.tanh(n + torch.sigmoid(r + hr) * hn)
    return (n + torch.sigmoid(z + hz) * (h - n),)
