"""A folder in the place of another one, in one step, so that no moment has neither.

`rename` replaces files, but no folder that holds any.  Linux and macOS can exchange two folders.  Where that is not
possible, the old folder is renamed first, and `recover_folder` brings it back if the process was killed right then.
"""

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # of renameat2 on Linux, and RENAME_SWAP of renamex_np on macOS


def replace_folder(new: Path, out: Path) -> None:
    """Put the folder `new` in the place of `out`; what was at `out`, if anything, is at `new` then.

    Raises OSError, after which `out` is as it was.
    """
    if not out.exists():
        os.rename(new, out)
        return
    if exchange(new, out):
        return
    os.rename(out, _previous(out))
    try:
        os.rename(new, out)
    except BaseException:
        os.rename(_previous(out), out)
        raise
    os.rename(_previous(out), new)


def recover_folder(out: Path) -> None:
    """Bring back the folder that a killed process has renamed; remove it when the new one is in its place."""
    previous = _previous(out)
    if previous.is_dir():
        if out.exists():
            shutil.rmtree(previous, ignore_errors=True)
        else:
            os.rename(previous, out)


def _previous(out: Path) -> Path:
    """Where `out` is for a moment, if folders cannot be exchanged."""
    return out.with_name(f".{out.name}.previous")


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step -> whether the system can do that.  Raises OSError."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        result = library.renamex_np(*paths, RENAME_EXCHANGE)
    elif hasattr(library, "renameat2"):
        result = library.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE)
    else:
        return False
    number = ctypes.get_errno()
    if result and number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV):
        raise OSError(number, os.strerror(number), str(second))
    return result == 0
