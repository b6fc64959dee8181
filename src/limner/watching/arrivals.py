"""Which media of a folder have arrived as a whole.

The folder is listed again and again (polling): unlike notifications of the system, this works on network drives, in
containers and on every system.  A file counts as whole when its size and time of change stay the same for some
seconds.  Whoever reads it may find that it is not, and call `postpone`.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from limner.data.media_folder import media_below

# endings under which browsers, copying programs and editors write a file before they rename it
UNFINISHED = (
    *(".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".tmp", ".temp", ".aria2", ".!ut"),
    *(".!qb", ".swp", "~"),
)


class Signature(NamedTuple):
    """What changes when a file is written: its size in bytes, and the time of its last change in nanoseconds."""

    size: int
    mtime: int


class Arrival(NamedTuple):
    """A file that is ready to be read.  `last`: it has not changed for so long that there is no more to wait for."""

    path: str
    signature: Signature
    last: bool


@dataclass
class _Seen:
    signature: Signature
    since: float  # when it was first seen like this
    postponed: bool = False


@dataclass
class Arrivals:
    """The files of a folder that are ready to be read.

    recursive  also those of its subfolders
    settle     seconds for which a file must not change before it is read
    patience   seconds for which a file that cannot be read must not change before it counts as damaged
    clock, wall_clock  seconds that pass, and seconds since 1970, which time stamps of files count

    >>> Arrivals("photos", settle=2).look()  # the first look finds nothing that has not changed since
    []
    """

    root: str
    recursive: bool = True
    settle: float = 2.0
    patience: float = 30.0
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    problems: tuple[str, ...] = ()  # of the last look: folders that cannot be listed
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _done: dict[str, Signature] = field(default_factory=dict)

    @property
    def is_waiting(self) -> bool:
        """Whether the last look saw files that are not done."""
        return bool(self._seen)

    def look(self) -> list[Arrival]:
        """List the folder once -> the files that are ready, ordered by path."""
        found = media_below(self.root, self.recursive)
        self.problems = found.problems
        now, today = self.clock(), self.wall_clock()
        seen: dict[str, _Seen] = {}
        ready = []
        for path in map(str, found.media):
            signature = None if is_unfinished(path) else signature_of(path)
            if signature is None or self._done.get(path) == signature:
                continue
            before = self._seen.get(path)
            if before is None or before.signature != signature:
                seen[path] = _Seen(signature, now)
                continue
            seen[path] = before
            unchanged = now - before.since
            last = max(unchanged, today - signature.mtime / 1e9) >= self.patience
            if unchanged >= self.settle and (last or not before.postponed):
                ready.append(Arrival(path, signature, last))
        self._seen = seen
        return ready

    def done(self, path: str, signature: Signature) -> None:
        """Leave a file out until it changes."""
        self._done[path] = signature
        self._seen.pop(path, None)

    def postpone(self, path: str) -> None:
        """Leave a file out until it changes, or has not changed for `patience` seconds."""
        if path in self._seen:
            self._seen[path].postponed = True


def is_unfinished(path: str) -> bool:
    """Whether the name is one under which programs write what they rename afterwards.

    >>> is_unfinished("dog.jpg.crdownload"), is_unfinished("dog.jpg")
    (True, False)
    """
    return Path(path).name.lower().endswith(UNFINISHED)


def signature_of(path: str) -> Signature | None:
    """The signature of a file; None when there is none, or it is a link to nothing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Signature(status.st_size, status.st_mtime_ns)
