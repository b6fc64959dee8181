"""Reading of media: an image or a clip in, uint8 RGB frames (T, H, W, 3) in [0, 255] out.

A medium is a file, a folder with the frames of a clip, or a medium inside an archive (`shard.tar/dog.jpg`).
"""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.torch_free import Medium, Source
from limner.data.animations import is_animation
from limner.data.archives import find_archive, local_file, names_in_archive, read_from_archive
from limner.data.clips import read_clip
from limner.data.frame_folders import is_frame_folder, read_frame_folder
from limner.data.frames import FrameSampling
from limner.data.images import MAX_SIDE, ImageSource, MediaError, read_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
MEDIA_SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_SIDE",
    "MEDIA_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ImageSource",
    "MediaError",
    "frames_of",
    "is_clip",
    "read_clip",
    "read_image",
    "read_medium",
]


def read_medium(
    medium: Medium | str | PathLike[str],
    sampling: FrameSampling = FrameSampling(),
    notes: list[str] | None = None,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the frames of an image or a clip as RGB in [0, 255].

    T is 1 for an image, and `sampling.frames` for a clip (at most so many with policy "every").  A line is added to
    `notes` for damage that did not stop decoding.  Raises MediaError when the file is missing, cannot be decoded, or
    has an unknown suffix.
    """
    if not isinstance(medium, Medium):
        medium = Medium(id=Path(medium).stem, path=str(medium))
    if is_frame_folder(medium.path):
        return read_frame_folder(medium, sampling, notes)
    if find_archive(medium.path):
        return _read_contained(medium, sampling, notes)
    if is_clip(medium.path):
        return read_clip(medium.path, sampling, medium.start, medium.end, medium.frame_seed, notes=notes)
    suffix = Path(medium.path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return read_image(medium.path)
    raise MediaError(
        f"{medium.path}: the suffix {suffix!r} is neither an image ({' '.join(IMAGE_SUFFIXES)}) "
        f"nor a clip ({' '.join(VIDEO_SUFFIXES)}); rename or convert the file"
    )


def is_clip(path: str | PathLike[str]) -> bool:
    """Whether a path is a clip: a video by its suffix, an animation (GIF, WebP, APNG, AVIF) or a folder of frames."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES or is_frame_folder(path) or is_animation(path)


def media_of_archive(path: str | PathLike[str]) -> tuple[list[str], list[str]]:
    """The paths of the media in a tar, Parquet, Arrow or HDF5 file, and a line for each part that cannot be read.

    Raises MediaError when it holds none, ValueError when it is damaged, ImportError when its package is missing.
    """
    return names_in_archive(path, MEDIA_SUFFIXES)


def _read_contained(medium: Medium, sampling: FrameSampling, notes: list[str] | None) -> UInt8[np.ndarray, "T H W 3"]:
    """Read a medium that is inside an archive; a clip is written to a temporary file while it is read."""
    archive, name = find_archive(medium.path) or (Path(), "")
    if is_clip(medium.path):
        found: list[str] = []
        with local_file(medium.path) as path:
            frames = read_clip(path, sampling, medium.start, medium.end, medium.frame_seed, notes=found)
        if notes is not None:
            notes += [note.replace(path, medium.path) for note in found]
        return frames
    try:
        return read_image(read_from_archive(archive, name))
    except MediaError as error:
        known = str(error).startswith(medium.path)
        raise MediaError(str(error) if known else f"{medium.path}{str(error).removeprefix('<bytes>')}") from error


def check_single_source(source: object) -> None:
    """Raises TypeError, with the right call, when `source` is not a single image or clip."""
    kind = type(source).__name__
    if kind == "Tensor":
        raise TypeError(
            "caption() takes no tensor: give a uint8 RGB array (H,W,3) in [0, 255], for a float (3,H,W) tensor in "
            "[0, 1] `(255 * tensor).byte().permute(1, 2, 0).numpy()`"
        )
    if hasattr(source, "read"):
        raise TypeError(f"caption() takes no open file ({kind}): give its path, or the bytes that file.read() returns")
    if isinstance(source, (list, tuple, set, Iterator)):
        raise TypeError(f"caption() takes one image or clip, got a {kind}: give several to captions()")
    if not isinstance(source, (str, PathLike, Medium, Image.Image, np.ndarray, bytes)):
        raise TypeError(f"caption() takes a path, PIL image, bytes or uint8 array, got {kind}")


def frames_of(
    source: Source, sampling: FrameSampling = FrameSampling(), notes: list[str] | None = None
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of a file, `Medium`, PIL image, encoded bytes or uint8 RGB array.

    An array is (H, W, 3) for an image or (T, H, W, 3) for a clip; `sampling` applies to files only.  Raises MediaError
    when the source cannot be read, or an array has another shape or dtype, TypeError when it is not a single medium.
    """
    check_single_source(source)
    if isinstance(source, np.ndarray) and source.ndim == 4:
        if source.dtype != np.uint8 or source.shape[3] != 3 or 0 in source.shape:
            raise MediaError(
                f"<ndarray>: the array of a clip must be uint8 RGB (T,H,W,3) in [0, 255], got {source.dtype} "
                f"{source.shape}"
            )
        return source
    if isinstance(source, (np.ndarray, Image.Image, bytes)):
        return read_image(source)
    return read_medium(source, sampling, notes)
