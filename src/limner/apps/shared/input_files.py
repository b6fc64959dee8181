"""Arguments of commands that name files: folders, patterns, archives and lists become paths of images and videos."""

import glob
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from limner.apps.shared.streams import input_lines
from limner.core.addresses import address_error
from limner.data.archives import is_archive
from limner.data.frame_folders import frame_files, looks_like_frames
from limner.data.media import media_of_archive
from limner.data.media_folder import is_companion, media_below, visible_below
from limner.data.sidecars import without_sidecars


def expand(
    sources: Sequence[str], notes: list[str] | None = None, frame_folders: bool = False
) -> tuple[list[str], list[str]]:
    """Arguments -> (files without duplicates, a line for each argument that names no file).

    A folder stands for the images and videos below it, in the order of their names; a pattern for the files that match
    it; a tar, Parquet or HDF5 file for the media in it; "-" for the lines of the standard input.  `./dog.png` is
    `dog.png`.  Hidden files of a folder are left out.  With `frame_folders`, a folder that holds images stands for one
    clip.  A line is added to `notes` about files of a folder that are no media.
    """
    files: dict[str, None] = {}
    problems: list[str] = []
    listed = input_lines() if "-" in sources else ()
    for source in chain((source for source in sources if source != "-"), filter(None, listed)):
        path = Path(os.path.normpath(source))
        matches: list[str] = []
        if error := address_error(source):
            problems.append(error)
        elif glob.has_magic(source) and not path.exists():
            names = (name for name in glob.glob(source, recursive=True) if not os.path.isdir(name))
            matches = sorted(name for name in names if not _finds_companion(source, name))
            if not matches:
                problems.append(f"{source}: no file matches this pattern")
        elif path.is_dir() and frame_folders:
            matches = [str(folder) for folder in (path, *_folders_below(path)) if frame_files(folder)]
            if not matches:
                problems.append(f"{source}: no folder with images in this folder")
        elif path.is_dir():
            below = without_sidecars(media_below(path))
            if not below.media:
                problems.append(f"{source}: no image or video in this folder")
            if notes is not None and below.others:
                notes.append(below.note(source))
            problems += below.problems
            matches = list(map(str, below.media))
        else:
            matches = [str(path)]
        for match in matches:
            files.update(dict.fromkeys(_media_in(match, problems)))
    return list(files), problems


def _finds_companion(pattern: str, path: str) -> bool:
    """Whether a part of a path that a pattern matches was put there by a system, and the pattern does not name it."""
    return any(is_companion(part) for part in set(Path(path).parts) - set(Path(pattern).parts))


def _media_in(file: str, problems: list[str]) -> list[str]:
    """The paths of the media in an archive; the file itself when it is none."""
    if not is_archive(file):
        return [file]
    try:
        media, damage = media_of_archive(file)
    except (ValueError, ImportError) as error:
        problems.append(str(error))
        return []
    problems += damage
    return media


def _folders_below(path: Path) -> list[Path]:
    return [folder for folder in visible_below(path) if folder.is_dir()]


def notes_about_frames(sources: Sequence[str]) -> list[str]:
    """A note for each folder among the arguments that seems to hold several clips as folders of numbered frames."""
    notes = []
    for source in map(Path, sources):
        folders = (source, *_folders_below(source)) if source.is_dir() else ()
        frames = [folder for folder in folders if looks_like_frames(folder)]
        if len(frames) > 1:  # a single folder of numbered images may well be one of photographs
            notes.append(f"{source}: {len(frames)} folders have numbered images; --frame-folders reads each as a video")
    return notes
