"""limner-tiny's encoder: a narrow residual CNN (He et al. 2016, arXiv:1512.03385) for one CPU thread.

Dense 3x3 convolutions instead of depthwise ones: on a CPU they run at several times the arithmetic rate, so that at
equal time the net is larger, and in training as in use.  It is trained from scratch here: first to tell another
encoder's cells, then along with a captioner.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from limner.core.fields import FractionBelowOne
from limner.core.types import Features, Pixels
from limner.encoders.encoder import Encoder, cells_of, squares
from limner.encoders.learnt import learnt
from limner.encoders.pretrained import weights_sha256
from limner.encoders.resnet import Basic

STRIDE = 32


@dataclass(frozen=True)
class TinyConfig:
    """`size`: side of the square input in pixels; `widths` and `blocks` of the four stages, at strides 4 to 32; `dim`:
    channels of a cell; `colour_jitter`: how far colours are changed in training, 0 not at all; `source`: a run whose
    encoder it is."""

    name: Literal["tiny"] = "tiny"
    size: int = 224
    widths: tuple[int, int, int, int] = (32, 64, 128, 256)
    blocks: tuple[int, int, int, int] = (1, 2, 2, 2)
    dim: int = 384
    colour_jitter: FractionBelowOne = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.size < STRIDE or self.size % STRIDE:
            raise ValueError(f"encoder.size is {self.size}; it must be a positive multiple of {STRIDE}")
        if min(*self.widths, *self.blocks, self.dim) < 1:
            raise ValueError(f"encoder.widths {self.widths}, blocks {self.blocks} and dim {self.dim} are at least 1")


class Tiny(Encoder):
    """Stride 32: 224 x 224 pixels give 7 x 7 cells."""

    def __init__(self, config: TinyConfig) -> None:
        """Weights are random where `source` names no run."""
        super().__init__()
        self.config, self.dim = config, config.dim
        first = config.widths[0]
        self.stem = nn.Sequential(*_convolution(3, first, 3, 2), *_convolution(first, first, 3, 2))
        stages: list[nn.Module] = []
        inputs = first
        for stage, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            for i in range(count):
                stages.append(Basic(inputs, width, 2 if stage and i == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*stages)
        self.head = nn.Sequential(*_convolution(inputs, config.dim, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        learnt(self, config.source)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB [0, 255] -> size x size (bilinear, antialiased; the aspect ratio is not kept), scaled to [-1, 1]."""
        return squares(frames, self.config.size) / 127.5 - 1

    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, H, W) in [-1, 1] -> T*(H/32)*(W/32) cells, all real."""
        seen = colour_jittered(pixels.frames, self.config.colour_jitter) if self.training else pixels.frames
        frames = seen.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return cells_of(self.head(self.body(self.stem(frames))), len(seen))

    def provenance(self) -> dict[str, Any]:
        """The architecture and the hash of the weights as they are now."""
        return {
            "name": self.config.name,
            "source": "limner",
            "architecture": f"Tiny(widths={self.config.widths}, blocks={self.config.blocks})",
            "sha256": weights_sha256(self),
            "preprocessing": {"size": self.config.size, "resample": "bilinear", "scale": [-1, 1]},
            "dim": self.dim,
        }


def colour_jittered(frames: Float[Tensor, "B T 3 H W"], most: float) -> Float[Tensor, "B T 3 H W"]:
    """Saturation and contrast times U(1 - most, 1 + most), brightness plus U(-most, most), one draw per medium: its
    frames stay a clip."""
    if not most:
        return frames
    saturation, contrast, brightness = (2 * torch.rand(3, len(frames), 1, 1, 1, 1, device=frames.device) - 1) * most
    grey = frames.mean(2, keepdim=True)
    coloured = grey + (1 + saturation) * (frames - grey)
    middle = coloured.mean((1, 2, 3, 4), keepdim=True)
    return middle + (1 + contrast) * (coloured - middle) + brightness


def _convolution(inputs: int, outputs: int, side: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()
