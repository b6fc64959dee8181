"""Named augmentations of a medium: what stored features see instead of random augmentation."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

KEEP = 0.85  # of each side, so that a crop loses a rim but seldom the thing the caption speaks of

Augmentation = Callable[[UInt8[np.ndarray, "T H W 3"]], UInt8[np.ndarray, "T h w 3"]]


def full(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W 3"]:
    """Everything, as it is."""
    return frames


def flip(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W 3"]:
    """Left and right exchanged."""
    return frames[:, :, ::-1]


def crop(vertical: float, horizontal: float) -> Augmentation:
    """A view of KEEP of each side, placed by fractions of the free space: (0, 0) top left, (1, 1) bottom right."""

    def augmentation(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T h w 3"]:
        height, width = frames.shape[1:3]
        h, w = max(1, round(KEEP * height)), max(1, round(KEEP * width))
        top, left = round(vertical * (height - h)), round(horizontal * (width - w))
        return frames[:, top : top + h, left : left + w]

    return augmentation


def flipped(inner: Augmentation) -> Augmentation:
    """The mirror image of another view: the same part of the picture, exchanged left and right."""
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
