"""RecNet (Wang et al. 2018, arXiv:1803.11438): the decoder's hidden states must suffice to rebuild the features.

Beside the cross entropy a reconstructor is trained that reads the hidden states alone: `global` rebuilds the clip's
mean, a word at a time; `local` rebuilds every cell, attending the words.  It is thrown away for captioning.

`published` follows hobincar/RecNet to the letter: a zero vector stands before the hidden states (the "state of BOS")
and counts as one of them, the state that predicts EOS is left out of the mean and of the attention, though global's
loss includes it, and padded frames are frames.  Otherwise there is one mask each: the states of all steps, the cells
that are real.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from limner.core.fields import NonNegativeFloat, PositiveInt
from limner.core.types import EOS, PAD, Batch, Features, Loss
from limner.models.captioner import Captioner
from limner.models.layers import AdditiveAttention
from limner.objectives.context import Context, probe, seen
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.objective import ObjectiveConfig


@dataclass(frozen=True)
class GlobalReconstruction(ObjectiveConfig):
    name: Literal["recnet_global"] = "recnet_global"
    weight: NonNegativeFloat = 0.2  # of the reconstruction
    published: bool = False  # hobincar/RecNet to the letter
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # the cross entropy beside it

    def build(self, context: Context) -> "Reconstruction":
        return Reconstruction(self, GlobalReconstructor(width(context), context.feature_dim))


@dataclass(frozen=True)
class LocalReconstruction(ObjectiveConfig):
    name: Literal["recnet_local"] = "recnet_local"
    weight: NonNegativeFloat = 0.1  # of the reconstruction
    attention: PositiveInt = 256  # width of the reconstructor's attention
    published: bool = False  # hobincar/RecNet to the letter
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # the cross entropy beside it

    def build(self, context: Context) -> "Reconstruction":
        return Reconstruction(self, LocalReconstructor(width(context), context.feature_dim, self.attention))


def width(context: Context) -> int:
    """Of the student's hidden states.  Raises ValueError for a captioner without them."""
    if context.student is None or context.sample is None:
        return context.hidden
    hidden = probe(context.student, context.sample())[1].hidden
    if hidden is None:
        raise ValueError("reconstruction needs a captioner with hidden states, such as sa_lstm")
    return hidden.shape[-1]


class States(NamedTuple):
    """Hidden states of captions, T rows each, and which of them count."""

    hidden: Float[Tensor, "R T H"]
    read: Bool[Tensor, "R T"]  # in the mean and in the attention
    rebuilt: Bool[Tensor, "R T"]  # in global's loss; the rows of a caption come first


class GlobalReconstructor(nn.Module):
    def __init__(self, hidden: int, feature_dim: int):
        super().__init__()
        self.lstm = nn.LSTM(2 * hidden, feature_dim, batch_first=True)

    def forward(self, states: States) -> Float[Tensor, "R T D"]:
        """One vector per hidden state, of it and of the mean of all; 0 after a caption's end."""
        whole = mean(states.hidden, states.read)[:, None].expand_as(states.hidden)
        lengths = states.rebuilt.sum(1).cpu()
        packed = pack_padded_sequence(torch.cat([states.hidden, whole], -1), lengths, True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], True, total_length=states.hidden.shape[1])[0]

    def loss(self, states: States, features: Features) -> Float[Tensor, ""]:
        return (mean(self(states).float(), states.rebuilt) - features.pooled).square().mean()


class LocalReconstructor(nn.Module):
    def __init__(self, hidden: int, feature_dim: int, attention: int):
        super().__init__()
        self.attend = AdditiveAttention(feature_dim, hidden, attention)
        self.lstm = nn.LSTMCell(hidden, feature_dim)

    def forward(self, states: States, cells: int) -> Float[Tensor, "R N D"]:
        """One vector per cell, in their order."""
        keys = self.attend.key(states.hidden)
        h = c = states.hidden.new_zeros(len(keys), self.lstm.hidden_size)
        found = []
        for _ in range(cells):
            context, _ = self.attend(h, states.hidden, keys, states.read)
            h, c = self.lstm(context, (h, c))
            found.append(h)
        return torch.stack(found, 1)

    def loss(self, states: States, features: Features) -> Float[Tensor, ""]:
        rebuilt = self(states, features.layout.cells).float()
        return (rebuilt - features.grid).square()[features.mask].mean()


class Reconstruction(nn.Module):
    """The objective: cross entropy plus `weight` times the mean squared error of what was rebuilt."""

    def __init__(
        self,
        config: GlobalReconstruction | LocalReconstruction,
        reconstructor: GlobalReconstructor | LocalReconstructor,
    ):
        super().__init__()
        self.config, self.reconstructor = config, reconstructor

    def forward(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """Raises ValueError for a captioner without hidden states."""
        features = seen(model, batch.inputs)
        forced = self.config.xe.forward_teacher_forced(model, model.encode(features), batch, epoch)
        if forced.hidden is None:
            raise ValueError(f"{self.config.name} needs a captioner with hidden states, such as sa_lstm")
        loss, logs = self.config.xe.score(forced, batch)
        states = states_of(forced.hidden, batch.tokens, self.config.published)
        error = self.reconstructor.loss(states, self.goal(features, len(batch.tokens)))
        return Loss(loss + self.config.weight * error, logs | {"reconstruction": error.item()})

    def goal(self, features: Features, rows: int) -> Features:
        """What is to be rebuilt, a row for each caption; an encoder must not learn to make it easy."""
        grid = features.grid.detach().float().masked_fill(~features.mask[..., None], 0.0)
        mask = torch.ones_like(features.mask) if self.config.published else features.mask
        goal = Features(grid, mask, features.layout)
        return goal.map(lambda x: x.repeat_interleave(rows // len(features), 0))


def states_of(hidden: Float[Tensor, "R L H"], tokens: Int[Tensor, "R T"], published: bool) -> States:
    """`hidden[:, i]` is the state after reading `tokens[:, i]`, which predicted `tokens[:, i + 1]`."""
    if not published:
        steps = tokens[:, 1:] != PAD
        return States(hidden, steps, steps)
    before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], 1)
    return States(before, (tokens != PAD) & (tokens != EOS), tokens != PAD)


def mean(x: Float[Tensor, "R T D"], mask: Bool[Tensor, "R T"]) -> Float[Tensor, "R D"]:
    """Over the rows that count; every caption has one."""
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
