"""`inspect_data`: reads a data set as training does, and says what is in it and what is wrong with it."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from limner.core.files import sha256
from limner.core.torch_free import Medium
from limner.data.archives import find_archive, medium_exists
from limner.data.datasets import DataConfig, read_dataset
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, is_clip, read_medium
from limner.data.media_folder import media_below

READ_SIDE = 64  # pixels to which the test of a file reads a large image; smaller ones are read in full
_EMPTY_CAPTIONS = re.compile(r": (\d+) empty caption\(s\) dropped$")  # a line of `drop_empty_captions`
WHOLE_SET = ("captions", "folder")  # kinds of data sets whose folder should hold no other media


@dataclass(frozen=True)
class DataReport:
    """What is in a data set.

    media             all of it, as the reader of the data set gives them
    clips             ids of those that are clips
    missing           lines about media whose file is not there: captions without a picture
    unreadable        lines about media whose file cannot be read
    unchecked         how many files were not opened, because there are more than the limit
    empty_captions    captions without a letter or digit, which are left out
    without_captions  ids of media without a caption
    unnamed           files in the folder of the media that no caption names
    duplicates        groups of ids whose files have the same bytes
    damaged           lines about files that are damaged and were still read
    other_problems    the reader's lines about what it left out
    notes             the reader's lines about repairs and choices
    """

    media: tuple[Medium, ...]
    clips: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unchecked: int = 0
    empty_captions: int = 0
    without_captions: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    damaged: tuple[str, ...] = ()
    other_problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unusable: frozenset[str] = frozenset()  # ids of the missing and the unreadable media

    @property
    def usable(self) -> list[Medium]:
        """The media that can be read and have captions."""
        return [medium for medium in self.media if medium.references and medium.id not in self.unusable]


def inspect_data(
    config: DataConfig, limit: int = 10_000, watch: Callable[[Sequence[Medium]], Iterable[Medium]] = iter
) -> DataReport:
    """Read a data set and open its files -> what is in it and what is wrong with it.

    At most `limit` files are opened; all are looked for.  `watch` gets the media that will be opened and yields them
    again, for example to show the progress.  Raises what `read_dataset` raises, and ValueError when there is no caption
    at all.
    """
    dataset = read_dataset(config)
    if not any(medium.references for medium in dataset.media):
        first = f"; the first of {len(dataset.problems)} problems: {dataset.problems[0]}" if dataset.problems else ""
        raise ValueError(
            f"{config.annotations or config.media}: none of {len(dataset.media)} images or clips has a caption; give a "
            f"caption file, or put dog.txt with its captions beside dog.jpg{first}"
        )
    absent = [medium for medium in dataset.media if not medium_exists(medium.path)]
    missing = {medium.id for medium in absent}
    there = [medium for medium in dataset.media if medium.id not in missing]
    opened = there[:: max(1, -(-len(there) // limit))]
    unreadable, damaged = _open_files(watch(opened))
    empty = [int(match[1]) for line in dataset.problems if (match := _EMPTY_CAPTIONS.search(line))]
    without = tuple(medium.id for medium in dataset.media if not medium.references)
    others = [line for line in dataset.problems if not _EMPTY_CAPTIONS.search(line) and not line.endswith("no caption")]
    return DataReport(
        media=dataset.media,
        clips=frozenset(medium.id for medium in there if is_clip(medium.path)),
        missing=tuple(f"{medium.id}: there is no file {medium.path}" for medium in absent),
        unreadable=tuple(unreadable.values()),
        unchecked=len(there) - len(opened),
        empty_captions=sum(empty),
        without_captions=without,
        unnamed=_files_without_captions(config, dataset.media),
        duplicates=same_files(there),
        damaged=tuple(damaged),
        other_problems=tuple(others),
        notes=dataset.notes,
        unusable=frozenset(missing | unreadable.keys()),
    )


def _open_files(media: Iterable[Medium]) -> tuple[dict[str, str], list[str]]:
    """Open files -> (id of each that cannot be read, with the reason; notes about damage)."""
    unreadable: dict[str, str] = {}
    notes: list[str] = []
    for medium in media:
        try:
            read_medium(medium, FrameSampling(frames=1), notes, READ_SIDE)
        except (MediaError, ValueError, OSError) as error:
            unreadable[medium.id] = str(error)
    return unreadable, list(dict.fromkeys(notes))


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
