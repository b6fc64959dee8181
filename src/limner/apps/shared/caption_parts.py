"""Outputs of `limner caption --part`: the record beside each, NAME.part.json, and the rows of all parts together."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.journal import METADATA, WRITERS, Row, finished_rows, has_rows, printable, unfinished_rows
from limner.core.files import sha256
from limner.data.parts import (
    Part,
    PartRecord,
    hash_of_list,
    make_record,
    part_of,
    read_record,
    require_complete,
    require_same,
    some_of,
    write_record,
)
from limner.inference.pieces import Problems

ENDING = ".part.json"
REMEDY = "give the same files and options as before, start anew with --overwrite, or choose another name"


def record_path(out: Path) -> Path:
    """The file beside an output that says which part it is."""
    return out.with_name(out.name + ENDING)


class CaptionPart:
    """The part of a list of files that a command captions, and the record beside its output.

    The record is written before the first caption, and completed after the output; between, the output counts as
    unfinished.
    """

    def __init__(self, out: Path | None, part: Part, files: Sequence[str], resume: bool):
        """Raises WrongArguments for outputs that cannot be merged, ValueError when `resume` would mix two outputs."""
        if out is None or out.suffix not in WRITERS or out.name == METADATA:
            raise WrongArguments(f"--part {part} needs an output that can be merged: --out FILE{' or '.join(WRITERS)}")
        self.out, self.part, self.total = out, part, len(files)
        self.files = part_of(files, part)
        self.list_hash = hash_of_list([printable(file) for file in files])
        chosen = set(self.files)
        self.items = [(place, printable(file)) for place, file in enumerate(files) if file in chosen]
        self.record: PartRecord | None = None
        self.stored = read_record(record_path(out)) if resume else None
        if resume and self.stored is None and (out.exists() or has_rows(out)):
            raise ValueError(f"{out} has no record of its part, {record_path(out).name}, so it is of another command")
        if (
            self.stored
            and self.stored.finished
            and (not out.is_file() or sha256(out) != self.stored.finished["sha256"])
        ):
            raise ValueError(
                f"{out} is not what was written, as its record says: start this part anew with --overwrite"
            )

    def require(self, made_with: Mapping[str, Any]) -> bool:
        """Compare with the record of the output that is continued -> whether a finished output is.

        Raises ValueError, with every difference, when that is another part, or of another model or decoding.
        """
        self.record = make_record("captions", self.part, self.total, self.list_hash, made_with, self.items)
        if self.stored is not None:
            require_same(self.out, self.stored, self.record, REMEDY)
        return bool(self.stored and self.stored.finished)

    def begin(self) -> None:
        """Record what the output will hold."""
        assert self.record is not None
        write_record(record_path(self.out), self.record)

    def finish(self, csv_safe: bool, problems: Problems) -> None:
        """Record that the output is complete, and what could not be captioned."""
        assert self.record is not None
        finished = {
            "sha256": sha256(self.out),
            "csv_safe": csv_safe,
            "unreadable": problems.unreadable,
            "failed": problems.failed,
        }
        write_record(record_path(self.out), replace(self.record, finished=finished))


def check_undivided(out: Path, resume: bool) -> None:
    """Raise ValueError when `resume` would add all other files to the output of a part."""
    if resume and (stored := read_record(record_path(out))):
        raise ValueError(
            f"{out} is part {stored.part} of {stored.total} files: give --part {stored.part}, or choose another name"
        )


def merged_rows(outputs: Sequence[Path]) -> tuple[list[Row], bool, Problems]:
    """The rows of all parts in the order of one undivided output -> (rows, csv_safe, what has no caption).

    Raises ValueError when a part is missing, double, unfinished, damaged or of another run.
    """
    parts = [(out, _record_of(out)) for out in outputs]
    unfinished = {record.part.index: _unfinished(out, record) for out, record in parts if not record.finished}
    require_complete(parts, unfinished, _neighbours(parts))
    places: dict[str, int] = {}
    rows: list[Row] = []
    problems = Problems()
    safe = {bool(record.finished["csv_safe"]) for _, record in parts}
    if len(safe) > 1:
        raise ValueError("some parts were made with --csv-safe and some with --no-csv-safe: make the latter again")
    (csv_safe,) = safe
    for out, record in parts:
        if not out.is_file() or sha256(out) != record.finished["sha256"]:
            raise ValueError(f"{out} (part {record.part}) is not what was written: make it again with --overwrite")
        places |= {name: place for place, name in record.items}
        own = finished_rows(out, csv_safe)
        names: set[str] = set(record.names)
        if strange := [row["file"] for row in own if row["file"] not in names]:
            raise ValueError(f"{out} holds files that are not of part {record.part}: {some_of(strange)}")
        rows += own
        problems.unreadable += record.finished["unreadable"]
        problems.failed += record.finished["failed"]
    problems.unreadable = list(dict.fromkeys(problems.unreadable))  # every part names an argument that was no file
    return sorted(rows, key=lambda row: places[row["file"]]), csv_safe, problems


def _record_of(out: Path) -> PartRecord:
    if out.name.endswith(ENDING):
        raise ValueError(f"{out} is the record of a part: name the output itself, {out.name.removesuffix(ENDING)}")
    record = read_record(record_path(out))
    if record is None:
        what = f"has no record beside it, {record_path(out).name}" if out.exists() else "is not there"
        raise ValueError(f"{out} {what}: give outputs of `limner caption --part` and keep their records beside them")
    return record


def _unfinished(out: Path, record: PartRecord) -> str:
    """What an unfinished part lacks."""
    done = {row["file"] for row in unfinished_rows(out)}
    missing = [name for name in record.names if name not in done]
    lacks = f"{len(missing)} of {len(record.items)} files have no caption yet: {some_of(missing)}"
    return f"{out} is unfinished, {lacks if missing else 'only its end is missing'}; continue its command with --resume"


def _neighbours(parts: Sequence[tuple[Path, PartRecord]]) -> dict[int, str]:
    """What is known of the parts of the same run in files beside these: index -> words."""
    found: dict[int, str] = {}
    for parent in {out.absolute().parent for out, _ in parts}:
        for path in sorted(parent.glob(f"*{ENDING}")):
            with suppress(ValueError, OSError):
                record, out = read_record(path), path.with_name(path.name.removesuffix(ENDING))
                if record is not None and not parts[0][1].differences(record):
                    found[record.part.index] = f"{out} was not given" if record.finished else _unfinished(out, record)
    return found
