"""The work of `limner watch FOLDER`: every file that arrives gets a caption once, also after kills and renames."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from limner.apps.shared.captioning import captioned, printed_line, row_of
from limner.apps.shared.confidence import shown_text
from limner.apps.shared.journal import Row, printable, to_jsonl
from limner.apps.shared.sidecar_writer import SidecarWriter
from limner.core.files import sha256, write_text
from limner.core.torch_free import Failure
from limner.data.sidecars import sidecar_path
from limner.decode.options import Decoding
from limner.inference.load import CaptionPipeline
from limner.inference.pieces import Cut, Piece, Problems
from limner.watching.arrivals import Arrival, Arrivals, signature_of
from limner.watching.hook import Hook
from limner.watching.state import Record, WatchState, stem_of

SHARE = 4  # a listing that takes a second is followed by a pause of at least four


@dataclass
class Captioning:
    """How files are captioned: the model, its search, and what is made of a caption."""

    captioner: CaptionPipeline
    decoding: Decoding
    cut: Cut
    batch_size: int
    style: Callable[[str], str]
    minimum: float | None = None
    context: Callable[[str], str] | None = None
    context_notes: list[str] = field(default_factory=list)  # about words beside files that cannot be read


@dataclass
class Outcome:
    """What became of a file that was read: captions, or a reason why there are none."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # damage that was skipped
    unreadable: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # read, but the model or the server gave no caption


@dataclass
class FolderWatch:
    """Captions what arrives in a folder and hands the captions on: to an output file, sidecars and a command."""

    arrivals: Arrivals
    state: WatchState
    captioning: Captioning
    out: Path | None = None
    sidecars: SidecarWriter | None = None
    hook: Hook | None = None
    captions: int = 0
    kept: int = 0  # files that keep a sidecar of somebody
    problems: int = 0
    _told: set[str] = field(default_factory=set)

    def run(self, interval: float, once: bool, stop: Event) -> None:
        """Look every `interval` seconds until `stop` is set; `once`: until all files that are there are done.

        Captions that an interrupt has kept from being handed on come first.
        """
        for record in self.state.undelivered():
            if os.path.exists(self._path(record.file)):
                self._deliver(record, again=True)
        while not stop.is_set():
            begin = time.monotonic()
            ready = self.arrivals.look()
            seconds = time.monotonic() - begin
            for problem in self.arrivals.problems:
                self._tell(problem, once=True)
            for at in range(0, len(ready), self.captioning.batch_size):
                if stop.is_set():
                    return
                self._process(ready[at : at + self.captioning.batch_size])
            if once and not self.arrivals.is_waiting:
                return
            stop.wait(max(interval, SHARE * seconds))

    def _process(self, ready: Sequence[Arrival]) -> None:
        """Caption some files together."""
        new: dict[str, tuple[Arrival, str]] = {}  # path -> the file, and the hash of its content
        for arrival in ready:
            name = self._name(arrival.path)
            if self.state.known(name, arrival.signature):
                self.arrivals.done(arrival.path, arrival.signature)
                continue
            try:
                digest = sha256(arrival.path)
            except OSError as error:
                if signature_of(arrival.path) is not None:  # else it was renamed or removed just now
                    self._unreadable(arrival, "", f"{arrival.path} cannot be read ({error.strerror})")
                continue
            if (record := self.state.of_content(digest)) is not None:
                self._known_content(arrival, record)
            elif digest not in [digest for _, digest in new.values()] and self._gets_caption(arrival):
                new[arrival.path] = (
                    arrival,
                    digest,
                )  # a second one with this content waits for the captions of the first
        for path, outcome in self._captions([*new]).items():
            self._finish(*new[path], outcome)
        for note in self.captioning.context_notes:
            print(f"note: {note}", file=sys.stderr)
        self.captioning.context_notes.clear()

    def _gets_caption(self, arrival: Arrival) -> bool:
        """Whether a file gets a caption, as far as its sidecar decides about it."""
        if self.sidecars is None:
            return True
        found = Problems()
        if self.sidecars.select([arrival.path], found):
            return True
        for line in found.failed:
            self._tell(line)
        self.kept += not found.failed
        self.arrivals.done(arrival.path, arrival.signature)
        return False

    def _captions(self, files: Sequence[str]) -> dict[str, Outcome]:
        """Read and caption files."""
        outcomes, problems, how = {file: Outcome() for file in files}, Problems(), self.captioning

        def one_by_one() -> Iterator[str]:
            for file in files:
                before = len(problems.unreadable), len(problems.notes)
                yield file  # whoever takes the next one has found all pieces of this one
                outcomes[file].unreadable += problems.unreadable[before[0] :]
                outcomes[file].notes += problems.notes[before[1] :]

        for piece, result in captioned(
            one_by_one(), how.captioner, how.decoding, how.cut, how.batch_size, problems, how.style, how.context
        ):
            outcome = outcomes[piece.file]
            if isinstance(result, Failure):
                (outcome.unreadable if result.unreadable else outcome.failed).append(result.reason)
            else:
                outcome.rows.append(row_of(piece, result, how.minimum))
                outcome.notes += result.notes
        return outcomes

    def _finish(self, arrival: Arrival, digest: str, outcome: Outcome) -> None:
        """Keep and hand on the captions of a file, unless it has changed meanwhile or may not be whole yet."""
        if signature_of(arrival.path) != arrival.signature:
            return
        if outcome.unreadable:
            self._unreadable(arrival, digest, outcome.unreadable[0])
        elif outcome.failed:
            self._tell(f"{outcome.failed[0]}; it is tried again at the next start")
            self.arrivals.done(arrival.path, arrival.signature)
        elif outcome.notes and not arrival.last:
            self.arrivals.postpone(arrival.path)
        else:
            for note in outcome.notes:
                print(f"note: {note}", file=sys.stderr)
            record = Record(self._name(arrival.path), *arrival.signature, digest, outcome.rows)
            self.state.add(record)
            self.arrivals.done(arrival.path, arrival.signature)
            self._deliver(record)

    def _unreadable(self, arrival: Arrival, digest: str, reason: str) -> None:
        """Report a file that cannot be read, once; as long as it may still be on its way, only wait."""
        if not arrival.last:
            self.arrivals.postpone(arrival.path)
            return
        self._tell(reason)
        if digest:  # without it the reason may be one that passes, for example a missing permission
            self.state.add(Record(self._name(arrival.path), *arrival.signature, digest, problem=reason))
        self.arrivals.done(arrival.path, arrival.signature)

    def _known_content(self, arrival: Arrival, record: Record) -> None:
        """Keep the captions of a file that was renamed or touched; hand on those of a copy under its own name."""
        name = self._name(arrival.path)
        is_copy = record.file != name and os.path.lexists(self._path(record.file))
        if is_copy and record.rows and not self._gets_caption(arrival):
            return
        rows = with_file(record.rows, arrival.path)
        own = Record(name, *arrival.signature, record.sha256, rows, record.problem, delivered=not is_copy)
        self.state.add(own)
        self.arrivals.done(arrival.path, arrival.signature)
        if is_copy and rows:
            self._deliver(own)
        elif rows:
            if record.file != name:
                print(f"{printable(arrival.path)}: was {printable(self._path(record.file))}", flush=True)
            if self.sidecars and not os.path.lexists(sidecar_path(arrival.path, self.sidecars.kind)):
                self._write_sidecar(arrival.path, rows)

    def _deliver(self, record: Record, again: bool = False) -> None:
        """Hand on the captions of a file.  `again`: it may have happened before a kill."""
        path = self._path(record.file)
        if self.out:
            append_rows(self.out, record.rows, missing_only=again)
        self._write_sidecar(path, record.rows)
        for row in record.rows:
            piece = Piece(path, row.get("start"), row.get("end"), whole_file=len(record.rows) == 1)
            print(printed_line(piece, shown_text(row), files=2), flush=True)
        if self.hook and any(row["caption"] for row in record.rows) and (wrong := self.hook.run(path, record.rows)):
            self._tell(f"{path}: {wrong}")
        self.state.delivered(record.file)
        self.captions += len(record.rows)

    def _write_sidecar(self, path: str, rows: Sequence[Row]) -> None:
        if self.sidecars is None:
            return
        sidecar = sidecar_path(path, self.sidecars.kind)
        others = self.state.by_stem.get(stem_of(self._name(path)), set()) - {self._name(path)}
        owner = next((name for name in others if self._has_captions(name)), None)
        if owner is not None:
            self._tell(
                f"{path}: {sidecar} is the sidecar of {self._path(owner)} and stays as it is; rename one of them"
            )
            return
        found = Problems()
        self.sidecars.write(path, rows, found)
        for line in found.failed:
            self._tell(line)

    def _has_captions(self, name: str) -> bool:
        return bool(self.state.records[name].rows) and os.path.lexists(self._path(name))

    def _name(self, path: str) -> str:
        """The path below the folder, which stays the same wherever the folder is mounted."""
        return Path(os.path.relpath(path, self.arrivals.root)).as_posix()

    def _path(self, name: str) -> str:
        return str(Path(self.arrivals.root, name))

    def _tell(self, problem: str, once: bool = False) -> None:
        """Print a problem; `once`: unless it was printed already."""
        if once and problem in self._told:
            return
        self._told.add(problem)
        self.problems += 1
        print(f"! {problem}", file=sys.stderr, flush=True)


def append_rows(out: Path, rows: Sequence[dict[str, Any]], missing_only: bool = False) -> None:
    """Append rows to a JSONL file, in one piece; `missing_only`: those that it has not yet."""
    lines = [to_jsonl([row]) for row in rows]
    if missing_only and out.exists():
        there = set(out.read_bytes().splitlines(keepends=True))
        lines = [line for line in lines if line.encode() not in there]
    with open(out, "ab", buffering=0) as file:
        file.write("".join(lines).encode())


def drop_cut_line(out: Path) -> None:
    """Remove a last line that a kill has cut off."""
    if out.exists() and (text := out.read_bytes()) and not text.endswith(b"\n"):
        write_text(out, text[: text.rfind(b"\n") + 1].decode())


def with_file(rows: Sequence[Row], file: str) -> list[Row]:
    """Rows under the name of another file."""
    return [{**row, "file": printable(file)} for row in rows]
