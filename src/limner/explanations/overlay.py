"""Weights of cells laid over the picture they belong to."""

from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from limner.explanations.maps import Explanation

WHOLE = (0.0, 0.0, 1.0, 1.0)
Box = tuple[float, float, float, float]


def upsample(
    weights: Float[np.ndarray, "h w"], height: int, width: int, kept_region: Box = WHOLE
) -> Float[np.ndarray, "H W"]:
    """Cell weights -> one value per pixel, bicubic and never negative; the largest value is 1 unless all are 0.

    The cells tile the box `kept_region` (relative xyxy, see `Encoder.kept_region`); the encoder did not see the
    rest, which is 0.
    """
    values = spread(weights, height, width, kept_region)
    peak = values.max()
    return values / peak if peak > 0 else values


def spread(
    weights: Float[np.ndarray, "h w"], height: int, width: int, kept_region: Box = WHOLE
) -> Float[np.ndarray, "H W"]:
    """`upsample` without the last step: weights of several pictures stay comparable."""
    left, right = round(kept_region[0] * width), round(kept_region[2] * width)
    top, bottom = round(kept_region[1] * height), round(kept_region[3] * height)
    size = (max(1, right - left), max(1, bottom - top))
    image = Image.new("F", (width, height))
    image.paste(Image.fromarray(weights.astype(np.float32)).resize(size, Image.Resampling.BICUBIC), (left, top))
    return np.clip(np.asarray(image), 0, None)


def paint(
    weights: Float[np.ndarray, " N"], regions: Float[np.ndarray, "N 4"], height: int, width: int
) -> Float[np.ndarray, "H W"]:
    """Weights of a detector's regions -> one value per pixel, that of the highest region over it."""
    values = np.zeros((height, width), np.float32)
    for weight, (left, top, right, bottom) in zip(weights, regions * [width, height, width, height], strict=True):
        part = values[round(top) : max(round(top) + 1, round(bottom)), round(left) : max(round(left) + 1, round(right))]
        np.maximum(part, weight, out=part)
    return values


def light(
    explanation: Explanation, word: int, height: int, width: int, kept_region: Box, part: tuple[float, float]
) -> Float[np.ndarray, "H W"]:
    """What stands out of a word's map during the share [first, last] of the clip, per pixel in [0, 1].  A moment is
    interpolated between cells; of a longer part every cell's highest value counts."""
    maps = outstanding(explanation.maps[word], explanation.real).reshape(explanation.layout)
    if explanation.regions is not None:
        return paint(maps.ravel(), explanation.regions, height, width)
    return np.clip(spread(during(maps, *part), height, width, kept_region), 0, 1)


def outstanding(values: Float[np.ndarray, " N"], real: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """A map with all that is below its mean set to 0 (as in caption-guided saliency, arXiv:1612.07360); its highest
    value is the nearer to 1, the further it lies above the mean: (1 - mean / maximum) ** 0.5."""
    mean, peak = values[real].mean(), values[real].max()
    if peak <= mean:
        return np.zeros_like(values)
    return np.where(real, np.clip(values - mean, 0, None) / (peak - mean) * (1 - mean / peak) ** 0.5, 0)


def during(maps: Float[np.ndarray, "t *shape"], first: float, last: float) -> Float[np.ndarray, "*shape"]:
    """Maps at a moment (first = last, a share of the clip), or the highest of those with a part in between."""
    t = len(maps)
    if last > first:
        inside = [k for k in range(t) if k / t < last and (k + 1) / t > first]
        return maps[inside].max(0)
    place = min(max(first * t - 0.5, 0.0), t - 1.0)
    below = min(int(place), max(t - 2, 0))
    share = place - below
    return (1 - share) * maps[below] + share * maps[min(below + 1, t - 1)]


def shade(
    picture: UInt8[np.ndarray, "H W 3"], light: Float[np.ndarray, "H W"], strength: float = 0.75
) -> UInt8[np.ndarray, "H W 3"]:
    """Where `light` is 1 the picture stays; where it is 0 it is (1 - strength) as bright and has lost 60 % of its
    colour."""
    light = light[..., None]
    grey = picture.mean(-1, keepdims=True)
    dark = (0.4 * picture + 0.6 * grey) * (1 - strength)
    return np.clip(light * picture + (1 - light) * dark, 0, 255).astype(np.uint8)


def heat(picture: UInt8[np.ndarray, "H W 3"], light: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Where `light` is 0 the picture stays; towards 1 it is covered by ever warmer colour, up to three quarters."""
    cover = 0.75 * light[..., None]
    return ((1 - cover) * picture + cover * colours()[(light * 255).astype(np.uint8)]).astype(np.uint8)


@cache
def colours() -> UInt8[np.ndarray, "256 3"]:
    """From cold to warm."""
    from matplotlib import colormaps

    return (colormaps["turbo"](np.linspace(0.3, 0.95, 256))[:, :3] * 255).astype(np.uint8)
