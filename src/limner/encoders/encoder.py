"""What every encoder offers: its own preprocessing, and pixels -> cells."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from limner.core.types import Features, Layout, Pixels


@runtime_checkable
class EncoderConfig(Protocol):
    """The config of an encoder: a frozen dataclass whose `name` is a literal that no other encoder has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...  # where its weights come from; "" for weights of its own


class Encoder(nn.Module, ABC):
    """Turns frames into N cells of `dim` channels with a layout."""

    dim: int
    config: Any  # an `EncoderConfig`

    @abstractmethod
    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB [0, 255] frames of any size -> what `forward` eats, exactly as the weights were trained."""

    def kept_region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a height x width picture that `preprocess` keeps, relative xyxy; beyond [0, 1] where it pads."""
        return 0.0, 0.0, 1.0, 1.0

    @abstractmethod
    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, h, w) -> cells with layout (T, h', w'), all real."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Plain JSON values that say where features came from: name, source, sha256 of the weights, preprocessing."""


def squares(frames: UInt8[np.ndarray, "T H W 3"], size: int) -> Float[Tensor, "T 3 s s"]:
    """Frames resized to size x size (Pillow's antialiased bilinear; aspect ratio not kept), still in [0, 255]."""
    images = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    resized = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).float()


def cells_of(maps: Float[Tensor, "BT D h w"], media: int) -> Features:
    """Maps of the frames of so many media, all of them equally long -> their cells (T, h, w), all real."""
    (count, dim), (h, w) = maps.shape[:2], maps.shape[2:]
    layout = Layout(count // media, h, w)
    grid = maps.flatten(2).transpose(1, 2).reshape(media, layout.cells, dim)
    return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), layout)


def same_shape(frames: Sequence[Tensor | None]) -> list[list[int]]:
    """The places of tensors that can be stacked, group by group; None stands in no group."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, item in enumerate(frames):
        if item is not None:
            groups.setdefault(tuple(item.shape), []).append(place)
    return list(groups.values())
