"""Our own small residual CNN: trained together with a captioner, from scratch, on a CPU."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from limner.core.types import Features, Pixels
from limner.encoders.encoder import Encoder, cells_of, squares
from limner.encoders.learnt import learnt
from limner.encoders.pretrained import weights_sha256


@dataclass(frozen=True)
class SmallCNNConfig:
    """`size`: side of the square input in pixels; `width`: channels of the first layer; `dim`: channels of a cell;
    `source`: a run whose encoder it is."""

    name: Literal["small_cnn"] = "small_cnn"
    size: int = 64
    width: int = 32
    dim: int = 128
    source: str = ""


class Residual(nn.Module):
    """Halve the sides, then one residual block (He et al. 2016) at the new resolution."""

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
    """Stride 8: 64 x 64 pixels give 8 x 8 cells.  Every cell is told where it is, so position can be put into words."""

    def __init__(self, config: SmallCNNConfig) -> None:
        """Raises ValueError when `size` or `width` is not a positive multiple of 8."""
        super().__init__()
        for name, value in (("size", config.size), ("width", config.width)):
            if value < 8 or value % 8:
                raise ValueError(f"encoder.{name} is {value}; it must be a positive multiple of 8")
        self.config = config
        self.dim = config.dim
        width = config.width
        self.stem = nn.Sequential(  # two layers before the second halving: shapes of a dozen pixels are told apart here
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.body = nn.Sequential(Residual(width, 2 * width), Residual(2 * width, 4 * width))
        self.out = nn.Conv2d(4 * width + 2, config.dim, 1)
        learnt(self, config.source)

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB [0, 255] -> size x size (bilinear, antialiased; the aspect ratio is not kept), scaled to [-1, 1]."""
        return squares(frames, self.config.size) / 127.5 - 1

    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, H, W) in [-1, 1] -> T*(H/8)*(W/8) cells, all real."""
        x = self.body(torch.relu(self.stem(pixels.frames.flatten(0, 1))))
        h, w = x.shape[-2:]
        y_at, x_at = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        where = torch.stack([x_at, y_at]).to(x).expand(len(x), -1, -1, -1)
        return cells_of(self.out(torch.cat([x, where], 1)), len(pixels.frames))

    def provenance(self) -> dict[str, Any]:
        """The architecture and the hash of the weights as they are now."""
        return {
            "name": self.config.name,
            "source": "limner",
            "architecture": f"SmallCNN(width={self.config.width})",
            "sha256": weights_sha256(self),
            "preprocessing": {"size": self.config.size, "resample": "bilinear", "scale": [-1, 1]},
            "dim": self.dim,
        }
