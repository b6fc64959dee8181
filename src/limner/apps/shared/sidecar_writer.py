"""Captions beside their files: `dog.txt`, `dog.caption` or `dog.json` beside `dog.jpg`, where tools for training look.

Words that are there already are somebody's work: they are lost only when the user asks for it (`overwrite`).
"""

import argparse
import errno
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.journal import Row, printable
from limner.core.files import check_writable, write_text
from limner.data.archives import find_archive
from limner.data.sidecars import TEXT_FIELDS, SidecarError, sidecar_path
from limner.inference.pieces import Problems

FIELDS = ("caption", "name", "folder")  # of a template


@dataclass(frozen=True)
class SidecarWriter:
    """Writes the captions of a file into its sidecar.

    kind      the ending: txt, caption or json
    existing  what happens to words that are there: skip (the file gets no caption), overwrite, append or prepend
    template  the text that is written, with {caption}, {name} (dog) and {folder} (photos)

    Raises WrongArguments for a template without {caption} or with other fields.
    """

    kind: str
    existing: str = "skip"
    template: str = "{caption}"

    def __post_init__(self) -> None:
        try:
            parts = [part for part in Formatter().parse(self.template) if part[1] is not None]
        except ValueError as error:
            raise WrongArguments(f"--template {self.template!r}: {error}; write {{{{ for a brace") from error
        if wrong := [name for _, name, form, conversion in parts if name not in FIELDS or form or conversion]:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise WrongArguments(f"--template has {{{wrong[0]}}}; it may have {known}, and {{{{ for a brace")
        if "caption" not in [name for _, name, _, _ in parts]:
            raise WrongArguments(f"--template {self.template!r} has no {{caption}}, so all files would get the same")

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
            if self.existing == "skip" and os.path.lexists(path):
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
        texts = [row["caption"] for row in rows if row["caption"]]
        if not texts:
            if rows:
                problems.failed.append(f"{file}: its caption is empty, so no sidecar is written")
            return
        path = sidecar_path(file, self.kind)
        name, folder = Path(file).stem, Path(os.path.abspath(file)).parent.name
        text = self.template.format(caption=" ".join(texts), name=name, folder=folder)
        try:
            content = self._json(path, text, rows) if self.kind == "json" else self._text(path, text)
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
        if self.existing == "overwrite" and not path.is_dir():
            return text + "\n"
        before = _before(path)
        if before is None:
            return text + "\n"
        return None if self.existing == "skip" else self._joined(before, text) + "\n"

    def _json(self, path: Path, text: str, rows: Sequence[Row]) -> str | None:
        """What a JSON sidecar will hold: fields of others stay, also with `overwrite`; None: it stays as it is."""
        before, facts = _before(path), _facts(rows)
        if before is None:
            return _dumped({"caption": text} | facts)
        if self.existing == "skip":
            return None
        try:
            value = json.loads(before)
        except (ValueError, RecursionError) as error:
            value = None
            if self.existing != "overwrite":
                raise SidecarError(f"{path} is not JSON ({str(error)[:80]})") from error
        if not isinstance(value, dict):
            if self.existing != "overwrite":
                raise SidecarError(f"{path} is no JSON object, so that nothing can be added to it")
            value = {}
        name = next((name for name in TEXT_FIELDS if isinstance(value.get(name), str)), "caption")
        words = text if self.existing == "overwrite" else self._joined(value.get(name) or "", text)
        return _dumped(value | {name: words} | facts)

    def _joined(self, before: str, text: str) -> str:
        """Words that were there and new ones; unchanged when the new ones are there already."""
        before = before.strip()
        first, second = (before, text) if self.existing == "append" else (text, before)
        if not before or before == text:
            return text
        joint = " " if first[-1] in ".!?,;:" else ", "
        there = before.endswith(("\n" + text, ", " + text, " " + text))
        if self.existing == "prepend":
            there = before.startswith((text + "\n", text + ", ", text + " "))
        return before if there else first + joint + second


def sidecar_writer(options: argparse.Namespace) -> SidecarWriter | None:
    """What writes --sidecar; None without it."""
    given = {"--existing": options.existing, "--prefix": options.prefix, "--suffix": options.suffix}
    if options.sidecar is None:
        if unused := [name for name, value in {**given, "--template": options.template}.items() if value is not None]:
            raise WrongArguments(f"{unused[0]} is about captions beside the files: give --sidecar txt, caption or json")
        return None
    literal = [(text or "").replace("{", "{{").replace("}", "}}") for text in (options.prefix, options.suffix)]
    template = literal[0] + ("{caption}" if options.template is None else options.template) + literal[1]
    return SidecarWriter(options.sidecar, options.existing or "skip", template)


class SidecarQueue:
    """Collects the rows of a file, one per part of a video, and writes its sidecar when the next file begins."""

    def __init__(self, writer: SidecarWriter, problems: Problems):
        self.writer, self.problems = writer, problems
        self._file, self._rows = "", list[Row]()

    def add(self, file: str, row: Row) -> None:
        """Add a row; rows of a file follow each other."""
        if file != self._file:
            self.flush()
            self._file = file
        self._rows.append(row)

    def flush(self) -> None:
        """Write the sidecar of the last file."""
        self.writer.write(self._file, self._rows, self.problems)
        self._rows = []

    def add_done(self, files: Sequence[str], rows: Iterable[Row]) -> None:
        """Write the sidecars of files whose rows were made before an interrupt, which may have come before this."""
        paths, of_file = {printable(file): file for file in files}, dict[str, list[Row]]()
        for row in rows:
            of_file.setdefault(row["file"], []).append(row)
        for name in paths.keys() & of_file.keys():
            self.writer.write(paths[name], of_file[name], self.problems)


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
