"""Folders of frames: a folder whose images are the frames of one clip, in the order of the numbers in their names.

The frames have no times, so a part of such a clip cannot be chosen by seconds.
"""

import re
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.torch_free import Medium
from limner.data.frames import FrameSampling, sample_indices, sample_positions
from limner.data.images import MediaError, read_image
from limner.data.media_folder import is_companion

FRAME_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_NUMBERED = re.compile(r"(\D*)(\d+)")  # frame_000012, img12, 12


def is_frame_folder(path: str | PathLike[str]) -> bool:
    """Whether a path is a folder."""
    return bool(str(path)) and Path(path).is_dir()


def frame_files(folder: str | PathLike[str]) -> list[Path]:
    """The images of a folder in the order of the numbers in their names: `frame2.jpg` comes before `frame10.jpg`.

    Hidden files, other files and subfolders are left out.
    """
    path = Path(folder)
    return list(_frame_files(str(path), path.stat().st_mtime_ns))


@lru_cache(maxsize=4096)
def _frame_files(folder: str, modified: int) -> tuple[Path, ...]:
    files = (path for path in Path(folder).iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    return tuple(sorted((path for path in files if not is_companion(path.name)), key=_by_number))


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort key of a name, in which runs of digits count as numbers.

    >>> _by_number(Path("frame10.jpg")) > _by_number(Path("frame2.jpg"))
    True
    """
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]
    return [*parts, (-1, path.name)]  # frame1 and frame01 are always in the same order


def looks_like_frames(folder: str | PathLike[str]) -> bool:
    """Whether all images of a folder have one name with consecutive numbers, at least three of them."""
    names = [_NUMBERED.fullmatch(path.stem) for path in frame_files(folder)]
    if len(names) < 3 or not all(names):
        return False
    numbers = [int(name[2]) for name in names if name]
    return len({name[1] for name in names if name}) == 1 and numbers == list(range(numbers[0], numbers[-1] + 1))


def sampled_frames(count: int, sampling: FrameSampling, seed: int | None = None) -> list[int]:
    """The numbers of the frames that `sampling` chooses out of `count`, as in a clip of constant frame rate.

    >>> sampled_frames(6, FrameSampling(3)), sampled_frames(2, FrameSampling(3, "head"))
    ([1, 3, 5], [0, 1, 1])
    """
    if sampling.policy in ("uniform", "random"):
        positions = sample_positions(sampling.frames, seed if sampling.policy == "random" else None)
        return [int(count * position) for position in positions]
    chosen = list(sample_indices(count, sampling))
    return chosen if sampling.policy == "every" else chosen + [chosen[-1]] * (sampling.frames - len(chosen))


def read_frame_folder(
    medium: Medium, sampling: FrameSampling = FrameSampling(), notes: list[str] | None = None
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the chosen frames of a folder as RGB in [0, 255]; later frames are resized to the size of the first one.

    In place of a frame that cannot be read the frame before it is taken (for the first ones, the next one), and a line
    is added to `notes`.  Raises MediaError when the folder holds no image, none can be read, or a part in seconds is
    asked for.
    """
    files = frame_files(medium.path)
    if not files:
        raise MediaError(f"{medium.path}: there is no image in this folder; expected the frames of a clip")
    if medium.start is not None or medium.end is not None:
        raise MediaError(f"{medium.path}: frames have no times, so the part in seconds is not known; give a video file")
    chosen = sampled_frames(len(files), sampling, medium.frame_seed)
    images: dict[int, np.ndarray] = {}
    errors: list[str] = []
    for number in dict.fromkeys(chosen):
        try:
            images[number] = read_image(files[number])[0]
        except MediaError as error:
            errors.append(str(error))
    if not images:
        raise MediaError(f"{medium.path}: none of its frames can be read; the first: {errors[0]}")
    if errors and notes is not None:
        notes.append(
            f"{medium.path}: {len(errors)} frames cannot be read, their neighbours stand for them ({errors[0]})"
        )
    readable = sorted(images)
    shown = [images[max((k for k in readable if k <= number), default=readable[0])] for number in chosen]
    height, width = shown[0].shape[:2]
    same_size = (
        image if image.shape[:2] == (height, width) else np.asarray(Image.fromarray(image).resize((width, height)))
        for image in shown
    )
    return np.stack(list(same_size))
