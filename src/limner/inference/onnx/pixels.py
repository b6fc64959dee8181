"""`Preprocess`: resizes and crops frames for an exported encoder.  Scaling and normalisation are part of its graph."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Preprocess:
    """Resizes frames to `size`, or the shorter side to `edge`, and then takes the central `crop`; lengths in pixels.

    Raises ValueError unless exactly one of `size` and `edge` is given, and for `edge` without `crop`.
    """

    size: tuple[int, int] | None = None  # height, width
    edge: int | None = None  # length of the shorter side
    resample: int = 2  # Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming
    crop: tuple[int, int] | None = None  # height, width; smaller frames are padded with 0
    channels: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if (self.size is None) == (self.edge is None):
            raise ValueError(f"give either a size or an edge to resize to, got size {self.size} and edge {self.edge}")
        if self.size is None and self.crop is None:
            raise ValueError("frames that are resized by an edge have different sizes: give a crop too")

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the output in pixels."""
        side = self.crop or self.size
        assert side is not None
        return side

    @property
    def reading_side(self) -> int:
        """The shorter side after resizing, in pixels, or more (see `limner.data.images.read_image`)."""
        return self.edge or max(self.size or (0,))

    def kept_region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a height x width image that is kept, as relative xyxy; outside [0, 1] where it is padded."""
        h, w = self.size or _size_with_shorter_side(height, width, self.edge or 1)
        crop_h, crop_w = self.crop or (h, w)
        top, left = (h - crop_h) // 2, (w - crop_w) // 2
        return left / w, top / h, (left + crop_w) / w, (top + crop_h) / h

    def __call__(self, frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T h w 3"]:
        """Resize and crop RGB frames [0, 255] of any size -> uint8 [0, 255] in the order of `channels`."""
        height, width = self.size or _size_with_shorter_side(frames.shape[1], frames.shape[2], self.edge or 1)
        pixels = np.stack([self._resized(frame, height, width) for frame in frames])
        if self.crop is not None:
            pixels = _center_crop(pixels, *self.crop)
        return np.ascontiguousarray(pixels if self.channels == "RGB" else pixels[..., ::-1])

    def _resized(self, frame: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        image = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(image.resize((width, height), Image.Resampling(self.resample)))


def _size_with_shorter_side(height: int, width: int, edge: int) -> tuple[int, int]:
    """Return the size (height, width) with the shorter side `edge`; the longer one is rounded down, as in
    transformers."""
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def _center_crop(pixels: UInt8[np.ndarray, "T H W 3"], height: int, width: int) -> UInt8[np.ndarray, "T h w 3"]:
    """Crop the centre; smaller frames are padded with 0, an odd row or column at the top or left."""
    h, w = pixels.shape[1:3]
    if h < height or w < width:
        up, left = max(0, -((h - height) // 2)), max(0, -((w - width) // 2))
        down, right = max(0, height - h - up), max(0, width - w - left)
        pixels = np.pad(pixels, ((0, 0), (up, down), (left, right), (0, 0)))
        h, w = pixels.shape[1:3]
    top, left = (h - height) // 2, (w - width) // 2
    return pixels[:, top : top + height, left : left + width]
