"""A picture, or frames of a clip side by side, small enough to stand inside a page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.types import Medium
from limner.data.frames import FrameSampling
from limner.data.media import read_medium

SIDE = 360  # pixels of a picture's longer side: sharp at half the width on a phone's screen
FRAMES, FRAME_SIDE, GAP = 3, 200, 4
QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """`uri` is a `data:` address, so that a page needs no other file; `frames` is 1 for a picture."""

    uri: str
    width: int
    height: int
    frames: int


def thumbnail(medium: Medium, side: int = SIDE) -> Thumbnail:
    """`side` is the longer one of a picture; frames of a clip are smaller in proportion.

    Raises MediaError when the medium cannot be read.
    """
    frames = read_medium(medium, FrameSampling(FRAMES))
    each = side if len(frames) == 1 else side * FRAME_SIDE // SIDE
    strip = _beside([_small(frame, each) for frame in frames])
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(uri, strip.width, strip.height, len(frames))


def _small(frame: UInt8[np.ndarray, "H W 3"], side: int) -> Image.Image:
    image = Image.fromarray(frame)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)  # never enlarges
    return image


def _beside(frames: list[Image.Image]) -> Image.Image:
    if len(frames) == 1:
        return frames[0]
    width = sum(frame.width for frame in frames) + GAP * (len(frames) - 1)
    strip = Image.new("RGB", (width, max(frame.height for frame in frames)), "grey")
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width + GAP
    return strip
