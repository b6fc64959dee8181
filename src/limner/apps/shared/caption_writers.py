"""All places that a command writes captions to, besides its output: sidecars, EXIF and XMP."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.description_writer import DescriptionWriter
from limner.apps.shared.journal import Row, printable
from limner.apps.shared.sidecar_writer import SidecarWriter
from limner.apps.shared.wording import Wording
from limner.inference.pieces import Problems


@runtime_checkable
class CaptionWriter(Protocol):
    """Writes captions beside or into their files."""

    def select(self, files: Sequence[str], problems: Problems) -> list[str]:
        """The files that get a caption; problems and notes about the others."""
        ...

    def write(self, file: str, rows: Sequence[Row], problems: Problems) -> None:
        """Write the captions of a file, one per part of a video; what cannot be written is a problem."""
        ...


def caption_writers(options: argparse.Namespace) -> list[CaptionWriter]:
    """What writes --sidecar, --exif and --xmp."""
    wording = wording_of(options)
    sidecars = sidecar_writer(options, wording)
    writers: list[CaptionWriter] = [sidecars] if sidecars else []
    writers += [DescriptionWriter("exif", wording)] if options.exif else []
    writers += [DescriptionWriter("xmp", wording)] if options.xmp else []
    return writers


def wording_of(options: argparse.Namespace, inside: bool = True) -> Wording:
    """What --existing, --prefix, --suffix and --template say; without `inside` a command writes only sidecars.

    Raises WrongArguments when they are about nothing.
    """
    if not (options.sidecar or options.exif or options.xmp):
        given = {"--existing": options.existing, "--prefix": options.prefix, "--suffix": options.suffix}
        if unused := [name for name, value in {**given, "--template": options.template}.items() if value is not None]:
            where, give = (
                ("beside or inside", "--sidecar KIND, --exif or --xmp") if inside else ("beside", "--sidecar KIND")
            )
            raise WrongArguments(f"{unused[0]} is about captions {where} the files: give {give}")
    literal = [(text or "").replace("{", "{{").replace("}", "}}") for text in (options.prefix, options.suffix)]
    template = literal[0] + ("{caption}" if options.template is None else options.template) + literal[1]
    return Wording(options.existing or "skip", template)


def sidecar_writer(options: argparse.Namespace, wording: Wording) -> SidecarWriter | None:
    """What writes --sidecar; None without it."""
    return SidecarWriter(options.sidecar, wording) if options.sidecar else None


class CaptionQueue:
    """Collects the rows of a file, one per part of a video, and writes them when the next file begins.

    Without writers it does nothing.
    """

    def __init__(self, writers: Sequence[CaptionWriter], problems: Problems):
        self.writers, self.problems = writers, problems
        self._chosen: list[set[str]] = []
        self._file, self._rows = "", list[Row]()

    def select(self, files: Sequence[str]) -> list[str]:
        """The files that get a caption from at least one writer; all of them without writers."""
        if not self.writers:
            return list(files)
        self._chosen = [set(writer.select(files, self.problems)) for writer in self.writers]
        return [file for file in files if any(file in chosen for chosen in self._chosen)]

    def add(self, file: str, row: Row) -> None:
        """Add a row; rows of a file follow each other."""
        if file != self._file:
            self.flush()
            self._file = file
        self._rows.append(row)

    def flush(self) -> None:
        """Write the captions of the last file."""
        self._write(self._file, self._rows)
        self._rows = []

    def add_done(self, files: Sequence[str], rows: Iterable[Row]) -> None:
        """Write the captions of files whose rows were made before an interrupt, which may have come before this."""
        if not self.writers:
            return
        paths, of_file = {printable(file): file for file in files}, dict[str, list[Row]]()
        for row in rows:
            of_file.setdefault(row["file"], []).append(row)
        for name in paths.keys() & of_file.keys():
            self._write(paths[name], of_file[name])

    def _write(self, file: str, rows: Sequence[Row]) -> None:
        for writer, chosen in zip(self.writers, self._chosen, strict=True):
            if file in chosen:
                writer.write(file, rows, self.problems)
