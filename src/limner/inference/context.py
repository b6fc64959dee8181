"""Words that are known about a picture beforehand, as part of the request to a vision-language model."""

from collections.abc import Callable
from pathlib import Path

from limner.data.archives import find_archive
from limner.data.image_descriptions import read_description
from limner.data.sidecars import SidecarError, find_sidecar, read_sidecar

MAX_CONTEXT = 1000  # characters


def sidecar_text(file: str) -> str:
    """The words in the sidecar of a file; "" without one.  Raises SidecarError."""
    path = find_sidecar(file)
    return "" if path is None else read_sidecar(path)


def exif_text(file: str) -> str:
    """The description inside an image file; "" without one."""
    return "" if find_archive(file) or not Path(file).is_file() else read_description(file)


SOURCES: dict[str, Callable[[str], str]] = {
    "sidecar": sidecar_text,
    "exif": exif_text,
    "any": lambda file: sidecar_text(file) or exif_text(file),
}


def context_of(file: str, kind: str, notes: list[str]) -> str:
    """What `kind` of SOURCES says about a file, at most 1000 characters; "" when it says nothing.

    A sidecar that cannot be read adds a line to `notes`, and counts as none.
    """
    try:
        text = SOURCES[kind](file)
    except SidecarError as error:
        notes.append(f"{error}; {file} is captioned without it")
        return ""
    if len(text) > MAX_CONTEXT:
        notes.append(f"{file}: the first {MAX_CONTEXT} of the {len(text):,} characters known about it are used")
    return text[:MAX_CONTEXT]
