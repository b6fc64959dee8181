"""`inspect_data`: reads a data set as training does, and says what is in it and what is wrong with it."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from limner.core.files import sha256
from limner.core.torch_free import Medium
from limner.data.archives import find_archive, medium_exists
from limner.data.datasets import DataConfig, data_parts, read_dataset
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, is_clip, read_medium
from limner.data.media_folder import media_below

READ_SIDE = 64  # pixels to which the test of a file reads a large image; smaller ones are read in full
_EMPTY_CAPTIONS = re.compile(r"^(.*): (\d+) empty caption\(s\) dropped$", re.DOTALL)  # a line of `drop_empty_captions`
_BREAKS_OFF = ": truncated: "  # in a note about an image; other notes are about values that had to be guessed
WHOLE_SET = ("captions", "folder")  # kinds of data sets whose folder should hold no other media


@dataclass(frozen=True)
class DataReport:
    """What is in a data set.

    media             all of it, as the reader of the data set gives them
    clips             ids of those that are clips
    missing           lines about media whose file is not there: captions without a picture
    unreadable        lines about media whose file cannot be read
    unchecked         how many files were not opened, because there are more than the limit
    empty_captions    id -> how many of its captions have no letter and no digit, and are left out
    without_captions  ids of media without a caption
    unnamed           files in the folder of the media that no caption names
    duplicates        groups of ids whose files have the same bytes
    damaged           lines about files that were read with a note, most because they are damaged
    cut               id -> the note about a file that breaks off, or a clip that is damaged
    other_problems    the reader's lines about what it left out
    notes             the reader's lines about repairs and choices
    unusable          id -> why its file cannot be used: it is missing, or cannot be read
    """

    media: tuple[Medium, ...]
    clips: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unchecked: int = 0
    empty_captions: Mapping[str, int] = field(default_factory=dict)
    without_captions: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    damaged: tuple[str, ...] = ()
    cut: Mapping[str, str] = field(default_factory=dict)
    other_problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> list[Medium]:
        """The media that can be read and have captions."""
        return [medium for medium in self.media if medium.references and medium.id not in self.unusable]


Look = Callable[[Medium, UInt8[np.ndarray, "T H W 3"]], None]  # what is done with the frames of a file


def inspect_data(
    config: DataConfig | Sequence[DataConfig],
    limit: int = 10_000,
    watch: Callable[[Sequence[Medium]], Iterable[Medium]] = iter,
    look: Look | None = None,
    keep_going: bool = False,
) -> DataReport:
    """Read a data set, or several ones as one, and open the files -> what is in it and what is wrong with it.

    At most `limit` files are opened; all are looked for.  `watch` gets the media that will be opened and yields them
    again, for example to show the progress.  `look` is called with every medium that can be read and its frame, so that
    no file is read twice.  `keep_going` is that of `read_dataset`.  Raises what `read_dataset` raises, and ValueError
    when there is no caption at all.
    """
    dataset = read_dataset(config, keep_going)
    if not any(medium.references for medium in dataset.media):
        first = f"; the first of {len(dataset.problems)} problems: {dataset.problems[0]}" if dataset.problems else ""
        where = ", ".join(part.annotations or part.media for part in data_parts(config).values())
        raise ValueError(
            f"{where}: none of {len(dataset.media)} images or clips has a caption; give a "
            f"caption file, or put dog.txt with its captions beside dog.jpg{first}"
        )
    missing = {
        medium.id: f"there is no file {medium.path}" for medium in dataset.media if not medium_exists(medium.path)
    }
    there = [medium for medium in dataset.media if medium.id not in missing]
    opened = there[:: max(1, -(-len(there) // limit))]
    files = _open_files(watch(opened), look)
    empty = [match for line in dataset.problems if (match := _EMPTY_CAPTIONS.search(line))]
    without = tuple(medium.id for medium in dataset.media if not medium.references)
    others = [line for line in dataset.problems if not _EMPTY_CAPTIONS.search(line) and not line.endswith("no caption")]
    clips = frozenset(medium.id for medium in there if is_clip(medium.path))
    return DataReport(
        media=dataset.media,
        clips=clips,
        missing=tuple(f"{id}: {reason}" for id, reason in missing.items()),
        unreadable=tuple(files.unreadable.values()),
        unchecked=len(there) - len(opened),
        empty_captions={match[1]: int(match[2]) for match in empty},
        without_captions=without,
        unnamed=tuple(
            line for part in data_parts(config).values() for line in _files_without_captions(part, dataset.media)
        ),
        duplicates=same_files(there),
        damaged=tuple(dict.fromkeys(line for lines in files.notes.values() for line in lines)),
        cut={id: line for id, lines in files.notes.items() for line in lines[:1] if id in clips or _BREAKS_OFF in line},
        other_problems=tuple(others),
        notes=dataset.notes,
        unusable=missing | files.unreadable,
    )


@dataclass(frozen=True)
class _OpenedFiles:
    """Of opened files, by id: why one cannot be read, and the notes about one that was read."""

    unreadable: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def _open_files(media: Iterable[Medium], look: Look | None) -> _OpenedFiles:
    """Open files, and show each frame that could be read to `look`."""
    opened = _OpenedFiles()
    for medium in media:
        notes: list[str] = []
        try:
            frames = read_medium(medium, FrameSampling(frames=1), notes, READ_SIDE)
        except (MediaError, ValueError, OSError) as error:
            opened.unreadable[medium.id] = str(error)
            continue
        if notes:
            opened.notes[medium.id] = notes
        if look is not None:
            look(medium, frames)
    return opened


def _files_without_captions(config: DataConfig, media: Sequence[Medium]) -> tuple[str, ...]:
    """The media below the folder of the media that are none of the data set's."""
    if config.name not in WHOLE_SET or not config.media or not Path(config.media).is_dir():
        return ()
    known = {os.path.realpath(medium.path) for medium in media}
    below = media_below(config.media).media
    return tuple(str(path) for path in below if os.path.realpath(path) not in known)


def same_files(media: Sequence[Medium]) -> tuple[tuple[str, ...], ...]:
    """The groups of ids of media whose files have the same bytes, in the order of the media.

    Parts of one clip, which share a file, are no duplicates.  Only files of equal size are read.
    """
    by_path: dict[str, str] = {}  # real path -> the first id
    for medium in media:
        if Path(medium.path).is_file() and not find_archive(medium.path):
            by_path.setdefault(os.path.realpath(medium.path), medium.id)
    sizes = {path: os.path.getsize(path) for path in by_path}
    counts = Counter(sizes.values())
    groups: dict[str, list[str]] = {}
    for path, id in by_path.items():
        if counts[sizes[path]] > 1:
            groups.setdefault(sha256(path), []).append(id)
    return tuple(tuple(ids) for ids in groups.values() if len(ids) > 1)
