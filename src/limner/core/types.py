"""The nouns of the toolkit.

Letters in shapes: B media in a batch, N cells, L tokens, D channels, V words of the vocabulary, K beams, T frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limner.core.torch_free import BOS, EOS, PAD, UNK, Medium

__all__ = ["BOS", "EOS", "PAD", "UNK", "Batch", "Captions", "Features", "Layout", "Loss", "Medium", "Pixels"]


class Layout(NamedTuple):
    """How N cells tile a medium: image grid (1,H,W), frame vectors (T,1,1), 3-D maps (T,H,W), N regions (1,1,N)."""

    t: int
    h: int
    w: int

    @property
    def cells(self) -> int:
        return self.t * self.h * self.w

    def boxes(self) -> Float[Tensor, "N 4"]:
        """Relative xyxy box of every cell, row-major over (t, h, w)."""
        y, x = torch.meshgrid(torch.arange(self.h), torch.arange(self.w), indexing="ij")
        corners = torch.stack([x / self.w, y / self.h, (x + 1) / self.w, (y + 1) / self.h], -1)
        return corners.reshape(-1, 4).float().repeat(self.t, 1)


@dataclass(frozen=True)
class Features:
    """What an encoder sees in a batch of media: N cells of D channels each."""

    grid: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"]  # True where the cell is real
    layout: Layout
    regions: Float[Tensor, "B N 4"] | None = None  # a detector's boxes; None = derived from the layout

    def __post_init__(self) -> None:
        if self.grid.shape[1] != self.layout.cells:
            raise ValueError(
                f"grid has {self.grid.shape[1]} cells but layout {tuple(self.layout)} needs {self.layout.cells}"
            )

    def __len__(self) -> int:
        return len(self.grid)

    @property
    def device(self) -> torch.device:
        return self.grid.device

    @property
    def boxes(self) -> Float[Tensor, "B N 4"]:
        """Relative xyxy box of every cell, in [0, 1]."""
        if self.regions is not None:
            return self.regions
        return self.layout.boxes().to(self.grid).expand(len(self.grid), -1, -1)

    @property
    def pooled(self) -> Float[Tensor, "B D"]:
        """Mean over the real cells."""
        weight = self.mask.unsqueeze(-1).to(self.grid.dtype)
        return (self.grid * weight).sum(1) / weight.sum(1).clamp(min=1)

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Features":
        """The same features with `fn` applied to every tensor (row selection, device moves)."""
        regions = None if self.regions is None else fn(self.regions)
        return replace(self, grid=fn(self.grid), mask=fn(self.mask), regions=regions)


@dataclass(frozen=True)
class Pixels:
    """Preprocessed frames, for models that see raw media; every frame is real."""

    frames: Float[Tensor, "B T 3 H W"]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def device(self) -> torch.device:
        return self.frames.device

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Pixels":
        return Pixels(fn(self.frames))


@dataclass(frozen=True)
class Batch:
    """What one training or evaluation step reads."""

    ids: tuple[str, ...]
    inputs: Features | Pixels
    tokens: Int[Tensor, "R L"]  # BOS w1 .. wn EOS PAD ..; R = K * B, K neighbouring captions per medium
    references: tuple[tuple[str, ...], ...] = ()
    augmentations: tuple[str, ...] = ()  # the names of those in which the media were read

    def to(self, device: torch.device | str) -> "Batch":
        return replace(self, inputs=self.inputs.map(lambda x: x.to(device)), tokens=self.tokens.to(device))


class Captions(NamedTuple):
    """What a search returns: the token after BOS comes first, PAD follows EOS."""

    tokens: Int[Tensor, "B L"]
    logprob: Float[Tensor, " B"]  # natural log, summed up to and including EOS
    attention: Float[Tensor, "B L N"]  # one distribution over the cells per token


class Loss(NamedTuple):
    """What an objective returns: the scalar to minimise and plain numbers to log."""

    value: Float[Tensor, ""]
    logs: dict[str, float]
