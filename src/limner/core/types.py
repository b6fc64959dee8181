"""Data types that all packages share: Layout, Features, Pixels, Batch, Captions, Loss.

Letters in shapes: B media in a batch, N cells, L tokens, D channels, V words of the vocabulary, K captions or beams
per medium, R rows of tokens (K * B), T frames, H and W height and width in pixels.
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
    """Arrangement of N cells in time, rows and columns: image grid (1,h,w), frame vectors (t,1,1), 3-D maps (t,h,w), N
    regions (1,1,N)."""

    t: int
    h: int
    w: int

    @property
    def cells(self) -> int:
        """Their number N = t * h * w."""
        return self.t * self.h * self.w

    def boxes(self) -> Float[Tensor, "N 4"]:
        """Box (x1, y1, x2, y2) of every cell, relative to the image, in [0, 1]; row-major over (t, h, w)."""
        y, x = torch.meshgrid(torch.arange(self.h), torch.arange(self.w), indexing="ij")
        corners = torch.stack([x / self.w, y / self.h, (x + 1) / self.w, (y + 1) / self.h], -1)
        return corners.reshape(-1, 4).float().repeat(self.t, 1)


@dataclass(frozen=True)
class Features:
    """Encoder output for a batch of media: N cells with D channels each.

    Raises ValueError when the number of cells differs from the layout's.
    """

    grid: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"]  # True for real cells, False for padding
    layout: Layout
    regions: Float[Tensor, "B N 4"] | None = None  # a detector's relative boxes; None: the boxes of the layout

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
        """Box (x1, y1, x2, y2) of every cell, relative to the image, in [0, 1]."""
        if self.regions is not None:
            return self.regions
        return self.layout.boxes().to(self.grid).expand(len(self.grid), -1, -1)

    @property
    def pooled(self) -> Float[Tensor, "B D"]:
        """Mean over the real cells; 0 for a medium without any."""
        weight = self.mask.unsqueeze(-1).to(self.grid.dtype)
        return (self.grid * weight).sum(1) / weight.sum(1).clamp(min=1)

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Features":
        """Return the features with `fn` applied to every tensor, for example to select rows or move to a device."""
        regions = None if self.regions is None else fn(self.regions)
        return replace(self, grid=fn(self.grid), mask=fn(self.mask), regions=regions)


@dataclass(frozen=True)
class Pixels:
    """Preprocessed frames of a batch of media, the input of an encoder; no frame is padding."""

    frames: Float[Tensor, "B T 3 H W"]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def device(self) -> torch.device:
        return self.frames.device

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Pixels":
        """Return the frames with `fn` applied."""
        return Pixels(fn(self.frames))


@dataclass(frozen=True)
class Batch:
    """Input of one training or evaluation step: B media and their captions as token ids."""

    ids: tuple[str, ...]  # B ids of media
    inputs: Features | Pixels
    tokens: Int[Tensor, "R L"]  # BOS w1 .. wn EOS PAD ..; R = K * B: the K captions of a medium are neighbours
    references: tuple[tuple[str, ...], ...] = ()
    augmentations: tuple[str, ...] = ()  # the augmentation of each medium; empty: none was chosen

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device; the copy of a pinned batch to a GPU is not waited for."""
        late = torch.device(device).type != "cpu"  # what is copied to the CPU may be read at once
        return self._map(lambda tensor: tensor.to(device, non_blocking=late))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which copies to a GPU need not be waited for."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, fn: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, inputs=self.inputs.map(fn), tokens=fn(self.tokens))


class Captions(NamedTuple):
    """Output of a search: token ids without BOS; PAD follows EOS."""

    tokens: Int[Tensor, "B L"]
    logprob: Float[Tensor, " B"]  # natural log, summed up to and including EOS
    attention: Float[Tensor, "B L N"]  # one distribution over the cells per token (sums to 1)


class Loss(NamedTuple):
    """Output of an objective: the scalar to minimise, and numbers to log."""

    value: Float[Tensor, ""]
    logs: dict[str, float]
