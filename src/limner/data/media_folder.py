"""The media below a folder: which files are images or videos, which are something else, and which are nobody's."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from limner.data.recognition import promises_medium, recognise

# What systems and programs put beside the files of a user, in lower case.  Some hold copies of the user's images.
COMPANIONS = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini", "__macosx", "@eadir", "#recycle"),
    *("$recycle.bin", "system volume information", "lost+found"),
)


@dataclass(frozen=True)
class MediaFolder:
    """The files below a folder, ordered by path.

    `media` are recognised by their content, or promised by their name; whoever reads them finds out what is wrong with
    the others.  `others` are files of another kind, for example text.  `problems` has a line for each folder that
    cannot be listed.
    """

    media: tuple[Path, ...]
    others: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()

    def note(self, root: str | PathLike[str]) -> str:
        """A line about the other files; "" if there are none."""
        if not self.others:
            return ""
        names = ", ".join(os.path.relpath(path, root) for path in self.others[:3])
        more = ", ..." if len(self.others) > 3 else ""
        files = "file is" if len(self.others) == 1 else "files are"
        return f"{root}: {len(self.others)} {files} no image and no video: {names}{more}"


def media_below(root: str | PathLike[str], recursive: bool = True) -> MediaFolder:
    """Find the media in a folder, and unless `recursive` is False in its subfolders.

    Hidden files and folders (`.name`), and what systems put beside them, are left out.  A linked folder is followed
    unless its files are below `root` anyway.
    """
    problems: list[str] = []
    media: list[Path] = []
    others: list[Path] = []
    for path in sorted(_files_below(Path(root), problems, recursive)):
        (media if _is_medium(path) else others).append(path)
    return MediaFolder(tuple(media), tuple(others), tuple(problems))


def is_companion(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was put there by a system.

    >>> [is_companion(name) for name in ("._dog.jpg", ".ipynb_checkpoints", "Thumbs.db", "dog.jpg", "..")]
    [True, True, True, False, False]
    """
    return (name.startswith(".") and name.strip(".") != "") or name.lower() in COMPANIONS


def visible_files(folder: Path, suffixes: tuple[str, ...] = ()) -> list[Path]:
    """The files and folders in a folder that are no companions, ordered by name; `suffixes` are in small letters."""
    paths = sorted(path for path in folder.iterdir() if not is_companion(path.name))
    return [path for path in paths if path.suffix.lower() in suffixes] if suffixes else paths


def visible_below(root: Path) -> list[Path]:
    """Everything below a folder that is no companion and in no companion, ordered by path."""
    paths = sorted(root.rglob("*"))
    return [path for path in paths if not any(map(is_companion, path.relative_to(root).parts))]


def _is_medium(path: Path) -> bool:
    """Whether a file is one that a user would expect to be read; a FIFO or a damaged link is, and fails by name."""
    return promises_medium(path) or not path.is_file() or recognise(path) != ""


def _files_below(folder: Path, problems: list[str], recursive: bool) -> Iterator[Path]:
    """Every file that is no companion, in no order."""
    root = folder.resolve()
    seen = {root}

    def cannot_be_listed(error: OSError) -> None:
        problems.append(f"{error.filename}: the folder cannot be listed ({error.strerror}); it was left out")

    for where, folders, files in os.walk(folder, onerror=cannot_be_listed, followlinks=True):
        below = folders if recursive else []
        folders[:] = [name for name in below if not is_companion(name) and _is_new(Path(where, name), root, seen)]
        yield from (Path(where, name) for name in files if not is_companion(name))


def _is_new(folder: Path, root: Path, seen: set[Path]) -> bool:
    """Whether the files of a folder are not listed otherwise."""
    if not folder.is_symlink():
        return True
    target = folder.resolve()
    if target in seen or target.is_relative_to(root) or root.is_relative_to(target):
        return False
    seen.add(target)
    return True
