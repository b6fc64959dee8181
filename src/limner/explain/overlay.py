"""Attention over cells laid over the picture it was paid to."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

WHOLE = (0.0, 0.0, 1.0, 1.0)


def upsample(
    weights: Float[np.ndarray, "h w"], height: int, width: int, view: tuple[float, float, float, float] = WHOLE
) -> Float[np.ndarray, "H W"]:
    """Cell weights -> one value per pixel, bicubic and never negative; the largest value is 1 unless all are 0.

    The cells tile the box `view` (relative xyxy, see `Encoder.view_of`); the encoder did not see the rest, which is 0.
    """
    left, right = round(view[0] * width), round(view[2] * width)
    top, bottom = round(view[1] * height), round(view[3] * height)
    size = (max(1, right - left), max(1, bottom - top))
    image = Image.new("F", (width, height))
    image.paste(Image.fromarray(weights.astype(np.float32)).resize(size, Image.Resampling.BICUBIC), (left, top))
    values = np.clip(np.asarray(image), 0, None)
    peak = values.max()
    return values / peak if peak > 0 else values


def shade(
    picture: UInt8[np.ndarray, "H W 3"], light: Float[np.ndarray, "H W"], strength: float = 0.75
) -> UInt8[np.ndarray, "H W 3"]:
    """Where `light` is 1 the picture stays; where it is 0 it is (1 - strength) as bright and has lost 60 % of its
    colour."""
    light = light[..., None]
    grey = picture.mean(-1, keepdims=True)
    dark = (0.4 * picture + 0.6 * grey) * (1 - strength)
    return np.clip(light * picture + (1 - light) * dark, 0, 255).astype(np.uint8)
