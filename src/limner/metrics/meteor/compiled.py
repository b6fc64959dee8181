"""Decorators: functions compiled by numba, which whoever imports this needs.

`unwrap` takes off the shape checker that the test run puts around every function.
"""

import inspect
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

WITHOUT_WRAPPERS: dict[str, Any] = {
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}  # half the time


def inner(function: Callable[..., Any]) -> Any:
    """Compiled, to be called by compiled functions only."""
    return numba.njit(**WITHOUT_WRAPPERS)(inspect.unwrap(function))


def kept(function: Callable[..., Any]) -> Any:
    """Compiled, and kept on disk where numba finds a folder that it may write."""
    try:
        return numba.njit(nogil=True, cache=True)(inspect.unwrap(function))
    except RuntimeError:  # numba: no locator available for the file
        return numba.njit(nogil=True)(inspect.unwrap(function))


def sources() -> int:
    """A checksum of this package's files, for a kept function to close over.

    Numba compiles again when the function's own file or a number that it closes over changes; other files it ignores.
    """
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
