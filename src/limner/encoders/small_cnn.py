"""Small residual CNN encoder that is trained from scratch together with a captioner, on a CPU."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from limner.core.types import Features, Pixels
from limner.encoders.encoder import Encoder, maps_to_features, resize_to_square
from limner.encoders.pretrained import weights_sha256
from limner.encoders.trained import load_trained_encoder


@dataclass(frozen=True)
class SmallCNNConfig:
    """Sizes of a small CNN.

    `size` is the side of the square input in pixels, `width` the channels of the first layer, `dim` the channels of a
    cell.  `source` is a run whose encoder weights are loaded; "" leaves the weights random.
    """

    name: Literal["small_cnn"] = "small_cnn"
    size: int = 64
    width: int = 32
    dim: int = 128
    source: str = ""


class Residual(nn.Module):
    """A strided convolution that halves both sides, then one residual block (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.conv_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        x = torch.relu(self.norm(self.down(x)))
        return torch.relu(x + self.conv_norm(self.conv(x)))


class SmallCNN(Encoder):
    """Small CNN encoder of stride 8: 64 x 64 pixels give 8 x 8 cells.

    The relative position of a cell is part of its input, so that captions can name positions.
    """

    def __init__(self, config: SmallCNNConfig) -> None:
        """Raises ValueError when `size` or `width` is not a positive multiple of 8."""
        super().__init__()
        for name, value in (("size", config.size), ("width", config.width)):
            if value < 8 or value % 8:
                raise ValueError(f"encoder.{name} is {value}; it must be a positive multiple of 8")
        self.config = config
        self.dim = config.dim
        width = config.width
        self.stem = nn.Sequential(  # two layers before the second stride, to distinguish shapes of a dozen pixels
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.body = nn.Sequential(Residual(width, 2 * width), Residual(2 * width, 4 * width))
        self.out = nn.Conv2d(4 * width + 2, config.dim, 1)
        load_trained_encoder(self, config.source)

    def reading_side(self) -> int:
        """The side of the square input."""
        return self.config.size

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize uint8 RGB frames to size x size (aspect ratio not kept) and scale them to [-1, 1]."""
        return resize_to_square(frames, self.config.size) / 127.5 - 1

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) in [-1, 1] to T*(H/8)*(W/8) cells.  No cell is padding."""
        x = self.body(torch.relu(self.stem(pixels.frames.flatten(0, 1))))
        h, w = x.shape[-2:]
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        position = torch.stack([columns, rows]).to(x).expand(len(x), -1, -1, -1)
        return maps_to_features(self.out(torch.cat([x, position], 1)), len(pixels.frames))

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features, with the hash of the current weights."""
        return {
            "name": self.config.name,
            "source": "limner",
            "architecture": f"SmallCNN(width={self.config.width})",
            "sha256": weights_sha256(self),
            "preprocessing": {"size": self.config.size, "resample": "bilinear", "scale": [-1, 1]},
            "dim": self.dim,
        }
