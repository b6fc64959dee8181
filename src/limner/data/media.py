"""Reading of media: an image or a clip in, uint8 RGB frames (T, H, W, 3) in [0, 255] out.

A medium is a file, a folder with the frames of a clip, or a medium inside an archive (`shard.tar/dog.jpg`).
"""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.addresses import address_error
from limner.core.torch_free import Medium, Source, WithContext
from limner.data import animations
from limner.data.archives import (
    find_archive,
    is_archive,
    kind_in_archive,
    media_of_archive,
    read_from_archive,
    temporary_file,
)
from limner.data.clips import read_clip
from limner.data.frame_folders import is_frame_folder, read_frame_folder
from limner.data.frames import FrameSampling
from limner.data.image_files import file_problem, first_bytes, what_it_is
from limner.data.images import MAX_SIDE, ImageSource, MediaError, read_image
from limner.data.recognition import (
    IMAGE_SUFFIXES,
    MEDIA_SUFFIXES,
    VIDEO_SUFFIXES,
    kind_by_suffix,
    recognise,
    recognise_bytes,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_SIDE",
    "MEDIA_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ImageSource",
    "MediaError",
    "frames_of",
    "is_clip",
    "media_of_archive",
    "read_clip",
    "read_image",
    "read_medium",
]


def read_medium(
    medium: Medium | str | PathLike[str],
    sampling: FrameSampling = FrameSampling(),
    notes: list[str] | None = None,
    side: int = 0,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the frames of an image or a clip as RGB in [0, 255].

    The content of the file decides which it is, not its suffix.  T is 1 for an image, and `sampling.frames` for a clip
    (at most so many with policy "every").  `side` is the shorter side in pixels to which the frames will be resized, 0
    if that is not known; large images are read reduced to at least twice this (see `read_image`).  A line is added to
    `notes` for damage that did not stop decoding.  Raises MediaError when the file is missing, cannot be decoded, or is
    no medium.
    """
    if not isinstance(medium, Medium):
        medium = Medium(id=Path(medium).stem, path=str(medium))
    if error := address_error(medium.path):
        raise MediaError(error)
    if is_frame_folder(medium.path):
        return read_frame_folder(medium, sampling, notes)
    if find_archive(medium.path):
        return _read_contained(medium, sampling, notes, side)
    if is_clip(medium.path):
        return read_clip(medium.path, sampling, medium.start, medium.end, medium.frame_seed, notes=notes)
    if recognise(medium.path) or kind_by_suffix(medium.path):  # reading a file that lacks its content tells why
        return read_image(medium.path, notes=notes, side=side)
    raise MediaError(f"{medium.path}: {_why_unknown(medium.path)}")


def is_clip(path: str | PathLike[str]) -> bool:
    """Whether a path is a clip: a video or an animation, by its content, or a folder of frames.

    A path that is not there is judged by its suffix.  A damaged file counts as what its name
    promises, because reading it tells what is wrong.
    """
    if is_frame_folder(path):
        return True
    if place := find_archive(path):
        return kind_in_archive(*place) in ("video", "animation")
    kind = recognise(path)
    if kind or kind_by_suffix(path) != "video" or not Path(path).is_file():
        return kind in ("video", "animation")
    return not what_it_is(first_bytes(path))  # a damaged video: reading it tells what is wrong


def _why_unknown(path: str) -> str:
    """What a file is that is neither an image nor a video, and what to do."""
    try:
        if problem := file_problem(path):
            return f"{problem}; give an image or a video file, or remove it"
        head = first_bytes(path)
    except FileNotFoundError:
        return "there is no such file; check the path or the folder of the media"
    except OSError as error:
        return f"the file cannot be opened ({error.strerror}); check its permissions"
    if not head:
        return "the file is empty (0 bytes); replace or remove it"
    if is_archive(path):
        return "it holds several media: name one of them, as in shard.tar/dog.jpg (limner caption takes the whole file)"
    what = what_it_is(head)
    return f"it is {what}" if what else "neither an image nor a video that is read; convert or remove it"


def _read_contained(
    medium: Medium, sampling: FrameSampling, notes: list[str] | None, side: int
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read a medium that is inside an archive."""
    content = read_from_archive(*(find_archive(medium.path) or (Path(), "")))
    if isinstance(content, bytes):
        return _read_bytes(content, medium, sampling, notes, side)
    return read_image(content, notes=notes, side=side)


def _read_bytes(
    content: bytes, medium: Medium, sampling: FrameSampling, notes: list[str] | None, side: int
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the encoded bytes of a medium; a clip is written to a temporary file while it is read.

    Errors and notes name `medium.path`.
    """
    name, found = medium.path, list[str]()
    if (recognise_bytes(content, name) or kind_by_suffix(name)) in ("video", "animation"):
        with temporary_file(content, name) as path:
            frames = read_clip(path, sampling, medium.start, medium.end, medium.frame_seed, notes=found)
        found = [note.replace(path, name) for note in found]
    else:
        try:
            frames = read_image(content, notes=found, side=side)
        except MediaError as error:
            raise MediaError(f"{name}{str(error).removeprefix('<bytes>')}") from error
        found = [f"{name}{note.removeprefix('<bytes>')}" for note in found]
    if notes is not None:
        notes += found
    return frames


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
    if isinstance(source, WithContext):
        raise TypeError("this model takes no request, so no context: give the source itself")
    if not isinstance(source, (str, PathLike, Medium, Image.Image, np.ndarray, bytes)):
        raise TypeError(f"caption() takes a path, PIL image, bytes or uint8 array, got {kind}")


def frames_of(
    source: Source, sampling: FrameSampling = FrameSampling(), notes: list[str] | None = None, side: int = 0
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of a file, `Medium`, PIL image, encoded bytes or uint8 RGB array.

    An array is (H, W, 3) for an image or (T, H, W, 3) for a clip; `sampling` applies to files and bytes only.  Bytes of
    a video or an animation are a clip, as their file is; a PIL image is the frame that it shows.  `side` and `notes`
    are those of `read_medium`.  Raises MediaError
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
    if isinstance(source, bytes):
        return _read_bytes(source, Medium("", "<bytes>"), sampling, notes, side)
    is_animation = isinstance(source, Image.Image) and source.format in animations.FORMATS
    if is_animation and notes is not None and (count := getattr(source, "n_frames", 1)) > 1:
        kind = type(source).__name__
        notes.append(f"<{kind}>: one of its {count} frames is read; give the path or the bytes to read a clip")
    if isinstance(source, (np.ndarray, Image.Image)):
        return read_image(source, notes=notes, side=side)
    assert not isinstance(source, WithContext)  # refused above
    return read_medium(source, sampling, notes, side)
