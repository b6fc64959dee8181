"""Read a picture or a clip by its suffix: a file in, uint8 RGB (T,H,W,3) in [0, 255] out."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.torch_free import Medium, Source
from limner.data.clips import read_clip
from limner.data.frames import FrameSampling
from limner.data.pictures import MAX_SIDE, MediaError, Picture, read_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
MEDIA_SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_SIDE",
    "MEDIA_SUFFIXES",
    "VIDEO_SUFFIXES",
    "MediaError",
    "Picture",
    "frames_of",
    "is_clip",
    "read",
    "read_clip",
    "read_image",
]


def read(
    medium: Medium | str | PathLike[str],
    sampling: FrameSampling = FrameSampling(),
    notes: list[str] | None = None,
) -> UInt8[np.ndarray, "T H W 3"]:
    """RGB [0, 255] frames of a file: T = 1 for an image, T = `sampling.frames` for a clip (policy "every": at most).

    What was damaged but could be read all the same is added to `notes`.  Raises MediaError when the file is missing,
    broken or of an unknown suffix.
    """
    if not isinstance(medium, Medium):
        medium = Medium(id=Path(medium).stem, path=str(medium))
    if is_clip(medium.path):
        return read_clip(medium.path, sampling, medium.start, medium.end, medium.frame_seed, notes=notes)
    suffix = Path(medium.path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return read_image(medium.path)
    raise MediaError(
        f"{medium.path}: the suffix {suffix!r} is neither a picture ({' '.join(IMAGE_SUFFIXES)}) "
        f"nor a clip ({' '.join(VIDEO_SUFFIXES)}); rename or convert the file"
    )


def is_clip(path: str | PathLike[str]) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def single_source(source: object) -> None:
    """Raises TypeError that names the right call when `source` is not one picture or clip."""
    kind = type(source).__name__
    if kind == "Tensor":
        raise TypeError(
            "caption() takes no tensor: give a uint8 RGB array (H,W,3) in [0, 255], for a float (3,H,W) tensor in "
            "[0, 1] `(255 * tensor).byte().permute(1, 2, 0).numpy()`"
        )
    if hasattr(source, "read"):
        raise TypeError(f"caption() takes no open file ({kind}): give its path, or the bytes that file.read() returns")
    if isinstance(source, (list, tuple, set, Iterator)):
        raise TypeError(f"caption() takes one picture or clip, got a {kind}: give several to captions()")
    if not isinstance(source, (str, PathLike, Medium, Image.Image, np.ndarray, bytes)):
        raise TypeError(f"caption() takes a path, PIL image, bytes or uint8 array, got {kind}")


def frames_of(
    source: Source, sampling: FrameSampling = FrameSampling(), notes: list[str] | None = None
) -> UInt8[np.ndarray, "T H W 3"]:
    """A path, PIL image, bytes or uint8 array -> uint8 (T, H, W, 3) RGB in [0, 255].

    Raises MediaError when it cannot be read, TypeError when it is not one picture or clip.
    """
    single_source(source)
    if isinstance(source, np.ndarray) and source.ndim == 4:
        if source.dtype != np.uint8 or source.shape[3] != 3 or 0 in source.shape:
            raise MediaError(
                f"<ndarray>: a clip's array is uint8 RGB (T,H,W,3) in [0, 255], got {source.dtype} {source.shape}"
            )
        return source
    if isinstance(source, (np.ndarray, Image.Image, bytes)):
        return read_image(source)
    return read(source, sampling, notes)
