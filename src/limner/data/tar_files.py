"""Index of a tar file: where each file in it lies, so that one can be read without unpacking the others."""

import bz2
import gzip
import lzma
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

from limner.data.media_folder import is_companion
from limner.data.recognition import HEAD, promises_medium, recognise_bytes

OPENERS: dict[str, Any] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
}
TAR_SUFFIXES = (".tar", *OPENERS)
TEXT_SUFFIXES = (".txt", ".json")  # captions of samples; they are never tried as media
MOST_TOLD = 100  # problems of a tar, which may have millions
MOST_GROWTH = 100  # times; text shrinks so much, media do not, and a file that was made to fill a disk is refused
BLOCK = 1 << 20  # bytes
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)


class Place(NamedTuple):
    """Where the bytes of a member lie in the tar."""

    offset: int
    size: int


class TarIndex:
    """The regular files of a tar by name, in their order.

    Links, devices and hidden companions (`._dog.jpg`, `__MACOSX`) are left out.  A compressed tar is decompressed into
    a temporary file once, because one member of it cannot be reached otherwise.  `problems` has a line for everything
    that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        """Read the headers.  Raises ValueError when the file is not a tar, or nothing in it can be read."""
        self.path = path
        self.places: dict[str, Place] = {}
        self.problems: list[str] = []
        self._lock, self._untold = Lock(), 0
        suffix = next((suffix for suffix in OPENERS if path.name.lower().endswith(suffix)), "")
        self._unpacked = self._decompress(suffix) if suffix else None
        self._read_headers()

    def _decompress(self, suffix: str) -> BinaryIO:
        copy: BinaryIO = tempfile.TemporaryFile(prefix="limner-")  # noqa: SIM115
        limit = max(self.path.stat().st_size, BLOCK) * MOST_GROWTH
        try:
            with OPENERS[suffix](self.path, "rb") as packed:
                while block := packed.read(BLOCK):
                    copy.write(block)
                    if copy.tell() > limit:
                        raise ValueError(
                            f"{self.path} becomes more than {MOST_GROWTH} times larger when it is decompressed; "
                            "decompress it yourself if you trust it"
                        )
        except BROKEN as error:
            if not copy.tell():
                raise ValueError(f"{self.path} cannot be decompressed ({error}): download it again") from error
            self.problems.append(f"{self.path}: the compressed file breaks off ({error})")
        copy.flush()
        return copy

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self._unpacked is None:
            with open(self.path, "rb") as file:
                yield file
            return
        with self._lock:  # threads share the position in the file
            yield self._unpacked

    def _read_headers(self) -> None:
        with self._open() as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    for member in tar:
                        self._add(member, end)
                        tar.members = []  # type: ignore[attr-defined]  # or else tarfile keeps a kilobyte for each
            except (tarfile.TarError, *BROKEN) as error:
                if not self.places:
                    raise ValueError(f"{self.path} is not a tar file, or is damaged ({error})") from error
                self.problems.append(f"{self.path}: it breaks off after {len(self.places)} files ({error})")
        if self._untold:
            self.problems.append(f"{self.path}: {self._untold:,} more problems like these")
        if not self.places and not end:
            raise ValueError(f"{self.path} is empty (0 bytes)")

    def _add(self, member: tarfile.TarInfo, end: int) -> None:
        name = member.name.removeprefix("./")
        if any(part == ".." or is_companion(part) for part in name.split("/")) or member.isdir():
            return
        if not member.isreg() or member.issparse():
            self._tell(f"{self.path}/{name}: it is a link or a special file, which is not read")
        elif member.offset_data + member.size > end:
            self._tell(f"{self.path}/{name}: the tar breaks off in this file; download it again")
        else:  # of two members of one name, tar's rule is that the later one counts
            self.places[name] = Place(member.offset_data, member.size)

    def _tell(self, problem: str) -> None:
        """Keep a problem, or count it when there are many."""
        self._untold += len(self.problems) >= MOST_TOLD
        if len(self.problems) < MOST_TOLD:
            self.problems.append(problem)

    def names(self) -> list[str]:
        """The names of the media."""
        return [name for name in self.places if self.is_medium(name)]

    def is_medium(self, name: str) -> bool:
        """Whether a member is a medium: its name promises one, or it begins as one."""
        if promises_medium(name):
            return True
        if not self.places[name].size or name.lower().endswith(TEXT_SUFFIXES):
            return False
        return recognise_bytes(self.read(name, HEAD), name) != ""

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of a member, at most the first `most` ones.

        Raises ValueError, with examples, when the tar does not have it.
        """
        if name not in self.places:
            examples = ", ".join(list(self.places)[:2])
            raise ValueError(f"there is no such file in the tar, which has {len(self.places)} files ({examples}, ...)")
        offset, size = self.places[name]
        size = size if most is None else min(size, most)
        with self._open() as file:
            if self._unpacked is not None and hasattr(os, "pread"):  # forked processes share the position
                return os.pread(file.fileno(), size, offset)
            file.seek(offset)
            return file.read(size)
