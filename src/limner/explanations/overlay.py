"""Overlays: the weights of cells as a value per pixel, and images that are shaded or coloured by it."""

from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from limner.explanations.maps import Explanation

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
Box = tuple[float, float, float, float]  # relative xyxy


def upsample(
    weights: Float[np.ndarray, "h w"], height: int, width: int, kept_region: Box = WHOLE_IMAGE
) -> Float[np.ndarray, "H W"]:
    """Upsample cell weights to pixels (bicubic, negative values clipped) and divide them by their maximum.

    The cells tile the box `kept_region` (relative xyxy, see `Encoder.kept_region`).  The encoder did not see the rest
    of the image, which is 0.  Where all weights are 0, the result is 0.
    """
    values = upsample_unscaled(weights, height, width, kept_region)
    peak = values.max()
    return values / peak if peak > 0 else values


def upsample_unscaled(
    weights: Float[np.ndarray, "h w"], height: int, width: int, kept_region: Box = WHOLE_IMAGE
) -> Float[np.ndarray, "H W"]:
    """`upsample` without the division by the maximum, so that several maps stay comparable."""
    left, right = round(kept_region[0] * width), round(kept_region[2] * width)
    top, bottom = round(kept_region[1] * height), round(kept_region[3] * height)
    size = (max(1, right - left), max(1, bottom - top))
    image = Image.new("F", (width, height))
    image.paste(Image.fromarray(weights.astype(np.float32)).resize(size, Image.Resampling.BICUBIC), (left, top))
    return np.clip(np.asarray(image), 0, None)


def paint_regions(
    weights: Float[np.ndarray, " N"], regions: Float[np.ndarray, "N 4"], height: int, width: int
) -> Float[np.ndarray, "H W"]:
    """Turn weights of a detector's regions (relative xyxy) into one value per pixel.

    Where regions overlap, the highest weight counts; pixels outside all regions are 0.
    """
    values = np.zeros((height, width), np.float32)
    for weight, (left, top, right, bottom) in zip(weights, regions * [width, height, width, height], strict=True):
        part = values[round(top) : max(round(top) + 1, round(bottom)), round(left) : max(round(left) + 1, round(right))]
        np.maximum(part, weight, out=part)
    return values


def word_intensity(
    explanation: Explanation, word: int, height: int, width: int, kept_region: Box, part: tuple[float, float]
) -> Float[np.ndarray, "H W"]:
    """The part of a word's map above its mean (`above_mean`) as a value in [0, 1] per pixel.

    `part` is the part of the clip that is shown: (start, end) as fractions of its length.  A moment (start = end) is
    interpolated between cells; of a longer part, the highest value of every cell is taken.
    """
    maps = above_mean(explanation.maps[word], explanation.real).reshape(explanation.layout)
    if explanation.regions is not None:
        return paint_regions(maps.ravel(), explanation.regions, height, width)
    return np.clip(upsample_unscaled(maps_between(maps, *part), height, width, kept_region), 0, 1)


def above_mean(values: Float[np.ndarray, " N"], real: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Set a map to 0 below its mean over the real cells (as in arXiv:1612.07360, saliency), and scale it.

    The maximum becomes sqrt(1 - mean / maximum): the nearer to 1, the more it exceeds the mean.  A map that is the same
    everywhere becomes 0.

    >>> above_mean(np.array([0.0, 1.0, 4.0, 3.0]), np.ones(4, dtype=bool)).round(3).tolist()  # the mean is 2
    [0.0, 0.0, 0.707, 0.354]
    """
    mean, peak = values[real].mean(), values[real].max()
    if peak <= mean:
        return np.zeros_like(values)
    return np.where(real, np.clip(values - mean, 0, None) / (peak - mean) * (1 - mean / peak) ** 0.5, 0)


def maps_between(maps: Float[np.ndarray, "t *shape"], start: float, end: float) -> Float[np.ndarray, "*shape"]:  # noqa: F821 (a shape, not a name)
    """The map of a moment or of a part of the clip; `start` and `end` are fractions of its length.

    A moment (start = end) is interpolated linearly between the centres of the t equal steps.  Of a longer part, the
    maximum over all steps that overlap it is taken.

    >>> maps = np.array([[1.0], [3.0]])
    >>> maps_between(maps, 0.5, 0.5).tolist(), maps_between(maps, 0.0, 0.6).tolist()
    ([2.0], [3.0])
    """
    t = len(maps)
    if end > start:
        inside = [k for k in range(t) if k / t < end and (k + 1) / t > start]
        return maps[inside].max(0)
    step = min(max(start * t - 0.5, 0.0), t - 1.0)
    below = min(int(step), max(t - 2, 0))
    weight = step - below
    return (1 - weight) * maps[below] + weight * maps[min(below + 1, t - 1)]


def shade(
    image: UInt8[np.ndarray, "H W 3"], intensity: Float[np.ndarray, "H W"], strength: float = 0.75
) -> UInt8[np.ndarray, "H W 3"]:
    """Darken an image where `intensity` is low.

    Intensity 1 leaves a pixel unchanged; intensity 0 reduces its brightness to (1 - strength) and its colour to 40 %.
    """
    intensity = intensity[..., None]
    grey = image.mean(-1, keepdims=True)
    dark = (0.4 * image + 0.6 * grey) * (1 - strength)
    return np.clip(intensity * image + (1 - intensity) * dark, 0, 255).astype(np.uint8)


def heat(image: UInt8[np.ndarray, "H W 3"], intensity: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Blend an image with heat colours: intensity 0 leaves a pixel unchanged, intensity 1 covers it by 75 %."""
    cover = 0.75 * intensity[..., None]
    return ((1 - cover) * image + cover * heat_colours()[(intensity * 255).astype(np.uint8)]).astype(np.uint8)


@cache
def heat_colours() -> UInt8[np.ndarray, "256 3"]:
    """RGB colours from cold (0) to warm (255): a part of matplotlib's "turbo"."""
    from matplotlib import colormaps

    return (colormaps["turbo"](np.linspace(0.3, 0.95, 256))[:, :3] * 255).astype(np.uint8)
