"""RecNet: a second network reconstructs the features from the decoder's hidden states (Wang et al. 2018).

arXiv:1803.11438.  The reconstructor is trained together with the captioner and reads the hidden states alone.  `global`
reconstructs the mean feature of the clip, with one LSTM step per word; `local` reconstructs every cell, with attention
over the words.  Captioning does not use it.

The reconstruction error is the mean squared error, as in the public code; the paper has the Euclidean distance.

`published` follows hobincar/RecNet exactly: a zero vector before the hidden states (the "state of BOS") counts as one
of them, the state that predicts EOS is left out of the mean and of the attention although the loss of `global` includes
it, and padded frames count as frames.  Otherwise all hidden states of a caption and all real cells count.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from limner.core.fields import NonNegativeFloat, PositiveInt
from limner.core.processes import mean_over_processes
from limner.core.types import EOS, PAD, Batch, Features, Loss
from limner.models.captioner import Captioner
from limner.models.layers import AdditiveAttention
from limner.objectives.context import Context, dry_run, to_features
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.objective import ObjectiveConfig


@dataclass(frozen=True)
class GlobalReconstruction(ObjectiveConfig):
    """The objective `recnet_global`: cross entropy plus `weight` times the error of the clip's mean feature."""

    name: Literal["recnet_global"] = "recnet_global"
    weight: NonNegativeFloat = 0.2  # of the reconstruction
    published: bool = False  # hobincar/RecNet to the letter
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # the cross entropy beside it

    def build(self, context: Context) -> "Reconstruction":
        return Reconstruction(self, GlobalReconstructor(hidden_width(context), context.feature_dim))


@dataclass(frozen=True)
class LocalReconstruction(ObjectiveConfig):
    """The objective `recnet_local`: cross entropy plus `weight` times the error of every cell."""

    name: Literal["recnet_local"] = "recnet_local"
    weight: NonNegativeFloat = 0.1  # of the reconstruction
    attention: PositiveInt = 256  # width of the reconstructor's attention
    published: bool = False  # hobincar/RecNet to the letter
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # the cross entropy beside it

    def build(self, context: Context) -> "Reconstruction":
        return Reconstruction(self, LocalReconstructor(hidden_width(context), context.feature_dim, self.attention))


def hidden_width(context: Context) -> int:
    """Width of the student's hidden states.  Raises ValueError for a captioner without hidden states."""
    if context.student is None or context.sample is None:
        return context.hidden
    hidden = dry_run(context.student, context.sample())[1].hidden
    if hidden is None:
        raise ValueError("reconstruction needs a captioner with hidden states, such as sa_lstm")
    return hidden.shape[-1]


class CaptionStates(NamedTuple):
    """Hidden states of R captions, T steps each, and which steps count."""

    hidden: Float[Tensor, "R T H"]
    attended: Bool[Tensor, "R T"]  # steps that the mean and the attention read
    reconstructed: Bool[Tensor, "R T"]  # steps in the loss of `global`: the first ones of each caption


class GlobalReconstructor(nn.Module):
    """An LSTM over the hidden states whose mean output reconstructs the mean feature."""

    def __init__(self, hidden: int, feature_dim: int):
        super().__init__()
        self.lstm = nn.LSTM(2 * hidden, feature_dim, batch_first=True)

    def forward(self, states: CaptionStates) -> Float[Tensor, "R T D"]:
        """One vector per step, from its hidden state and the mean of all hidden states; 0 after a caption's end."""
        average = masked_mean(states.hidden, states.attended)[:, None].expand_as(states.hidden)
        lengths = states.reconstructed.sum(1).cpu()
        packed = pack_padded_sequence(torch.cat([states.hidden, average], -1), lengths, True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], True, total_length=states.hidden.shape[1])[0]

    def loss(self, states: CaptionStates, features: Features) -> Float[Tensor, ""]:
        """Mean squared error of the mean output against the mean feature."""
        return mean_over_processes((masked_mean(self(states).float(), states.reconstructed) - features.pooled).square())


class LocalReconstructor(nn.Module):
    """An LSTM with attention over the hidden states that reconstructs one cell per step."""

    def __init__(self, hidden: int, feature_dim: int, attention: int):
        super().__init__()
        self.attend = AdditiveAttention(feature_dim, hidden, attention)
        self.lstm = nn.LSTMCell(hidden, feature_dim)

    def forward(self, states: CaptionStates, cells: int) -> Float[Tensor, "R N D"]:
        """One vector per cell, in the order of the cells."""
        keys = self.attend.key(states.hidden)
        h = c = states.hidden.new_zeros(len(keys), self.lstm.hidden_size)
        outputs = []
        for _ in range(cells):
            context, _ = self.attend(h, states.hidden, keys, states.attended)
            h, c = self.lstm(context, (h, c))
            outputs.append(h)
        return torch.stack(outputs, 1)

    def loss(self, states: CaptionStates, features: Features) -> Float[Tensor, ""]:
        """Mean squared error over the real cells and their channels."""
        reconstructed = self(states, features.layout.cells).float()
        return mean_over_processes((reconstructed - features.grid).square()[features.mask])


class Reconstruction(nn.Module):
    """The function of both objectives: cross entropy plus `weight` times the reconstruction error."""

    def __init__(
        self,
        config: GlobalReconstruction | LocalReconstruction,
        reconstructor: GlobalReconstructor | LocalReconstructor,
    ):
        super().__init__()
        self.config, self.reconstructor = config, reconstructor

    def forward(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """Raises ValueError for a captioner without hidden states."""
        features = to_features(model, batch.inputs)
        forced = self.config.xe.forward_teacher_forced(model, model.encode(features), batch, epoch)
        if forced.hidden is None:
            raise ValueError(f"{self.config.name} needs a captioner with hidden states, such as sa_lstm")
        loss, logs = self.config.xe.loss(forced, batch)
        states = caption_states(forced.hidden, batch.tokens, self.config.published)
        error = self.reconstructor.loss(states, self.target(features, len(batch.tokens)))
        return Loss(loss + self.config.weight * error, logs | {"reconstruction": error.item()})

    def target(self, features: Features, rows: int) -> Features:
        """The features to reconstruct, a row for each caption.

        They are detached: an encoder that is trained along must not learn features that are easy to reconstruct.
        """
        grid = features.grid.detach().float().masked_fill(~features.mask[..., None], 0.0)
        mask = torch.ones_like(features.mask) if self.config.published else features.mask
        target = Features(grid, mask, features.layout)
        return target.map(lambda x: x.repeat_interleave(rows // len(features), 0))


def caption_states(hidden: Float[Tensor, "R L H"], tokens: Int[Tensor, "R T"], published: bool) -> CaptionStates:
    """The hidden states that count.  `hidden[:, i]` has read `tokens[:, i]` and predicts `tokens[:, i + 1]`."""
    if not published:
        steps = tokens[:, 1:] != PAD
        return CaptionStates(hidden, steps, steps)
    before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], 1)
    return CaptionStates(before, (tokens != PAD) & (tokens != EOS), tokens != PAD)


def masked_mean(x: Float[Tensor, "R T D"], mask: Bool[Tensor, "R T"]) -> Float[Tensor, "R D"]:
    """Mean over the T rows where `mask` is True; every caption has at least one."""
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
