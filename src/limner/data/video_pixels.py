"""Pixels of a decoded video frame as players show them: colours, transparency, shape of the pixels and orientation."""

from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.data.images import MAX_SIDE

# The matrix of a YUV frame by its tag (ITU-T H.273, MatrixCoefficients) -> FFmpeg's name for the conversion
BT709, BT601, BT2020 = 1, 5, 9
MATRICES = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: BT2020, 10: BT2020}
HD = (1280, 576)  # a frame without a tag is BT.709 when it is at least so wide or higher than this, as mpv has it
WIDEST_PIXEL = 16  # a wider or narrower shape of pixels is an error of the file
STRAIGHT = 0.0175  # sine of one degree; a frame that is turned by less stands upright

_TRANSPOSE = {  # signs of the display matrix: x' = a x + c y, y' = b x + d y -> operation
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
_SWAPS_SIDES = [operation for (a, *_), operation in _TRANSPOSE.items() if a == 0]


def upright(frame: Any, max_side: int = MAX_SIDE, pixel_aspect: Fraction = Fraction(1)) -> UInt8[np.ndarray, "H W 3"]:
    """RGB pixels of a PyAV frame, turned or mirrored by its display matrix.

    max_side      larger frames are scaled down to this longer side, in pixels
    pixel_aspect  width of a stored pixel divided by its height; the image is stretched until pixels are square
    """
    image = Image.fromarray(rgb_pixels(frame))
    turn, turned_aspect = _orientation(frame), pixel_aspect
    if isinstance(turn, Image.Transpose):
        image = image.transpose(turn)
        if turn in _SWAPS_SIDES:
            turned_aspect = 1 / pixel_aspect
    width, height = image.size
    shown = width * max(turned_aspect, Fraction(1)), height * max(1 / turned_aspect, Fraction(1))
    scale = min(Fraction(1), max_side / max(shown))
    if pixel_aspect != 1:
        size = (max(1, round(shown[0] * scale)), max(1, round(shown[1] * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    if turn and not isinstance(turn, Image.Transpose):
        image = image.rotate(turn, expand=True)
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def plausible_aspect(ratio: Fraction | None) -> Fraction:
    """The shape of a stream's pixels; 1 where the file does not tell it, or tells nonsense."""
    return ratio if ratio and Fraction(1, WIDEST_PIXEL) <= ratio <= WIDEST_PIXEL else Fraction(1)


def rgb_pixels(
    frame: Any, scale: Any = None, width: int | None = None, height: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """RGB pixels of a PyAV frame as it is stored; transparent pixels are blended with white.

    scale          a `VideoReformatter` that is used again for the next frame
    width, height  of the result (None: those of the frame)
    """
    from av.video.reformatter import VideoReformatter

    components = frame.format.components
    transparent = any(component.is_alpha for component in components)
    is_yuv = not frame.format.is_rgb and len(components) >= 3
    pixels = (scale or VideoReformatter()).reformat(
        frame, width, height, "rgba" if transparent else "rgb24", _matrix(frame) if is_yuv else None
    )
    if not transparent:
        return pixels.to_ndarray()
    image = Image.fromarray(pixels.to_ndarray())
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def _matrix(frame: Any) -> int | None:
    """The conversion from YUV: as the frame is tagged, else BT.709 for HD and BT.601 for smaller frames."""
    if int(frame.colorspace) in (2, 3):  # unspecified, reserved
        return BT709 if frame.width >= HD[0] or frame.height > HD[1] else BT601
    return MATRICES.get(int(frame.colorspace))


def _orientation(frame: Any) -> Image.Transpose | float | None:
    """What makes a frame upright: one of the seven transpositions, or degrees counterclockwise where it is oblique."""
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    largest = max(map(abs, (a, b, c, d)))
    if not largest:
        return None
    parts = [value / largest for value in (a, b, c, d)]
    if all(min(abs(part), 1 - abs(part)) < STRAIGHT for part in parts):
        return _TRANSPOSE.get(tuple(map(round, parts)))
    return float(frame.rotation)
