"""Atomic writing of files and folders, JSON reading and writing, and SHA-256 of a file.

A file or folder is first written beside its place and then renamed: readers see the old one or the new one, never a
part.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from limner.core.locks import lock_output
from limner.core.replace_folder import recover_folder, replace_folder
from limner.core.temporaries import temporary_folder


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager that yields the path of an empty temporary file, in a temporary folder beside `path`.

    On success the temporary file replaces `path`; on any error it is removed and `path` stays as it was.  Missing
    parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path.parent, path.name) as folder:
        temporary = folder / "content"
        temporary.touch()
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)


@contextmanager
def atomic_folder(out: str | Path) -> Iterator[Path]:
    """Context manager that yields an empty temporary folder; on success it takes the place of `out` in one step.

    A folder that was at `out` is removed after that.  On any error, and when the process is killed, `out` is as it was.
    Missing parent folders are created.  Raises LockedError when another process is writing `out`.
    """
    out = Path(os.path.realpath(out))  # of a link, the folder that it names is replaced
    with lock_output(out):
        recover_folder(out)
        with temporary_folder(out.parent, out.name) as work:
            new = work / "new"
            new.mkdir()
            yield new
            replace_folder(new, out)


def check_writable(path: str | Path) -> None:
    """Check that a file or folder can be written, before the work that makes its content; nothing is left behind.

    Raises OSError, which names the path, when its folder is read-only, full, no folder, or of somebody else.
    """
    path = Path(os.path.abspath(path))
    existing = next(parent for parent in path.parents if parent.exists())
    try:
        with temporary_folder(existing, path.name):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    """Write a value as JSON, atomically; `indent` None writes one line."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_safetensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write PyTorch tensors as a safetensors file, atomically; equal tensors and metadata give equal bytes.

    Raises OSError, for example when the disk is full (safetensors raises its own error, which has no errno).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # imports PyTorch, so it is not imported at the top of this file

    with atomic_write(path) as temporary:
        mode = temporary.stat().st_mode  # that of the user's umask; safetensors makes files that only their owner reads
        try:
            save_file(dict(tensors), temporary, dict(metadata))
            _sort_metadata(temporary)
            temporary.chmod(mode)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise OSError(f"could not write {path}: {error}") from error
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file by name: safetensors writes them in random order.

    The file begins with the length of its header (8 bytes), and the header is JSON, padded with blanks.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if len(metadata := header.get("__metadata__", {})) < 2:
            return
        header["__metadata__"] = dict(sorted(metadata.items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "safetensors writes its header in this form"
        file.seek(8)
        file.write(text.ljust(length))


def read_json(path: str | Path) -> Any:
    """Read a JSON file.  Raises ValueError, which names the file, when it is not JSON."""
    return parse_json(Path(path).read_bytes(), path)


def parse_json(
    text: str | bytes, where: str | Path, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """The value of a JSON text; bytes are UTF-8, with or without a byte order mark.

    All JSON of others is read here.  Raises ValueError, which begins with `where`, for what is not JSON, is nested too
    deep, or has a number with more digits than Python reads.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=object_pairs_hook)
    except RecursionError as error:
        raise ValueError(f"{where} is JSON that is nested too deep to be read") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, or an integer of more than 4,300 digits
        raise ValueError(f"{where} is not a JSON file ({error})") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
