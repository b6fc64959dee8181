"""The state file of a watched folder: which files have a caption, so that each gets one once.

The first line says what makes the captions.  Each other line is a file with its captions, or says that the captions of
a file have been handed on.  Lines are appended and reach the disk before anything else happens; a line that a kill has
cut off is left out.  At the start the file is written anew, atomically, with one line per file.
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from limner.core.files import parse_json, write_text
from limner.core.messages import short_repr
from limner.watching.arrivals import Signature


@dataclass(frozen=True)
class Record:
    """What is known about a file.

    file       its path below the folder
    sha256     of its content: a file that was renamed, copied or touched is known by it
    rows       its captions, as in outputs
    problem    why it has none
    delivered  whether the captions were handed on: to the output, the sidecar, and the command
    """

    file: str
    size: int
    mtime: int  # nanoseconds
    sha256: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""
    delivered: bool = False

    @property
    def signature(self) -> Signature:
        """Size and time of change, by which a file is known without reading it."""
        return Signature(self.size, self.mtime)


class WatchState:
    """The records of a state file, which is written with every change.

    Raises ValueError when other options made the captions in it, or when it is no state file.
    """

    def __init__(self, path: Path, made_with: dict[str, Any]):
        self.path = path
        self.records: dict[str, Record] = {}
        self.by_stem: dict[str, set[str]] = {}  # path without suffix -> files that would share a sidecar
        self._by_content: dict[str, Record] = {}
        head, records = _read(path)
        made_with = json.loads(json.dumps(made_with))
        if records and (changed := [name for name in {**head, **made_with} if head.get(name) != made_with.get(name)]):
            raise ValueError(
                f"{path} is of captions with another {' and '.join(changed)}: give the same options as before, or "
                "another --state FILE, with which all files get new captions"
            )
        for record in records:
            self._keep(record)
        write_text(path, "".join(f"{json.dumps(line)}\n" for line in [made_with, *map(asdict, self.records.values())]))

    def known(self, file: str, signature: Signature) -> bool:
        """Whether a file is recorded and has not changed since."""
        record = self.records.get(file)
        return record is not None and record.signature == signature

    def of_content(self, sha256: str) -> Record | None:
        """The record of a file with this content."""
        return self._by_content.get(sha256)

    def add(self, record: Record) -> None:
        """Keep a record; it is on the disk afterwards."""
        self._keep(record)
        self._append(asdict(record))

    def delivered(self, file: str) -> None:
        """Note that the captions of a file were handed on."""
        self._keep(replace(self.records[file], delivered=True))
        self._append({"delivered": file})

    def undelivered(self) -> list[Record]:
        """The records whose captions an interrupt has kept from being handed on."""
        return [record for record in self.records.values() if record.rows and not record.delivered]

    def _keep(self, record: Record) -> None:
        self.records[record.file] = record
        self._by_content[record.sha256] = record
        self.by_stem.setdefault(stem_of(record.file), set()).add(record.file)

    def _append(self, value: dict[str, Any]) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, f"{json.dumps(value)}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)


def stem_of(file: str) -> str:
    """The path without its suffix, which files with one sidecar share.

    >>> stem_of("pets/dog.jpg")
    'pets/dog'
    """
    return str(PurePosixPath(file).with_suffix(""))


def _read(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """-> (what makes the captions, records); empty when there is no file."""
    if not path.exists():
        return {}, []
    lines = path.read_bytes().split(b"\n")[:-1]  # the rest behind the last line is empty, or was cut off by a kill
    head = parse_json(lines[0], f"{path}, line 1") if lines else {}
    records: dict[str, Record] = {}
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        value = parse_json(line, where)
        try:
            if file := value.get("delivered") if "file" not in value else "":
                records[file] = replace(records[file], delivered=True)
            else:
                records[value["file"]] = Record(**value)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where}: expected a file with its captions, got {short_repr(value)}; delete the file to caption "
                "everything again"
            ) from error
    if not isinstance(head, dict):
        raise ValueError(f"{path} is no state file of limner watch: give another --state FILE")
    return head, list(records.values())
