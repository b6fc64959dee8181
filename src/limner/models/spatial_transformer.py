"""Spatial transformer: a pre-norm encoder and decoder over cells with position encodings.

It is the model of sidharth5n/Spatial-Image-Captioning (positions gxg, g2, box; cross attention dot-product or
X-linear).  With `geometry` it is the Object Relation Transformer (arXiv:1906.05963), and with neither positions nor
geometry the transformer of ruotianluo/self-critical.pytorch.

The keys and values of the cells for every decoder layer are computed once per medium.  `step` caches the keys and
values of the words so far; searches on a CPU share them among hypotheses (`models.spatial_transformer_step`).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limner.core.derived import Derived
from limner.core.fields import FractionBelowOne, PositiveInt
from limner.core.types import Features, Pixels
from limner.models.attention_blocks import (
    NORMS,
    DotProduct,
    FeedForward,
    KeyValue,
    channels_first_in_memory,
    sinusoidal_table,
    split_heads,
)
from limner.models.captioner import Captioner, DecodingStep, Step, TeacherForced, map_tensors, not_ended
from limner.models.geometry import GeometryBias, box_fourier_features, pairwise_geometry
from limner.models.grid_positions import GRID_POSITIONS, POSITIONS, AreaShare, grid_side
from limner.models.layers import WordHead
from limner.models.packed_linear import SmallBatchLinear, can_pack
from limner.models.position_embedding import PositionEmbedding
from limner.models.xlinear import XLinear


@dataclass(frozen=True)
class SpatialTransformerConfig:
    """Options of `spatial_transformer`.  The defaults suit some thousand images.  Published: 6 layers each, dim 512,
    hidden 2048, feature_norm off."""

    name: Literal["spatial_transformer"] = "spatial_transformer"
    encoder_layers: PositiveInt = 2  # layers over the cells
    decoder_layers: PositiveInt = 3  # layers over the words
    dim: PositiveInt = 256  # width of cells and words
    hidden: PositiveInt = 1024  # of the feed-forward layers
    heads: PositiveInt = 8  # of every attention
    norm: Literal["layer", "rms", "unbiased"] = "layer"  # unbiased: of the Annotated Transformer, see UnbiasedNorm
    activation: Literal["relu", "gelu"] = "relu"  # of the feed-forward layers
    cross_attention: Literal["dot-product", "xlinear"] = "dot-product"  # xlinear always has one head
    positions: Literal["gxg", "g2", "box", "sinusoidal", "none"] = "gxg"  # the position encoding of cells
    num_grids: PositiveInt = 144  # G, a square number: cells of the grid that gxg, g2 and sinusoidal use
    share: AreaShare = "box"  # overlaps with grid cells are shares of the area of the box, or of the grid cell
    geometry: bool = False  # the encoder's attention depends on the displacement of boxes (see `geometry`)
    position_embedding: bool = False  # Fourier features of time and place, in addition to `positions`
    feature_norm: bool = True  # LayerNorm on the features
    dropout: FractionBelowOne = 0.2  # after sublayers, on attention weights and in feed-forward layers
    cell_dropout: FractionBelowOne = 0.2  # on the embedded cells
    mask_special_tokens: bool = True  # PAD and BOS get probability 0

    def __post_init__(self) -> None:
        if self.positions in GRID_POSITIONS:
            grid_side(self.num_grids)
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim is {self.dim}; it must be even and a multiple of the number of heads, {self.heads}")


class Memory(NamedTuple):
    """What is computed once per medium."""

    key_values: tuple[KeyValue, ...]  # of the cells for each decoder layer, (B, N, D) each
    mask: Bool[Tensor, "B N"]


class WordCache(NamedTuple):
    """Keys and values of the t words so far in one decoder layer; split heads need no copy at the next step."""

    key: Float[Tensor, "R H t d"]
    value: Float[Tensor, "R H t d"]


class State(NamedTuple):
    """The key-value cache of the words."""

    past: tuple[WordCache, ...]  # for each decoder layer
    output: Float[Tensor, "R D"]  # the vector from which the last logits were computed


class SpatialTransformer(Captioner):
    """Encoder and decoder, configured by `SpatialTransformerConfig`."""

    def __init__(self, config: SpatialTransformerConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        dim = config.dim
        self.position_embedding = PositionEmbedding(feature_dim) if config.position_embedding else None
        self.feature_norm = nn.LayerNorm(feature_dim) if config.feature_norm else nn.Identity()
        self.cells = SmallBatchLinear(feature_dim, dim)
        self.positions = POSITIONS[config.positions](dim, config.num_grids, config.share)
        self.cell_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.cell_norm = NORMS[config.norm](dim)
        self.embed = nn.Embedding(vocabulary_size, dim)
        self.word_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.word_norm = NORMS[config.norm](dim)
        self.head = WordHead(dim, vocabulary_size, config.mask_special_tokens)
        self.dropout = nn.Dropout(config.dropout)
        self.cell_dropout = nn.Dropout(config.cell_dropout)
        self._tree_step = Derived[DecodingStep]()
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.embed.weight, std=dim**-0.5)  # `decode_words` multiplies by dim ** .5
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=0.02)

    def encode(self, inputs: Features | Pixels) -> Memory:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        cells, mask = self.add_positions(self.embed_cells(inputs), inputs), inputs.mask
        bias = self.geometry_features(inputs)
        for layer in self.cell_layers:
            cells = layer(cells, mask, bias)
        cells = self.cell_norm(cells)
        known = tuple(cast(DecoderLayer, layer).attend_cells.project(cells) for layer in self.word_layers)
        if not torch.is_grad_enabled() and self.config.cross_attention == "dot-product":  # every step reads them again
            known = map_tensors(channels_first_in_memory, known)
        return Memory(known, mask)

    def embed_cells(self, features: Features) -> Float[Tensor, "B N D"]:
        """The embedded cells: linear layer and ReLU, 0 at padding."""
        grid = (self.position_embedding.add_to(features) if self.position_embedding else features).grid
        cells = torch.relu(self.cells(self.feature_norm(grid)))
        return self.cell_dropout(cells.masked_fill(~features.mask[..., None], 0.0))

    def add_positions(self, cells: Float[Tensor, "B N D"], features: Features) -> Float[Tensor, "B N D"]:
        """The embedded cells with their position encoding."""
        placed = self.positions(cells, features.boxes.to(cells.dtype))
        return placed if self.config.positions == "none" else self.dropout(placed)

    def geometry_features(self, features: Features) -> Float[Tensor, "b N N 64"] | None:
        """Fourier features of the displacement of all pairs of boxes; b = 1 when all media have the layout's boxes."""
        if not self.config.geometry:
            return None
        boxes = features.boxes if features.regions is not None else features.boxes[:1]
        return box_fourier_features(pairwise_geometry(boxes.float())).to(features.grid.dtype)

    def init_state(self, memory: Memory) -> State:
        rows, heads, dim = len(memory.mask), self.config.heads, self.config.dim
        empty = memory.mask.new_zeros(rows, heads, 0, dim // heads, dtype=self.embed.weight.dtype)
        return State(tuple(WordCache(empty, empty) for _ in self.word_layers), empty.new_zeros(rows, dim))

    def decode_words(
        self, tokens: Int[Tensor, "R L"], state: State, memory: Memory, alive: Bool[Tensor, "R L"] | None = None
    ) -> tuple[Float[Tensor, "R L D"], State, Float[Tensor, "R L N"]]:
        """Read L more words per row, after the t words in `state`.

        -> output vectors for the word layer, the new state, and attention averaged over layers and heads.  Words that
        are not `alive` (padding) do not attend to the cells.
        """
        before, length = state.past[0].key.shape[2], tokens.shape[1]
        position = torch.arange(before, before + length, device=tokens.device)
        x = self.dropout(self.embed(tokens) * self.config.dim**0.5 + sinusoidal_table(position, self.config.dim))
        causal = None  # a single word sees all words so far
        if length > 1:
            causal = torch.ones(1, length, before + length, dtype=torch.bool, device=tokens.device).tril(before)
        cache, attention = [], []
        mask = memory.mask[:, None]  # the rows of a medium attend to its cells together
        mask = mask if alive is None else mask & alive.reshape(len(mask), -1, 1)
        for layer, past, cells in zip(self.word_layers, state.past, memory.key_values, strict=True):
            x, words, weights = layer(x, past, causal, cells, mask)
            cache.append(words)
            attention.append(weights)
        x = self.word_norm(x)
        return x, State(tuple(cache), x[:, -1]), torch.stack(attention).mean(0)

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        x, state, attention = self.decode_words(token[:, None], state, memory)
        return Step(self.head(x[:, 0]), state, attention[:, 0])

    def decoding_step(self) -> DecodingStep:
        """`step` on a tree of words, in evaluation without gradients on a CPU (`models.spatial_transformer_step`)."""
        if self.training or not can_pack(*self.parameters()):
            return self.step
        from limner.models.spatial_transformer_step import TreeStep  # imported here: it imports this module

        return self._tree_step.get(self.parameters(), lambda: TreeStep(self))

    def hidden(self, state: State) -> Float[Tensor, "R D"]:
        return state.output

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """All words at once with a causal mask.  The word layer runs only where a word must be predicted."""
        alive = not_ended(tokens)
        longest = int(alive.sum(1).max())
        captions = len(tokens) // len(memory.mask)  # K rows of tokens share a row of memory
        state = map_tensors(lambda x: x.repeat_interleave(captions, 0), self.init_state(memory))
        x, _, weights = self.decode_words(tokens[:, :longest], state, memory, alive[:, :longest])
        row, time = alive.nonzero(as_tuple=True)
        words = self.head(x[row, time])
        logits = words.new_zeros(*tokens.shape, words.shape[-1]).index_put((row, time), words)
        attention = weights.new_zeros(*tokens.shape, weights.shape[-1]).index_put((row, time), weights[row, time])
        hidden = x.new_zeros(*tokens.shape, x.shape[-1]).index_put((row, time), x[row, time])
        return TeacherForced(logits, attention, hidden)


class EncoderLayer(nn.Module):
    """Pre-norm self-attention over the cells, and a feed-forward layer; `relations` are the geometry features."""

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
        attended, _ = self.attend(normed, self.attend.project(normed), mask[:, None], bias)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class DecoderLayer(nn.Module):
    """Pre-norm attention over the words so far, attention over the cells, and a feed-forward layer."""

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
        past: WordCache,
        causal: Bool[Tensor, "1 L T"] | None,
        cells: KeyValue,
        mask: Bool[Tensor, "B #Q N"],  # noqa: F821 (a shape, not a name)
    ) -> tuple[Float[Tensor, "R L D"], WordCache, Float[Tensor, "R L N"]]:
        """-> the words, their keys and values joined to those of the `past`, and the attention over the cells."""
        normed = self.norms[0](x)
        own = (split_heads(x, self.attend_words.heads) for x in self.attend_words.project(normed))
        past = WordCache(*(torch.cat(pair, 2) for pair in zip(past, own, strict=True)))
        x = x + self.dropout(self.attend_words.attend_split(normed, *past, causal)[0])
        queries = self.norms[1](x).reshape(len(mask), -1, x.shape[-1])
        attended, weights = self.attend_cells(queries, cells, mask)
        x = x + self.dropout(attended.reshape(x.shape))
        x = x + self.dropout(self.feed_forward(self.norms[2](x)))
        return x, past, weights.reshape(*x.shape[:2], -1)
