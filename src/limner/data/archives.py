"""Media inside an archive: a member of a tar, a row of a Parquet or Arrow file, a row of an HDF5 file.

The path of such a medium is the path of the archive, a slash and the name in it: `shard-000000.tar/dog.jpg`.  Nothing
is unpacked: a medium is read from its place in the file when it is needed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from os import PathLike
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol, runtime_checkable

import numpy as np

from limner.core.locks import short_name
from limner.core.temporaries import temporary_folder
from limner.data.arrow_tables import ARROW_SUFFIXES, ArrowTable
from limner.data.frame_folders import frame_files
from limner.data.images import MediaError
from limner.data.recognition import Kind, kind_by_suffix, recognise_bytes
from limner.data.stored_images import HDF5_SUFFIXES, StoredImages
from limner.data.tar_files import TAR_SUFFIXES, TarIndex


@runtime_checkable
class Archive(Protocol):
    """A file that holds media.  `problems` has a line for each part of it that cannot be read."""

    problems: list[str]

    def names(self) -> list[str]:
        """The names of the media in it, in their order."""

    def read(self, name: str) -> bytes | np.ndarray:
        """The encoded bytes of a medium, or its uint8 RGB array (H, W, 3).  Raises ValueError when it has none."""


READERS: dict[tuple[str, ...], Callable[[Path], Archive]] = {
    TAR_SUFFIXES: TarIndex,
    ARROW_SUFFIXES: ArrowTable,
    HDF5_SUFFIXES: StoredImages,
}
ARCHIVE_SUFFIXES = tuple(suffix for suffixes in READERS for suffix in suffixes)


def is_archive(path: str | PathLike[str]) -> bool:
    """Whether a path is a file that may hold media, by its ending."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES) and Path(path).is_file()


def find_archive(path: str | PathLike[str]) -> tuple[Path, str] | None:
    """The archive and the name in it for a path like `shard.tar/dog.jpg`; None for the path of a file."""
    whole = Path(path)
    if not any(part.lower().endswith(ARCHIVE_SUFFIXES) for part in whole.parts[:-1]):
        return None
    for parent in whole.parents:
        if is_archive(parent):
            return parent, whole.relative_to(parent).as_posix()
    return None


def open_archive(path: Path) -> Archive:
    """Open an archive.  An archive that was opened before is kept until the file changes.

    Raises ValueError when the file is damaged, ImportError when it needs a package that is not installed.
    """
    status = path.stat()
    return _open(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1 << 16)  # indices only; none of them holds a file open but a compressed tar
def _open(path: str, modified: int, size: int) -> Archive:
    reader = next(reader for suffixes, reader in READERS.items() if path.lower().endswith(suffixes))
    return reader(Path(path))


def media_of_archive(path: str | PathLike[str]) -> tuple[list[str], list[str]]:
    """The paths of the media in a tar, Parquet, Arrow or HDF5 file, and a line for each part that cannot be read.

    Raises MediaError when it holds none, ValueError when it is damaged, ImportError when its package is missing.
    """
    archive = open_archive(Path(path))
    names = archive.names()
    if not names:
        raise MediaError(f"{path}: there is no image or clip in it")
    return [f"{path}/{name}" for name in names], list(archive.problems)


def read_from_archive(archive: Path, name: str) -> bytes | np.ndarray:
    """The bytes or pixels of a medium in an archive.  Raises MediaError, which names both, when it cannot be read."""
    try:
        return open_archive(archive).read(name)
    except (ValueError, OSError) as error:
        raise MediaError(f"{archive}/{name}: {error}") from error


def medium_exists(path: str | PathLike[str]) -> bool:
    """Whether there is a file, a folder of frames or a medium in an archive at `path`."""
    if Path(path).is_file():
        return True
    if str(path) and Path(path).is_dir():
        return bool(frame_files(path))
    place = find_archive(path)
    try:
        return place is not None and bool(len(open_archive(place[0]).read(place[1])))
    except ValueError:
        return False


@contextmanager
def local_file(path: str | PathLike[str]) -> Iterator[str]:
    """Context manager that yields the path of a file with the bytes of a medium: `path` itself for a file.

    A medium in an archive is written to a temporary file.  A MediaError that names that file names `path` instead.
    """
    place = find_archive(path)
    if place is None:
        yield str(path)
        return
    content = read_from_archive(*place)
    if not isinstance(content, bytes):
        raise MediaError(f"{path}: it is an image, not a clip")
    with temporary_file(content, str(path)) as temporary:
        yield temporary


@contextmanager
def temporary_file(content: bytes, name: str) -> Iterator[str]:
    """Context manager that yields the path of a temporary file with these bytes.

    A MediaError that names that file names `name` instead.
    """
    with temporary_folder(gettempdir(), "limner-media") as folder:
        temporary = folder / short_name(Path(name).name)
        temporary.write_bytes(content)
        try:
            yield str(temporary)
        except MediaError as error:
            raise MediaError(str(error).replace(str(temporary), name)) from error


def kind_in_archive(archive: Path, name: str) -> Kind:
    """What a medium in an archive is by its content; by its name, when it cannot be read."""
    try:
        status = archive.stat()
        return _kind(archive, name, status.st_mtime_ns, status.st_size)
    except (MediaError, OSError, ImportError):
        return kind_by_suffix(name)


@lru_cache(maxsize=1 << 16)
def _kind(archive: Path, name: str, modified: int, size: int) -> Kind:
    content = read_from_archive(archive, name)
    return (recognise_bytes(content, name) or kind_by_suffix(name)) if isinstance(content, bytes) else "image"
