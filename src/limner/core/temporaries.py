"""Temporary folders beside the files that are being written, removed also when the process that made them was killed.

The name is `.NAME.XXXXXXXX.limner`, and the lock in the folder is held while it is in use.  Whoever makes one removes
those in the same folder whose lock is free: their process is dead.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from limner.core.locks import open_locked, short_name

ENDING = ".limner"
LOCK = "lock"
_NAME = re.compile(rf"\..+\.[a-z0-9_]{{8}}{re.escape(ENDING)}")
_swept: set[str] = set()  # folders in which this process has looked for the temporaries of dead ones


@contextmanager
def temporary_folder(parent: str | Path, name: str) -> Iterator[Path]:
    """Context manager that yields a new folder in `parent`, for what will be called `name`; it is removed afterwards.

    What processes that were killed left in `parent` is removed first.  Raises OSError, which names `parent / name`,
    when the folder cannot be made.
    """
    parent = Path(parent)
    try:
        sweep(parent)
        folder, handle = _make(parent, short_name(name))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(parent / name)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _make(parent: Path, name: str) -> tuple[Path, int]:
    """A new folder whose lock is held -> (folder, descriptor of the lock)."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=ENDING, dir=parent))
        try:
            handle = open_locked(folder / LOCK)
        except FileNotFoundError:  # another process took it for one of a dead process
            continue
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if handle is not None:
            return folder, handle


def sweep(parent: str | Path) -> None:
    """Remove the temporary folders in `parent` whose process is dead; once in the life of a process."""
    key = os.path.abspath(parent)
    if key in _swept:
        return
    _swept.add(key)
    with os.scandir(parent) as entries:
        left = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir()]
    for folder in left:
        with suppress(OSError):  # of another user, or being removed by another process
            handle = open_locked(folder / LOCK, need_lock=True)
            if handle is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)
