"""Captions inside their image files: EXIF's ImageDescription (--exif) and XMP's `dc:description` (--xmp)."""

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.journal import Row
from limner.apps.shared.wording import Wording
from limner.core.files import atomic_write, check_writable
from limner.data.archives import find_archive
from limner.data.image_descriptions import CAMERA_TEXT
from limner.data.metadata import MetadataError, Place, description, with_description
from limner.inference.pieces import Problems

NAMES: dict[Place, str] = {"exif": "EXIF", "xmp": "XMP"}


@dataclass(frozen=True)
class DescriptionWriter:
    """Writes the captions of image files into them.

    place    exif or xmp
    wording  what is written, and what happens to words that are there; what cameras write does not count as words
    """

    place: Place
    wording: Wording

    def select(self, files: Sequence[str], problems: Problems) -> list[str]:
        """The files that get a caption; problems and notes about the others.

        Left out are files that keep their description (`skip`), that cannot hold one, and that cannot be written.
        Files that cannot be read stay: reading the picture reports them.  Raises WrongArguments for media in archives.
        """
        kept, selected = 0, list[str]()
        unwritable = cache(_unwritable)  # asked once per folder
        for file in files:
            if find_archive(file):
                raise WrongArguments(f"--{self.place}: {file} lies inside another file, which is not changed")
            try:
                reason, words = self._look(file)
            except OSError:
                selected.append(file)
                continue
            if not reason and words and self.wording.existing == "skip":
                kept += 1
            elif reason := reason or unwritable(Path(os.path.realpath(file)).parent):
                problems.failed.append(f"{file}: {reason}")
            else:
                selected.append(file)
        if kept:
            problems.notes.append(
                f"files that have a description in their {NAMES[self.place]} and keep it: {kept} "
                "(--existing overwrite, append or prepend changes it)"
            )
        return selected

    def write(self, file: str, rows: Sequence[Row], problems: Problems) -> None:
        """Write the captions of a file; what cannot be written is a problem, and the file stays as it is.

        Doing it twice is the same as doing it once.  Raises OSError when the disk is full.
        """
        text = self.wording.text(file, rows)
        if not text:
            if rows:
                problems.failed.append(f"{file}: its caption is empty, so no description is written")
            return
        path = Path(os.path.realpath(file))  # of a link, the file that it names is changed
        try:
            data = path.read_bytes()
            before = self._words(data)
            if before and self.wording.existing == "skip":
                return
            new = text if self.wording.existing == "overwrite" else self.wording.joined(before, text)
            changed = with_description(data, self.place, new)
            if changed != data:
                with atomic_write(path) as temporary:
                    temporary.write_bytes(changed)
                    shutil.copymode(path, temporary)
        except (MetadataError, UnicodeEncodeError) as error:
            problems.failed.append(f"{file}: {self._stays(error)}")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            problems.failed.append(f"{file}: its description cannot be written ({error.strerror})")

    def _look(self, file: str) -> tuple[str, str]:
        """-> (why a file cannot get a description, or ""; the words that it holds)."""
        path = Path(os.path.realpath(file))
        if path.is_dir():
            return f"a folder of frames has no {NAMES[self.place]}; --sidecar writes beside it", ""
        if not path.stat().st_mode & 0o222:
            return "it is read-only, so no description is written into it", ""
        try:
            return "", self._words(path.read_bytes())
        except MetadataError as error:
            return self._stays(error), ""

    def _words(self, data: bytes) -> str:
        words = description(data, self.place).strip()
        return "" if CAMERA_TEXT.match(words) else words

    def _stays(self, error: Exception) -> str:
        return f"no description is written into its {NAMES[self.place]}: {error}; it stays as it is"


def _unwritable(folder: Path) -> str:
    """Why no file can be written in a folder; "" when it can."""
    try:
        check_writable(folder / "image")
    except OSError as error:
        return f"its description cannot be written ({error.strerror})"
    return ""
