"""Spatial transformer: a pre-norm encoder and decoder over cells that are told where in the picture they lie.

The model of sidharth5n/Spatial-Image-Captioning (positions gxg, g2, box; cross attention dot-product or X-linear), with
`geometry` that of the Object Relation Transformer (arXiv:1906.05963), and with neither the transformer of
ruotianluo/self-critical.pytorch.  What every layer of the decoder reads of the cells is computed once per medium, and
`step` keeps the keys and values of the words that were said.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import Features, Pixels
from limner.models.attention_blocks import NORMS, DotProduct, FeedForward, Known, sinusoids
from limner.models.captioner import Captioner, Step, TeacherForced, map_tensors, not_ended
from limner.models.geometry import GeometryBias, box_fourier_features, relations
from limner.models.grid_positions import GRIDS, POSITIONS, Share, side_of
from limner.models.layers import WordHead
from limner.models.position_embedding import PositionEmbedding
from limner.models.xlinear import XLinear


@dataclass(frozen=True)
class SpatialTransformerConfig:
    """The defaults suit some thousand pictures; as published: 6 layers each, dim 512, hidden 2048, feature_norm off."""

    name: Literal["spatial_transformer"] = "spatial_transformer"
    encoder_layers: PositiveInt = 2  # layers over the cells
    decoder_layers: PositiveInt = 3  # layers over the words
    dim: PositiveInt = 256  # width of cells and words
    hidden: PositiveInt = 1024  # of the feed-forward layers
    heads: PositiveInt = 8  # of every attention
    norm: Literal["layer", "rms", "unbiased"] = "layer"  # unbiased: that of the Annotated Transformer and its children
    activation: Literal["relu", "gelu"] = "relu"  # of the feed-forward layers
    cross_attention: Literal["dot-product", "xlinear"] = "dot-product"  # xlinear has one head, whatever `heads` says
    positions: Literal["gxg", "g2", "box", "sinusoidal", "none"] = "gxg"  # how cells know their place
    num_grids: PositiveInt = 144  # G, a square number: gxg, g2 and sinusoidal see a grid of so many cells
    share: Share = "box"  # of whose area the overlap of a region (box) with a cell of that grid is a part
    geometry: bool = False  # the encoder's attention knows how boxes lie to each other
    position_embedding: bool = False  # time and place of cells, beside `positions`
    feature_norm: bool = True  # LayerNorm on the features
    dropout: FractionBelowOne = 0.2  # after every sublayer, on attention weights, and inside feed-forward layers
    cell_dropout: FractionBelowOne = 0.2  # on the embedded cells
    mask_special_tokens: bool = True  # PAD and BOS are outside the softmax

    def __post_init__(self) -> None:
        if self.positions in GRIDS:
            side_of(self.num_grids)
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even and a multiple of the number of heads, {self.heads}")


class Memory(NamedTuple):
    known: tuple[Known, ...]  # what each layer of the decoder reads of the cells, (B, N, D) each
    mask: Bool[Tensor, "B N"]


class State(NamedTuple):
    words: tuple[Known, ...]  # of each layer the keys and values of the words so far, (R, t, D) each
    read: Float[Tensor, "R D"]  # what the last scores were read from


class SpatialTransformer(Captioner):
    def __init__(self, config: SpatialTransformerConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        dim = config.dim
        self.position_embedding = PositionEmbedding(feature_dim) if config.position_embedding else None
        self.feature_norm = nn.LayerNorm(feature_dim) if config.feature_norm else nn.Identity()
        self.cells = nn.Linear(feature_dim, dim)
        self.positions = POSITIONS[config.positions](dim, config.num_grids, config.share)
        self.cell_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.cell_norm = NORMS[config.norm](dim)
        self.embed = nn.Embedding(vocabulary_size, dim)
        self.word_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.word_norm = NORMS[config.norm](dim)
        self.head = WordHead(dim, vocabulary_size, config.mask_special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.cell_dropout = nn.Dropout(config.cell_dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.embed.weight, std=dim**-0.5)  # times dim ** .5, and so no fainter than the sinusoids
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        cells, mask = self.located(self.embedded(inputs), inputs), inputs.mask
        bias = self.relations(inputs)
        for layer in self.cell_layers:
            cells = layer(cells, mask, bias)
        cells = self.cell_norm(cells)
        return Memory(tuple(cast(DecoderLayer, layer).attend_cells.project(cells) for layer in self.word_layers), mask)

    def embedded(self, features: Features) -> Float[Tensor, "B N D"]:
        """Linear and ReLU; padding is 0 (not the ReLU of the bias)."""
        grid = (self.position_embedding.add_to(features) if self.position_embedding else features).grid
        cells = torch.relu(self.cells(self.feature_norm(grid)))
        return self.cell_dropout(cells.masked_fill(~features.mask[..., None], 0.0))

    def located(self, cells: Float[Tensor, "B N D"], features: Features) -> Float[Tensor, "B N D"]:
        """Cells that know where in the picture they lie."""
        located = self.positions(cells, features.boxes.to(cells.dtype))
        return located if self.config.positions == "none" else self.dropout(located)

    def relations(self, features: Features) -> Float[Tensor, "b N N 64"] | None:
        """b = 1 where all media have the boxes of the layout."""
        if not self.config.geometry:
            return None
        boxes = features.boxes if features.regions is not None else features.boxes[:1]
        return box_fourier_features(relations(boxes.float())).to(features.grid.dtype)

    def init_state(self, memory: Memory) -> State:
        empty = memory.mask.new_zeros(len(memory.mask), 0, self.config.dim, dtype=self.embed.weight.dtype)
        return State(tuple(Known(empty, empty) for _ in self.word_layers), empty.sum(1))

    def read(
        self, tokens: Int[Tensor, "R L"], state: State, memory: Memory, alive: Bool[Tensor, "R L"] | None = None
    ) -> tuple[Float[Tensor, "R L D"], State, Float[Tensor, "R L N"]]:
        """L more words for each row, after the t that `state` holds -> what the scores are read from, the new state,
        and the attention: the mean over layers and heads.  Words that are not `alive` need not look at the cells."""
        said, length = state.words[0].key.shape[1], tokens.shape[1]
        place = torch.arange(said, said + length, device=tokens.device)
        x = self.dropout(self.embed(tokens) * self.config.dim**0.5 + sinusoids(place, self.config.dim))
        seen = torch.ones(1, length, said + length, dtype=torch.bool, device=tokens.device).tril(said)
        after, attention = [], []
        mask = memory.mask[:, None]  # the rows of a medium read its cells together
        mask = mask if alive is None else mask & alive.reshape(len(mask), -1, 1)
        for layer, past, known in zip(self.word_layers, state.words, memory.known, strict=True):
            x, words, weights = layer(x, past, seen, known, mask)
            after.append(words)
            attention.append(weights)
        x = self.word_norm(x)
        return x, State(tuple(after), x[:, -1]), torch.stack(attention).mean(0)

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        x, state, attention = self.read(token[:, None], state, memory)
        return Step(self.head(x[:, 0]), state, attention[:, 0])

    def hidden(self, state: State) -> Float[Tensor, "R D"]:
        return state.read

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """All words at once; each sees those before it.  The word head runs where a word is to be predicted."""
        alive = not_ended(tokens)
        longest = int(alive.sum(1).max())
        captions = len(tokens) // len(memory.mask)  # K rows of tokens share a row of memory
        state = map_tensors(lambda x: x.repeat_interleave(captions, 0), self.init_state(memory))
        x, _, weights = self.read(tokens[:, :longest], state, memory, alive[:, :longest])
        row, time = alive.nonzero(as_tuple=True)
        spoken = self.head(x[row, time])
        logits = spoken.new_zeros(*tokens.shape, spoken.shape[-1]).index_put((row, time), spoken)
        attention = weights.new_zeros(*tokens.shape, weights.shape[-1]).index_put((row, time), weights[row, time])
        hidden = x.new_zeros(*tokens.shape, x.shape[-1]).index_put((row, time), x[row, time])
        return TeacherForced(logits, attention, hidden)


class EncoderLayer(nn.Module):
    def __init__(self, config: SpatialTransformerConfig):
        super().__init__()
        self.norms = nn.ModuleList(NORMS[config.norm](config.dim) for _ in range(2))
        self.attend = DotProduct(config.dim, config.heads, config.dropout)
        self.geometry = GeometryBias(config.heads) if config.geometry else None
        self.feed_forward = FeedForward(config.dim, config.hidden, config.activation, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], relations: Float[Tensor, "b N N 64"] | None
    ) -> Float[Tensor, "B N D"]:
        bias = None if self.geometry is None or relations is None else self.geometry(relations)
        normed = self.norms[0](x)
        read, _ = self.attend(normed, self.attend.project(normed), mask[:, None], bias)
        x = x + self.dropout(read)
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class DecoderLayer(nn.Module):
    def __init__(self, config: SpatialTransformerConfig):
        super().__init__()
        self.norms = nn.ModuleList(NORMS[config.norm](config.dim) for _ in range(3))
        self.attend_words = DotProduct(config.dim, config.heads, config.dropout)
        self.attend_cells: DotProduct | XLinear = (
            XLinear(config.dim, dropout=config.dropout)
            if config.cross_attention == "xlinear"
            else DotProduct(config.dim, config.heads, config.dropout)
        )
        self.feed_forward = FeedForward(config.dim, config.hidden, config.activation, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "R L D"],
        past: Known,
        seen: Bool[Tensor, "1 L T"],
        cells: Known,
        mask: Bool[Tensor, "B #Q N"],
    ) -> tuple[Float[Tensor, "R L D"], Known, Float[Tensor, "R L N"]]:
        """-> the words, the keys and values that the next ones will see, and the attention over the cells."""
        normed = self.norms[0](x)
        own = self.attend_words.project(normed)
        past = Known(torch.cat([past.key, own.key], 1), torch.cat([past.value, own.value], 1))
        x = x + self.dropout(self.attend_words(normed, past, seen)[0])
        queries = self.norms[1](x).reshape(len(mask), -1, x.shape[-1])
        read, weights = self.attend_cells(queries, cells, mask)
        x = x + self.dropout(read.reshape(x.shape))
        x = x + self.dropout(self.feed_forward(self.norms[2](x)))
        return x, past, weights.reshape(*x.shape[:2], -1)
