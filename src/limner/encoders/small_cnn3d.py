"""Small residual 3-D CNN encoder that is trained from scratch together with a video captioner, on a CPU."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from limner.core.fields import PositiveInt
from limner.core.types import Features, Layout, Pixels
from limner.encoders.encoder import Encoder, resize_to_square
from limner.encoders.pretrained import weights_sha256
from limner.encoders.trained import load_trained_encoder


@dataclass(frozen=True)
class SmallCNN3DConfig:
    """Sizes of a small 3-D CNN.

    `size` is the side of the square input in pixels, `width` the channels of the first layer, `dim` the channels of a
    cell.  `reach` is the number of layers with a kernel of 3 in time (the others have 1): with 1 to 5 of them, a cell
    depends on 3, 7, 11, 15 or 19 frames.  A small `reach` makes attention more precise in time.  `pool` "space" keeps
    one cell per moment, with the maximum of every channel.  `source` is a run whose encoder weights are loaded; ""
    leaves the weights random.
    """

    name: Literal["small_cnn3d"] = "small_cnn3d"
    size: int = 64
    width: PositiveInt = 24
    dim: PositiveInt = 128
    reach: Annotated[int, Field(ge=1, le=5)] = 5
    pool: Literal["none", "space"] = "none"
    source: str = ""


class Residual3D(nn.Module):
    """A strided convolution that halves height and width but not time, then one residual block (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, reach: int = 2) -> None:
        """`reach` is the number of the two layers that have a kernel of 3 in time."""
        super().__init__()
        first, second = ((3 if reach > layer else 1) for layer in range(2))
        self.down = nn.Conv3d(inputs, outputs, (first, 3, 3), (1, 2, 2), (first // 2, 1, 1), bias=False)
        self.norm = nn.BatchNorm3d(outputs)
        self.conv = nn.Conv3d(outputs, outputs, (second, 3, 3), 1, (second // 2, 1, 1), bias=False)
        self.conv_norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D T h w"]:
        x = torch.relu(self.norm(self.down(x)))
        return torch.relu(x + self.conv_norm(self.conv(x)))


class SmallCNN3D(Encoder):
    """Small 3-D CNN encoder of stride 2 in time and 8 in space: 16 x 64 x 64 pixels give 8 x 8 x 8 cells.

    The relative time and position of a cell are part of its input, so that captions can name the order of events and
    their positions.
    """

    def __init__(self, config: SmallCNN3DConfig) -> None:
        """Raises ValueError when `size` is not a positive multiple of 8."""
        super().__init__()
        if config.size < 8 or config.size % 8:
            raise ValueError(f"encoder.size is {config.size}; it must be a positive multiple of 8")
        self.config = config
        self.dim = config.dim
        width = config.width
        self.stem = nn.Sequential(  # two layers before the second stride, to distinguish shapes of a dozen pixels
            nn.Conv3d(3, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, width, 3, (2, 1, 1), 1, bias=False),
            nn.BatchNorm3d(width),
        )
        self.body = nn.Sequential(
            Residual3D(width, 2 * width, config.reach - 1), Residual3D(2 * width, 4 * width, config.reach - 3)
        )
        self.out = nn.Conv3d(4 * width + 3, config.dim, 1)
        load_trained_encoder(self, config.source)

    def reading_side(self) -> int:
        """The side of the square input."""
        return self.config.size

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize uint8 RGB frames to size x size (aspect ratio not kept) and scale them to [-1, 1]."""
        return resize_to_square(frames, self.config.size) / 127.5 - 1

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) in [-1, 1] to T/2 * H/8 * W/8 cells, or T/2 when pooled (T/2 rounded up).

        No cell is padding.
        """
        x = self.body(torch.relu(self.stem(pixels.frames.transpose(1, 2))))
        axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in x.shape[2:]]
        position = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(x).expand(len(x), -1, -1, -1, -1)
        cells = self.out(torch.cat([x, position], 1))
        if self.config.pool == "space":
            cells = cells.amax((3, 4), keepdim=True)
        grid = cells.flatten(2).transpose(1, 2)
        mask = torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device)
        return Features(grid, mask, Layout(*cells.shape[2:]))

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features, with the hash of the current weights."""
        config = self.config
        return {
            "name": config.name,
            "source": "limner",
            "architecture": f"SmallCNN3D(width={config.width}, reach={config.reach}, pool={config.pool})",
            "sha256": weights_sha256(self),
            "preprocessing": {"size": self.config.size, "resample": "bilinear", "scale": [-1, 1]},
            "dim": self.dim,
        }
