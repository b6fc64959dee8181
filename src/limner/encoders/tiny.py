"""A tiny encoder: a narrow residual CNN (He et al. 2016, arXiv:1512.03385) for one CPU thread.

It uses dense 3x3 convolutions instead of depthwise ones.  On a CPU, dense ones run at several times the arithmetic
rate, so the network can be larger at the same speed, in training and in use.  It is trained from scratch: first to
predict the cells of another encoder, then together with a captioner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from limner.core.fields import FractionBelowOne
from limner.core.types import Features, Pixels
from limner.encoders.encoder import Encoder, maps_to_features, resize_to_square
from limner.encoders.folded import FoldedConvolution, FoldedNetwork, can_fold
from limner.encoders.pretrained import weights_sha256
from limner.encoders.resnet import BasicBlock
from limner.encoders.trained import load_trained_encoder

STRIDE = 32


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the tiny encoder.

    `size` is the side of the square input in pixels.  `widths` and `blocks` are the channels and the number of blocks
    of the four stages, which have strides 4, 8, 16 and 32.  `dim` is the number of channels of a cell.
    `colour_jitter` is the strength of colour changes in training (see `jitter_colours`); 0 changes nothing.  `source`
    is a run whose encoder weights are loaded; "" leaves the weights random.
    """

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
            raise ValueError(
                f"encoder.widths {self.widths}, blocks {self.blocks} and dim {self.dim} must be at least 1"
            )


class Tiny(Encoder):
    """Tiny encoder of stride 32: 224 x 224 pixels give 7 x 7 cells."""

    def __init__(self, config: TinyConfig) -> None:
        """Random weights unless `source` names a run."""
        super().__init__()
        self.config, self.dim = config, config.dim
        first = config.widths[0]
        self.stem = nn.Sequential(*_convolution(3, first, 3, 2), *_convolution(first, first, 3, 2))
        stages: list[nn.Module] = []
        inputs = first
        for stage, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            for i in range(count):
                stages.append(BasicBlock(inputs, width, 2 if stage and i == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*stages)
        self.head = nn.Sequential(*_convolution(inputs, config.dim, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        load_trained_encoder(self, config.source)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def reading_side(self) -> int:
        """The side of the square input."""
        return self.config.size

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize uint8 RGB frames to size x size (aspect ratio not kept) and scale them to [-1, 1]."""
        return resize_to_square(frames, self.config.size) / 127.5 - 1

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) in [-1, 1] to T*(H/32)*(W/32) cells.  No cell is padding."""
        images = jitter_colours(pixels.frames, self.config.colour_jitter) if self.training else pixels.frames
        frames = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return maps_to_features(self.head(self.body(self.stem(frames))), len(images))

    def inference_form(self) -> Callable[[Pixels], Features]:
        """The network with BatchNorm, ReLU and shortcuts inside its convolutions, on a CPU."""
        if not can_fold(self):
            return self
        maps = FoldedNetwork(self, partial(_fold, self))
        return lambda pixels: maps_to_features(maps(pixels.frames.flatten(0, 1)), len(pixels.frames))

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features, with the hash of the current weights."""
        return {
            "name": self.config.name,
            "source": "limner",
            "architecture": f"Tiny(widths={self.config.widths}, blocks={self.config.blocks})",
            "sha256": weights_sha256(self),
            "preprocessing": {"size": self.config.size, "resample": "bilinear", "scale": [-1, 1]},
            "dim": self.dim,
        }


def _fold(network: Tiny) -> Callable[[Tensor], Tensor]:
    """The layers of a network, folded, as a function from images (B, 3, H, W) to maps."""

    def convolutions(layers: nn.Sequential) -> list[FoldedConvolution]:
        """Those of a sequence of convolution, BatchNorm, ReLU, convolution, ..."""
        return [FoldedConvolution(layers[i], layers[i + 1], "relu") for i in range(0, len(layers), 3)]  # type: ignore[arg-type]

    before, after = convolutions(network.stem), convolutions(network.head)
    blocks = []
    for block in network.body:
        assert isinstance(block, BasicBlock)
        down = None if block.downsample is None else FoldedConvolution(*block.downsample)
        first, second = (
            FoldedConvolution(block.conv1, block.bn1, "relu"),
            FoldedConvolution(block.conv2, block.bn2, "relu"),
        )
        blocks.append((first, second, down))

    def run(images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)
        for layer in before:
            x = layer(x)
        for first, second, down in blocks:
            x = second(first(x), x if down is None else down(x))
        for layer in after:
            x = layer(x)
        return x

    return run


def jitter_colours(frames: Float[Tensor, "B T 3 H W"], strength: float) -> Float[Tensor, "B T 3 H W"]:
    """Change colours at random: one draw per medium, the same for all its frames.

    Saturation and contrast are multiplied by a factor from U(1 - strength, 1 + strength); a number from
    U(-strength, strength) is added to the brightness.  Strength 0 draws no random number.
    """
    if not strength:
        return frames
    saturation, contrast, brightness = (2 * torch.rand(3, len(frames), 1, 1, 1, 1, device=frames.device) - 1) * strength
    grey = frames.mean(2, keepdim=True)
    coloured = grey + (1 + saturation) * (frames - grey)
    mean = coloured.mean((1, 2, 3, 4), keepdim=True)
    return mean + (1 + contrast) * (coloured - mean) + brightness


def _convolution(inputs: int, outputs: int, side: int, stride: int) -> tuple[nn.Module, ...]:
    """Convolution, BatchNorm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()
