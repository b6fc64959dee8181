"""Captioners of feature maps (T, H, W) over time and space: `FirstToken`, and `SpatioTemporal` with attention.

`FirstToken` is the published system yiskw713/VideoCaptioning, after Vinyals et al. 2015 (arXiv:1411.4555).  One vector
of the clip is the LSTM's input at step 0, and the words follow; there is no attention.  The published step 0 is trained
to predict <start>.  Here step 0 is `init_state`, and BOS is the input of the first `step`.  Searches and objectives
therefore see the words alone; only a search with `decoding.predict_start` asks for the prediction of step 0.

`SpatioTemporal` is limner's own: `ShowAttendTell` over all T x H x W cells with a position embedding.
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
    """Options of `first_token`."""

    name: Literal["first_token"] = "first_token"
    embed: PositiveInt = 256  # width of the word vectors and of the clip's vector
    hidden: PositiveInt = 512  # width of the LSTM's state
    layers: PositiveInt = 1  # LSTM layers
    # (T, H, W) to which maps are resampled first; published: 10, 7, 7
    align: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    pool: Literal["mean", "max"] = "mean"  # over the cells; max learns small objects faster from pixels
    noise: NonNegativeFloat = 0.0  # standard deviation of Gaussian noise on the features in training; published: 0.01
    dropout: FractionBelowOne = 0.0  # before the word layer
    mask_special_tokens: bool = True  # PAD and BOS get probability 0


class Noise(nn.Module):
    """Adds Gaussian noise with the given standard deviation, in training only."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return x + self.deviation * torch.randn_like(x) if self.training and self.deviation else x


class Memory(NamedTuple):
    """What is computed once per clip, by `FirstToken`."""

    cells: Float[Tensor, "B M D"]  # after the 1x1x1 convolution, before its BatchNorm: Grad-CAM uses their gradient
    video: Float[Tensor, "B E"]  # the LSTM's first input
    attention: Float[Tensor, "B N"]  # uniform over the real cells, at every word


class State(NamedTuple):
    """The LSTM's state, of S layers."""

    h: Float[Tensor, "R S H"]
    c: Float[Tensor, "R S H"]


class FirstToken(Captioner):
    """An LSTM whose first input is a vector of the clip."""

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
        """The published initialisation: Xavier, biases 0, word embeddings uniform in [0, 1]."""
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
        """Raises ValueError with `align` when cells are missing from a map."""
        assert isinstance(inputs, Features), "a captioner without an encoder in front reads features"
        attention = inputs.mask / inputs.mask.sum(1, keepdim=True).clamp(min=1)
        grid, mask = inputs.grid, inputs.mask
        if self.config.align is not None:
            grid = resample(inputs, Layout(*self.config.align))
            mask = torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device)
        cells = self.conv(self.noise(grid))
        # padding must take no part in the batch statistics; in an exported graph, behind an encoder, all cells are real
        all_real = torch.compiler.is_compiling() or bool(mask.all())
        real = torch.relu(_batch_norm(self.conv_norm, cells.flatten(0, 1) if all_real else cells[mask]))
        spread = real.view_as(cells) if all_real else real.new_zeros(cells.shape).masked_scatter(mask[..., None], real)
        if self.config.pool == "mean":
            pooled = spread.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            pooled = masked_max(spread, mask)
        return Memory(cells, _batch_norm(self.norm, self.linear(pooled)), attention.to(grid.dtype))

    def gradcam_cells(self, memory: Memory, features: Features) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"]]:
        """The convolved cells before normalisation, as in the published code, which has a layer for Grad-CAM."""
        aligned = self.config.align is not None
        return memory.cells, torch.ones_like(memory.cells[..., 0], dtype=torch.bool) if aligned else features.mask

    @torch.no_grad()
    def prepare_for_occlusion(self, features: Features) -> tuple[Captioner, Features]:
        if self.config.align is None:
            return self, features
        layout = Layout(*self.config.align)
        grid = resample(features, layout)
        aligned = self.without()
        aligned.config = replace(self.config, align=None)
        return aligned, Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), layout)

    def init_state(self, memory: Memory) -> State:
        """Step 0: the LSTM reads the clip vector from the zero state."""
        _, (h, c) = self.lstm(memory.video[:, None])
        return State(h.transpose(0, 1), c.transpose(0, 1))

    def step(self, token: Int[Tensor, " R"], state: State, memory: Memory) -> Step:
        out, (h, c) = self.lstm(self.embed(token)[:, None], _layers_first(state))
        attention = memory.attention.repeat_interleave(len(token) // len(memory.attention), 0)
        return Step(self.head(self.dropout(out[:, 0])), State(h.transpose(0, 1), c.transpose(0, 1)), attention)

    def start_logits(self, state: State) -> Float[Tensor, "R V"] | None:
        """What step 0 predicts; None where BOS is masked, because such a model was never trained to predict it."""
        return None if self.config.mask_special_tokens else self.head(self.dropout(self.hidden(state)))

    def forward_teacher_forced(self, memory: Memory, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """One pass of the LSTM over all words of all rows.  The word layer runs only where a word must be predicted."""
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
        """h of the top layer."""
        return state.h[:, -1]


def _batch_norm(norm: nn.BatchNorm1d, x: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
    """Batch normalisation; a single row, which has no variance, is normalised by the running statistics."""
    if len(x) > 1:
        return norm(x)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _layers_first(state: State) -> tuple[Tensor, Tensor]:
    return state.h.transpose(0, 1).contiguous(), state.c.transpose(0, 1).contiguous()


def resample(features: Features, layout: Layout) -> Float[Tensor, "B M D"]:
    """Resample the real frames of every clip to `layout`, trilinearly (corners not aligned).

    Raises ValueError when cells are missing from a clip's frames.
    """
    t, h, w = features.layout
    if torch.compiler.is_compiling():  # in an exported graph nothing is padding
        maps = features.grid.unflatten(1, (t, h, w)).movedim(-1, 1)
        return F.interpolate(maps, tuple(layout), mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)
    frames = features.mask.unflatten(1, (t, h * w))
    lengths = frames.any(2).sum(1)
    complete = torch.arange(t, device=lengths.device)[None] < lengths[:, None]
    if not torch.equal(frames, complete[..., None].expand_as(frames)) or not lengths.all():
        raise ValueError(
            f"model.align resamples complete maps, but cells are missing within the layout {tuple(features.layout)}; "
            "detected regions have no map: set model.align to null"
        )
    maps = features.grid.unflatten(1, (t, h, w)).movedim(-1, 1)
    rows = []
    for clip, length in zip(maps, lengths.tolist(), strict=True):
        rows.append(F.interpolate(clip[None, :, :length], tuple(layout), mode="trilinear", align_corners=False))
    return torch.cat(rows).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class SpatioTemporalConfig:
    """Options of `spatio_temporal`.  All but `noise` have the same meaning as in `ShowAttendTellConfig`."""

    name: Literal["spatio_temporal"] = "spatio_temporal"
    hidden: PositiveInt = 512  # width of the LSTM's state
    embed: PositiveInt = 512  # width of the word vectors
    attention: PositiveInt = 512  # width of the attention's MLP
    project: PositiveInt | None = None  # width of a projection of the cells; None: no projection
    activation: Literal["relu", "tanh"] = "tanh"  # of the attention's MLP
    initial: Literal["mean", "max"] = "mean"  # the first state is computed from the mean or maximum of the cells
    dropout: FractionBelowOne = 0.5  # before the word layer
    word_dropout: FractionBelowOne = 0.0  # on the embedded words
    cell_dropout: FractionBelowOne = 0.0  # on the (projected) cells
    deep_output: bool = False  # words are predicted from the last word and the context too
    mask_special_tokens: bool = True  # PAD and BOS get probability 0
    noise: NonNegativeFloat = 0.0  # standard deviation of Gaussian noise on the features in training


class SpatioTemporal(CaptionerWrapper):
    """`ShowAttendTell` over cells with a position embedding."""

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
