"""Frames as an exported encoder reads them: resized and cropped bytes.  Scale and mean are part of its graph."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Preprocess:
    """First resized to `size` (height, width), or so that the shorter side is `edge`, or not at all; then the central
    `crop` (height, width), of which 0 is what lies outside the picture."""

    size: tuple[int, int] | None = None
    edge: int | None = None
    resample: int = 2  # Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming
    crop: tuple[int, int] | None = None
    channels: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if (self.size is None) == (self.edge is None):
            raise ValueError(f"pictures are resized to a size or to an edge, one of them; got {self.size}, {self.edge}")
        if self.size is None and self.crop is None:
            raise ValueError("pictures of which only an edge is known have no common size: a crop must follow")

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        side = self.crop or self.size
        assert side is not None
        return side

    def __call__(self, frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T h w 3"]:
        """RGB [0, 255] of any size -> bytes in the order of `channels`."""
        height, width = self.size or _size_with_shorter_side(frames.shape[1], frames.shape[2], self.edge or 1)
        pixels = np.stack([self._resized(frame, height, width) for frame in frames])
        if self.crop is not None:
            pixels = _center_crop(pixels, *self.crop)
        return np.ascontiguousarray(pixels if self.channels == "RGB" else pixels[..., ::-1])

    def _resized(self, frame: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        image = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(image.resize((width, height), Image.Resampling(self.resample)))


def _size_with_shorter_side(height: int, width: int, edge: int) -> tuple[int, int]:
    """The size in which the shorter side is `edge`; the longer one is cut off to a whole number, as transformers
    does."""
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def _center_crop(pixels: UInt8[np.ndarray, "T H W 3"], height: int, width: int) -> UInt8[np.ndarray, "T h w 3"]:
    """The middle; smaller pictures get a black rim, whose odd row and column come first."""
    h, w = pixels.shape[1:3]
    if h < height or w < width:
        up, left = max(0, -((h - height) // 2)), max(0, -((w - width) // 2))
        down, right = max(0, height - h - up), max(0, width - w - left)
        pixels = np.pad(pixels, ((0, 0), (up, down), (left, right), (0, 0)))
        h, w = pixels.shape[1:3]
    top, left = (h - height) // 2, (w - width) // 2
    return pixels[:, top : top + height, left : left + width]
