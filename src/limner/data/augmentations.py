"""Named, deterministic augmentations of a medium, for which features can be stored."""

from collections.abc import Callable
from math import ceil

import numpy as np
from jaxtyping import UInt8

CROP_FRACTION = 0.85  # of each side: a crop seldom loses an object that the caption mentions

Augmentation = Callable[[UInt8[np.ndarray, "T H W 3"]], UInt8[np.ndarray, "T h w 3"]]


def full(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames unchanged."""
    return frames


def flip(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames mirrored left to right."""
    return frames[:, :, ::-1]


def crop(vertical: float, horizontal: float) -> Augmentation:
    """An augmentation that crops CROP_FRACTION of each side; (0, 0) is the top left corner, (1, 1) the bottom right."""

    def augmentation(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T h w 3"]:
        height, width = frames.shape[1:3]
        h, w = max(1, round(CROP_FRACTION * height)), max(1, round(CROP_FRACTION * width))
        top, left = round(vertical * (height - h)), round(horizontal * (width - w))
        return frames[:, top : top + h, left : left + w]

    return augmentation


def flipped(inner: Augmentation) -> Augmentation:
    """An augmentation, mirrored left to right: the same part of the image is kept."""
    return lambda frames: flip(inner(frames))


_CROPS = {
    "crop-tl": crop(0.0, 0.0),
    "crop-tr": crop(0.0, 1.0),
    "crop-bl": crop(1.0, 0.0),
    "crop-br": crop(1.0, 1.0),
    "crop-centre": crop(0.5, 0.5),
}
AUGMENTATIONS: dict[str, Augmentation] = {
    "full": full,
    "flip": flip,
    **_CROPS,
    **{f"flip-{name}": flipped(augmentation) for name, augmentation in _CROPS.items()},
}


def side_before(augmentation: str, side: int) -> int:
    """The shorter side that an image must have so that it is at least `side` after the augmentation.

    >>> side_before("flip", 170), side_before("flip-crop-tl", 170)
    (170, 200)
    """
    return ceil(side / CROP_FRACTION) if "crop" in augmentation else side
