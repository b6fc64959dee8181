"""Captioners for maps over time and space (T, H, W): the clip as the LSTM's first input, and attention over its cells.

`FirstToken` is the reference system (yiskw713/VideoCaptioning after Vinyals et al. 2015, arXiv:1411.4555): a vector of
the clip is the LSTM's input of step 0, the words follow, nothing is attended.  Its step 0 is trained to predict
<start>.  Here step 0 is `init_state`, whose prediction is not computed, and BOS is the input of the first `step`:
decoding, teacher forcing and every objective see the words alone.

`SpatioTemporal` is ours: `ShowAttendTell` over all T x H x W cells, each of which is told when and where it is.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from limner.core.fields import FractionBelowOne, NonNegativeFloat, PositiveInt
from limner.core.types import Features, Layout, Pixels
from limner.models.captioner import Captioner, CaptionerWrapper, Step, TeacherForced, not_ended
from limner.models.layers import WordHead, masked_max
from limner.models.position_embedding import PositionEmbedding
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig


@dataclass(frozen=True)
class FirstTokenConfig:
    name: Literal["first_token"] = "first_token"
    embed: PositiveInt = 256  # width of the word vectors and of the clip's vector
    hidden: PositiveInt = 512  # width of the LSTM's state
    layers: PositiveInt = 1  # LSTM layers
    align: tuple[PositiveInt, PositiveInt, PositiveInt] | None = (
        None  # maps are first resampled to this (T, H, W); published: 10, 7, 7
    )
    pool: Literal["mean", "max"] = "mean"  # of the cells; maximum learns small things faster from pixels
    noise: NonNegativeFloat = 0.0  # standard deviation of Gaussian noise on the features in training; published: 0.01
    dropout: FractionBelowOne = 0.0  # before the word head
    mask_special_tokens: bool = True  # PAD and BOS are outside the softmax


class Noise(nn.Module):
    """Adds Gaussian noise in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return x + self.deviation * torch.randn_like(x) if self.training and self.deviation else x


class Memory(NamedTuple):
    cells: Float[Tensor, "B M D"]  # after the 1x1x1 convolution, before its BatchNorm: what Grad-CAM differentiates by
    video: Float[Tensor, "B E"]  # the LSTM's first input
    attention: Float[Tensor, "B N"]  # the same for all real cells and every word


class State(NamedTuple):
    h: Float[Tensor, "R S H"]  # S layers
    c: Float[Tensor, "R S H"]


class FirstToken(Captioner):
    attends = False
    reads_media_as_published = True

    def __init__(self, config: FirstTokenConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        self.noise = Noise(config.noise)
        self.conv = nn.Linear(feature_dim, feature_dim)  # over the channels of a cell: a 1x1x1 convolution
        self.conv_norm = nn.BatchNorm1d(feature_dim)
        self.linear = nn.Linear(feature_dim, config.embed)
        self.norm = nn.BatchNorm1d(config.embed, momentum=0.01)
        self.embed = nn.Embedding(vocabulary_size, config.embed)
        self.lstm = nn.LSTM(config.embed, config.hidden, config.layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.head = WordHead(config.hidden, vocabulary_size, config.mask_special_tokens)
        self._initialise()

    def _initialise(self) -> None:
        """As published: Xavier, biases 0, words uniform in [0, 1]."""
        nn.init.xavier_normal_(self.conv.weight)
        for weight in (self.linear.weight, self.head.weight, *(p for p in self.lstm.parameters() if p.dim() == 2)):
            nn.init.xavier_uniform_(weight)
        for bias in (
            self.conv.bias,
            self.linear.bias,
            self.head.bias,
            *(p for p in self.lstm.parameters() if p.dim() == 1),
        ):
            nn.init.zeros_(bias)
        nn.init.uniform_(self.embed.weight)

    def encode(self, inputs: Features | Pixels) -> Memory:
        """Raises ValueError when `align` is asked for cells that are no whole map."""
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        attention = inputs.mask / inputs.mask.sum(1, keepdim=True).clamp(min=1)
        grid, mask = inputs.grid, inputs.mask
        if self.config.align is not None:
            grid = resampled(inputs, Layout(*self.config.align))
            mask = torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device)
        cells = self.conv(self.noise(grid))
        # else padding is taken out: it has no part in the statistics (what is exported reads an encoder: all are real)
        whole = torch.compiler.is_compiling() or bool(mask.all())
        real = torch.relu(_normalised(self.conv_norm, cells.flatten(0, 1) if whole else cells[mask]))
        spread = real.view_as(cells) if whole else real.new_zeros(cells.shape).masked_scatter(mask[..., None], real)
        if self.config.pool == "mean":
            pooled = spread.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            pooled = masked_max(spread, mask)
        return Memory(cells, _normalised(self.norm, self.linear(pooled)), attention.to(grid.dtype))

    def gradcam_cells(self, memory: Memory, features: Features) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"]]:
        """Its convolved cells before their normalisation: the published form has a layer of its own for Grad-CAM."""
        aligned = self.config.align is not None
        return memory.cells, torch.ones_like(memory.cells[..., 0], dtype=torch.bool) if aligned else features.mask

    @torch.no_grad()
    def prepare_for_occlusion(self, features: Features) -> tuple[Captioner, Features]:
        if self.config.align is None:
            return self, features
        layout = Layout(*self.config.align)
        grid = resampled(features, layout)
        aligned = self.without()
        aligned.config = replace(self.config, align=None)
        return aligned, Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), layout)

    def init_state(self, memory: Memory) -> State:
        """Step 0: the clip is read from the zero state."""
        _, (h, c) = self.lstm(memory.video[:, None])
        return State(h.transpose(0, 1), c.transpose(0, 1))

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        out, (h, c) = self.lstm(self.embed(token)[:, None], _layers_first(state))
        attention = memory.attention.repeat_interleave(len(token) // len(memory.attention), 0)
        return Step(self.head(self.dropout(out[:, 0])), State(h.transpose(0, 1), c.transpose(0, 1)), attention)

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """One pass of the LSTM over all words of all rows; the word head runs over those that have a successor."""
        alive = not_ended(tokens)
        captions = len(tokens) // len(memory.video)
        state = State(*(x.repeat_interleave(captions, 0) for x in self.init_state(memory)))
        lengths = alive.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed, _layers_first(state))[0], True, total_length=tokens.shape[1])
        words = self.head(self.dropout(hidden[alive]))
        logits = words.new_zeros(*tokens.shape, words.shape[-1]).masked_scatter(alive[..., None], words)
        attention = memory.attention.repeat_interleave(captions, 0)[:, None] * alive[..., None]
        return TeacherForced(logits, attention, hidden * alive[..., None])

    def hidden(self, state: State) -> Float[Tensor, "R H"]:
        """The top layer's."""
        return state.h[:, -1]


def _normalised(norm: nn.BatchNorm1d, x: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
    """A lone row has no variance: a last batch of one clip is normalised by the running statistics."""
    if len(x) > 1:
        return norm(x)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _layers_first(state: State) -> tuple[Tensor, Tensor]:
    return state.h.transpose(0, 1).contiguous(), state.c.transpose(0, 1).contiguous()


def resampled(features: Features, layout: Layout) -> Float[Tensor, "B M D"]:
    """Every clip's own frames, padding left out, brought to `layout` trilinearly (corners not aligned).

    Raises ValueError when a clip's cells are no whole map of some frames.
    """
    t, h, w = features.layout
    if torch.compiler.is_compiling():  # for export, where nothing is padding
        maps = features.grid.unflatten(1, (t, h, w)).movedim(-1, 1)
        return F.interpolate(maps, tuple(layout), mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)
    frames = features.mask.unflatten(1, (t, h * w))
    lengths = frames.any(2).sum(1)
    whole = torch.arange(t, device=lengths.device)[None] < lengths[:, None]
    if not torch.equal(frames, whole[..., None].expand_as(frames)) or not lengths.all():
        raise ValueError(
            f"model.align resamples whole maps, but cells are missing within the layout {tuple(features.layout)}; "
            "detected regions have no map: set model.align to null"
        )
    maps = features.grid.unflatten(1, (t, h, w)).movedim(-1, 1)
    rows = []
    for one, length in zip(maps, lengths.tolist(), strict=True):
        rows.append(F.interpolate(one[None, :, :length], tuple(layout), mode="trilinear", align_corners=False))
    return torch.cat(rows).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class SpatioTemporalConfig:
    """The sizes mean what they mean in `ShowAttendTellConfig`."""

    name: Literal["spatio_temporal"] = "spatio_temporal"
    hidden: PositiveInt = 512  # width of the LSTM's state
    embed: PositiveInt = 512  # width of the word vectors
    attention: PositiveInt = 512  # width of the attention's MLP
    project: PositiveInt | None = None  # cells are first brought to this width; None: raw
    activation: Literal["relu", "tanh"] = "tanh"  # of the attention's MLP
    initial: Literal["mean", "max"] = "mean"  # the first state is made of the cells' mean or maximum
    dropout: FractionBelowOne = 0.5  # before the word head
    word_dropout: FractionBelowOne = 0.0  # on the embedded words
    cell_dropout: FractionBelowOne = 0.0  # on the (projected) cells
    deep_output: bool = False  # the word head also reads the last word and the context
    mask_special_tokens: bool = True  # PAD and BOS are outside the softmax
    noise: NonNegativeFloat = 0.0  # standard deviation of Gaussian noise on the features in training


class SpatioTemporal(CaptionerWrapper):
    position_embedding: PositionEmbedding
    captioner: ShowAttendTell

    def __init__(self, config: SpatioTemporalConfig, vocabulary_size: int, feature_dim: int):
        super().__init__()
        self.config = config
        self.noise = Noise(config.noise)
        self.position_embedding = PositionEmbedding(feature_dim)
        sizes = {name: value for name, value in vars(config).items() if name not in ("name", "noise")}
        self.captioner = ShowAttendTell(ShowAttendTellConfig(**sizes), vocabulary_size, feature_dim)

    @property
    def embed(self) -> nn.Embedding:
        return self.captioner.embed

    def encode(self, inputs: Features | Pixels) -> Any:
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        return self.captioner.encode(self.position_embedding.add_to(replace(inputs, grid=self.noise(inputs.grid))))

    @torch.no_grad()
    def prepare_for_occlusion(self, features: Features) -> tuple[Captioner, Features]:
        return self.captioner, self.position_embedding.add_to(features)
