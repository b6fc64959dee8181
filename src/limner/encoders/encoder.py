"""The encoder interface: every encoder preprocesses frames in its own way and turns them into feature cells."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    """Base class of encoders: turns frames into N cells of `dim` channels with a layout (t, h, w)."""

    dim: int
    config: Any  # an `EncoderConfig`

    @abstractmethod
    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Turn uint8 RGB frames of any size into the input of `forward`, exactly as in the training of the weights."""

    def reading_side(self) -> int:
        """The length in pixels to which `preprocess` resizes the shorter side of an image; 0 if that is not known.

        Large images are read reduced to at least twice this (`limner.data.images.read_image`).
        """
        return 0

    def kept_region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a height x width image that `preprocess` keeps, as relative xyxy.

        Values lie outside [0, 1] where `preprocess` pads the image.
        """
        return 0.0, 0.0, 1.0, 1.0

    @abstractmethod
    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, h, w) to cells with layout (T, h', w').  No cell is padding."""

    def inference_form(self) -> Callable[[Pixels], Features]:
        """The same function in its fastest form for evaluation without gradients; the encoder itself by default.

        It has copies of the weights, which follow when the weights change in place.
        """
        return self

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features: name, source, sha256 of the weights, preprocessing."""


def resize_to_square(frames: UInt8[np.ndarray, "T H W 3"], size: int) -> Float[Tensor, "T 3 s s"]:
    """Resize uint8 frames to size x size pixels with Pillow's antialiased bilinear filter -> floats in [0, 255].

    The aspect ratio is not kept.
    """
    images = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    resized = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).float()


def maps_to_features(maps: Float[Tensor, "BT D h w"], media: int) -> Features:
    """Turn feature maps of all frames of `media` equally long media into cells with layout (T, h, w).

    BT is media x frames, media first.  No cell is padding.
    """
    (count, dim), (h, w) = maps.shape[:2], maps.shape[2:]
    layout = Layout(count // media, h, w)
    grid = maps.flatten(2).transpose(1, 2).reshape(media, layout.cells, dim)
    return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), layout)


def group_by_shape(frames: Sequence[Tensor | None]) -> list[list[int]]:
    """Group the indices of tensors of equal shape, which can be stacked.  None is in no group.

    >>> group_by_shape([torch.zeros(2), None, torch.zeros(3), torch.zeros(2)])
    [[0, 3], [2]]
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, item in enumerate(frames):
        if item is not None:
            groups.setdefault(tuple(item.shape), []).append(index)
    return list(groups.values())
