"""Atomic writing of files, JSON reading and writing, and SHA-256 of a file.

A file is first written beside its place and then renamed: readers see the old file or the new one, never a part.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager that yields a temporary path beside `path`.

    On success the temporary file replaces `path`; on any error it is removed and `path` stays as it was.  Missing
    parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; results get the user's usual permissions
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    """Write a value as JSON, atomically; `indent` None writes one line."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_safetensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write PyTorch tensors as a safetensors file, atomically.

    Raises OSError, for example when the disk is full (safetensors raises its own error, which has no errno).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # imports PyTorch, so it is not imported at the top of this file

    with atomic_write(path) as temporary:
        try:
            save_file(dict(tensors), temporary, dict(metadata))
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise OSError(f"could not write {path}: {error}") from error
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.  Raises ValueError, which names the file, when it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file ({error})") from error
    except RecursionError as error:
        raise ValueError(f"{path} is JSON that is nested too deep to be read") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
