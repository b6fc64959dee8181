"""Captions beside their files: `dog.txt`, `dog.caption`, `dog.json` or `dog.xmp` beside `dog.jpg`.

Words that are there already are somebody's work: they are lost only when the user asks for it (`overwrite`).
"""

import errno
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.journal import Row
from limner.apps.shared.wording import Wording
from limner.core.files import check_writable, write_text
from limner.data.archives import find_archive
from limner.data.metadata import MetadataError, xmp
from limner.data.sidecars import TEXT_FIELDS, SidecarError, sidecar_path
from limner.inference.pieces import Problems


@dataclass(frozen=True)
class SidecarWriter:
    """Writes the captions of a file into its sidecar.

    kind     the ending: txt, caption, json or xmp
    wording  what is written, and what happens to words that are there
    """

    kind: str
    wording: Wording

    def select(self, files: Sequence[str], problems: Problems) -> list[str]:
        """The files that get a caption; problems and notes about the others.

        Left out are files that keep their sidecar (`skip`), and those whose folder cannot be written.  Raises
        WrongArguments for media inside archives, and when two files share a sidecar.
        """
        owners: dict[Path, str] = {}
        for file in files:
            if find_archive(file):
                raise WrongArguments(f"--sidecar: {file} lies inside another file; --out writes the captions of these")
            path = sidecar_path(file, self.kind)
            if path == Path(file):
                raise WrongArguments(f"--sidecar {self.kind}: {file} would be its own sidecar")
            if owners.setdefault(path, file) != file:
                raise WrongArguments(
                    f"--sidecar: {owners[path]} and {file} share {path}; caption them in separate calls, or move one"
                )
        unwritable = _unwritable({path.parent for path in owners})
        kept, selected = 0, []
        for path, file in owners.items():
            if self.wording.existing == "skip" and os.path.lexists(path):
                kept += 1
            elif reason := unwritable.get(path.parent):
                problems.failed.append(f"{file}: {path} cannot be written ({reason})")
            else:
                selected.append(file)
        if kept:
            problems.notes.append(
                f"files that have a sidecar and keep it: {kept} (--existing overwrite, append or prepend changes it)"
            )
        return selected

    def write(self, file: str, rows: Sequence[Row], problems: Problems) -> None:
        """Write the captions of a file, one per part of a video; what cannot be written is a problem.

        Doing it twice is the same as doing it once.  Raises OSError when the disk is full.
        """
        text = self.wording.text(file, rows)
        if not text:
            if rows:
                problems.failed.append(f"{file}: its caption is empty, so no sidecar is written")
            return
        path = sidecar_path(file, self.kind)
        try:
            if self.kind == "json":
                content = self._json(path, text, rows)
            else:
                content = self._xmp(path, text) if self.kind == "xmp" else self._text(path, text)
            if content is not None:
                write_text(path, content)
        except (SidecarError, UnicodeEncodeError) as error:
            problems.failed.append(f"{file}: {error}; it stays as it is")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            problems.failed.append(f"{file}: {path} cannot be written ({error.strerror})")

    def _text(self, path: Path, text: str) -> str | None:
        """What a text sidecar will hold; None: it stays as it is."""
        if self.wording.existing == "overwrite" and not path.is_dir():
            return text + "\n"
        before = _before(path)
        if before is None:
            return text + "\n"
        return None if self.wording.existing == "skip" else self.wording.joined(before, text) + "\n"

    def _json(self, path: Path, text: str, rows: Sequence[Row]) -> str | None:
        """What a JSON sidecar will hold: fields of others stay, also with `overwrite`; None: it stays as it is."""
        before, facts = _before(path), _facts(rows)
        if before is None:
            return _dumped({"caption": text} | facts)
        if self.wording.existing == "skip":
            return None
        try:
            value = json.loads(before)
        except (ValueError, RecursionError) as error:
            value = None
            if self.wording.existing != "overwrite":
                raise SidecarError(f"{path} is not JSON ({str(error)[:80]})") from error
        if not isinstance(value, dict):
            if self.wording.existing != "overwrite":
                raise SidecarError(f"{path} is no JSON object, so that nothing can be added to it")
            value = {}
        name = next((name for name in TEXT_FIELDS if isinstance(value.get(name), str)), "caption")
        words = text if self.wording.existing == "overwrite" else self.wording.joined(value.get(name) or "", text)
        return _dumped(value | {name: words} | facts)

    def _xmp(self, path: Path, text: str) -> str | None:
        """What an XMP sidecar will hold: all but the description stays, also with `overwrite`; None: it stays."""
        before = _before(path)
        packet = None if before is None else before.encode()
        try:
            words = xmp.description(packet).strip() if packet else ""
            if words and self.wording.existing == "skip":
                return None
            new = text if self.wording.existing == "overwrite" else self.wording.joined(words, text)
            return xmp.with_description(packet or None, new).decode()
        except MetadataError as error:
            raise SidecarError(f"{path} cannot be changed: {error}") from error


def _before(path: Path) -> str | None:
    """The text that a sidecar holds; None without one.  Raises SidecarError for a folder and for other bytes."""
    if path.is_dir():
        raise SidecarError(f"{path} is a folder")
    if not path.exists():
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SidecarError(f"{path} is not UTF-8 text") from error


def _facts(rows: Sequence[Row]) -> dict[str, Any]:
    """What a JSON sidecar says besides the caption: log-probability and further captions, or the parts of a video."""
    if len(rows) != 1:
        parts = [{name: row[name] for name in ("start", "end", "caption", "logprob")} for row in rows]
        return {"parts": parts}
    return {name: rows[0][name] for name in ("logprob", "others") if rows[0].get(name) is not None}


def _dumped(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _unwritable(folders: Iterable[Path]) -> dict[Path, str]:
    """The folders in which no file can be written, and why."""
    reasons = {}
    for folder in folders:
        try:
            check_writable(folder / "sidecar")
        except OSError as error:
            reasons[folder] = error.strerror or str(error)
    return reasons
