"""Locks between processes: one writer at a time for an output file, a run folder or a feature store.

A lock is held by an open file (`flock`), so the system ends it with the process, however that ends: a process that was
killed never blocks the next one.  Systems without `fcntl` (Windows) and file systems without locks have none.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LONGEST = 200  # bytes of a file name that still leave room for more letters; most file systems allow 255


class LockedError(OSError):
    """Raised when another process is writing the same output."""


@contextmanager
def lock_output(out: str | Path) -> Iterator[None]:
    """Context manager that holds the lock of an output file or folder, `.NAME.lock` beside it.

    Missing parent folders are made, and removed afterwards when they are empty.  Raises LockedError when another
    process holds the lock, OSError when the folder of `out` cannot be written.

    >>> with lock_output("/tmp/captions.csv"):
    ...     pass  # another process that asks for this lock now gets a LockedError
    """
    out = Path(os.path.abspath(out))
    with _made(out.parent), _lock(out.parent / f".{short_name(out.name)}.lock", out):
        yield


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Context manager that holds the lock of a folder in which a command works, `.lock` in it.

    A missing folder is made, and removed afterwards when it is empty.  Raises LockedError when another process holds
    the lock, OSError when the folder cannot be written.
    """
    folder = Path(folder)
    with _made(folder), _lock(folder / ".lock", folder):
        yield


def short_name(name: str) -> str:
    """A file name, or its hash when it is too long to get more letters."""
    data = os.fsencode(name)
    return name if len(data) <= LONGEST else hashlib.sha256(data).hexdigest()[:32]


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; those that are empty afterwards are removed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # which a folder with files raises
            for path in missing:
                path.rmdir()


@contextmanager
def _lock(path: Path, what: Path) -> Iterator[None]:
    """Hold the lock file `path`; it is removed afterwards."""
    try:
        handle = open_locked(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(what)) from error
    if handle is None:
        raise LockedError(
            f"{what} is being written by another process{_owner(path)}: wait until it is done, or choose another name"
        )
    try:
        with suppress(OSError):  # it is only for messages
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def open_locked(path: Path, need_lock: bool = False) -> int | None:
    """Open a lock file, which is created, and take its lock -> its descriptor; None when another process has it.

    Where there are no locks, the file is only opened; with `need_lock` the result is None then too.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        has_locks = True
        try:
            if fcntl is None:
                raise OSError("no locks on this system")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            has_locks = False
        if _is_at(handle, path) and (has_locks or not need_lock):
            return handle
        os.close(handle)
        if not has_locks and need_lock:
            return None
        # else its owner has removed it between the two calls: take the next one


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    """The process that holds a lock, in words; "" when it cannot be read."""
    with suppress(OSError):
        number = path.read_text(encoding="ascii", errors="replace")
        return f" ({number})" if number.isdigit() else ""
    return ""
