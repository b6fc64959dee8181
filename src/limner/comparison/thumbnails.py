"""Thumbnails for HTML pages: an image, or frames of a clip side by side, as a JPEG in a `data:` address."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.types import Medium
from limner.data.frames import FrameSampling
from limner.data.media import read_medium

LONGER_SIDE = 360  # pixels of an image: sharp at half this width on the screen of a phone
CLIP_FRAMES, FRAME_SIDE, GAP = 3, 200, 4  # frames of a clip, and in pixels the longer side of each and the gap between
QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """`uri` is a `data:` address; `width` and `height` are in pixels; `frames` is 1 for an image."""

    uri: str
    width: int
    height: int
    frames: int


def make_thumbnail(medium: Medium, side: int = LONGER_SIDE) -> Thumbnail:
    """The thumbnail of a medium; `side` is the longer side of an image in pixels, and frames of a clip are smaller.

    Raises MediaError when the medium cannot be read.
    """
    frames = read_medium(medium, FrameSampling(CLIP_FRAMES), side=side)
    frame_side = side if len(frames) == 1 else side * FRAME_SIDE // LONGER_SIDE
    strip = _side_by_side([_shrink(frame, frame_side) for frame in frames])
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(uri, strip.width, strip.height, len(frames))


def _shrink(frame: UInt8[np.ndarray, "H W 3"], side: int) -> Image.Image:
    image = Image.fromarray(frame)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)  # never enlarges
    return image


def _side_by_side(frames: list[Image.Image]) -> Image.Image:
    if len(frames) == 1:
        return frames[0]
    width = sum(frame.width for frame in frames) + GAP * (len(frames) - 1)
    strip = Image.new("RGB", (width, max(frame.height for frame in frames)), "grey")
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width + GAP
    return strip
