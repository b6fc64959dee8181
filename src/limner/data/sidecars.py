"""Sidecars: files beside an image or video with words about it, `dog.txt` beside `dog.jpg`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from limner.data.archives import find_archive
from limner.data.media_folder import MediaFolder
from limner.data.metadata import MetadataError, xmp

KINDS = ("txt", "caption", "json", "xmp")  # endings, in the order in which they are looked for
TEXT_FIELDS = ("caption", "description", "text", "title", "prompt")  # of a JSON sidecar, the first one that is there


class SidecarError(ValueError):
    """A sidecar that cannot be read; the message names it."""


def sidecar_path(file: str | Path, kind: str) -> Path:
    """The sidecar of a file.

    >>> str(sidecar_path("photos/dog.jpg", "txt"))
    'photos/dog.txt'
    """
    return Path(file).with_suffix(f".{kind}")


def without_sidecars(folder: MediaFolder) -> MediaFolder:
    """A folder whose `others` leave out the sidecars of its media."""
    beside = {path.with_suffix("") for path in folder.media}
    endings = {f".{kind}" for kind in KINDS}
    others = (path for path in folder.others if path.suffix not in endings or path.with_suffix("") not in beside)
    return replace(folder, others=tuple(others))


def find_sidecar(file: str | Path) -> Path | None:
    """The sidecar that a file has: the first of dog.txt, dog.caption, dog.json and dog.xmp; None without one."""
    if find_archive(str(file)):
        return None
    paths = (sidecar_path(file, kind) for kind in KINDS)
    return next((path for path in paths if path.exists() and path != Path(file)), None)


def read_sidecar(path: Path) -> str:
    """The words in a sidecar, in one line.

    Raises SidecarError for a folder, for other bytes than UTF-8, for a JSON file without words, for damaged XMP, and
    for a file that may not be read.
    """
    if path.is_dir():
        raise SidecarError(f"{path} is a folder, where a text file is expected")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SidecarError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise SidecarError(f"{path} cannot be read ({error.strerror})") from error
    if path.suffix == ".json":
        text = text_of_json(path, text)
    elif path.suffix == ".xmp":
        text = _text_of_xmp(path, text)
    return " ".join(text.split())


def _text_of_xmp(path: Path, text: str) -> str:
    """The description in an XMP sidecar; "" without one.  Raises SidecarError."""
    try:
        return xmp.description(text.encode()) if text.strip() else ""
    except MetadataError as error:
        raise SidecarError(f"{path} cannot be read: {error}") from error


def text_of_json(path: Path, text: str) -> str:
    """The words of a JSON sidecar: a string, or one of `TEXT_FIELDS`; the first of a list.  Raises SidecarError."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"{path} is not JSON ({str(error)[:80]})") from error
    if isinstance(value, dict):
        value = next((value[name] for name in TEXT_FIELDS if value.get(name)), None)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        raise SidecarError(f"{path} has no words: expected a text, or one of the fields {', '.join(TEXT_FIELDS)}")
    return value
