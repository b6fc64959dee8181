"""Attention over cells laid over the picture it was paid to."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image


def upsample(weights: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "H W"]:
    """Cell weights -> one value per pixel, bicubic and never negative; the largest value is 1 unless all are 0."""
    image = Image.fromarray(weights.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(image), 0, None)
    peak = values.max()
    return values / peak if peak > 0 else values


def shade(
    picture: UInt8[np.ndarray, "H W 3"], weights: Float[np.ndarray, "h w"], strength: float = 0.75
) -> UInt8[np.ndarray, "H W 3"]:
    """Darken what was not attended to: pixel * (1 - strength * (1 - weight)), tinted warm where the weight is high."""
    light = upsample(weights, *picture.shape[:2])[..., None]
    grey = picture.mean(-1, keepdims=True)
    dark = (0.4 * picture + 0.6 * grey) * (1 - strength)
    return np.clip(light * picture + (1 - light) * dark, 0, 255).astype(np.uint8)
