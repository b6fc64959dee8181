"""Decorators that compile functions with numba.  Importing this module needs numba.

`inspect.unwrap` removes the check of array shapes that the test run puts around every function.
"""

import inspect
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

WITHOUT_WRAPPERS: dict[str, Any] = {  # takes half the compile time
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def compile_inner(function: Callable[..., Any]) -> Any:
    """The compiled function; only compiled functions may call it."""
    return numba.njit(**WITHOUT_WRAPPERS)(inspect.unwrap(function))


def compile_cached(function: Callable[..., Any]) -> Any:
    """The compiled function, cached on disk if numba finds a folder in which it may write."""
    try:
        return numba.njit(nogil=True, cache=True)(inspect.unwrap(function))
    except RuntimeError:  # numba: no locator available for the file
        return numba.njit(nogil=True)(inspect.unwrap(function))


def source_checksum() -> int:
    """A checksum of the files of this package, for a cached function to close over.

    Numba compiles a cached function again when its own file changes, or a number over which it closes.  It does not
    look at other files; the checksum makes it do so.
    """
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
