"""What every encoder offers: its own preprocessing, and pixels -> cells."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from limner.types import Features, Pixels


class Encoder(nn.Module, ABC):
    """Turns frames into N cells of `dim` channels with a layout."""

    dim: int

    @abstractmethod
    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB [0, 255] frames of any size -> what `forward` eats, exactly as the weights were trained."""

    @abstractmethod
    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, h, w) -> cells with layout (T, h', w'), all real."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Plain JSON values that say where features came from: name, source, sha256 of the weights, preprocessing."""
