"""The parts of files that get a caption each: an image, a video, or a part of a long video."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from limner.core.torch_free import Source
from limner.data.archives import local_file
from limner.data.clips import ClipIndex, index_clip, read_segments
from limner.data.frame_folders import is_frame_folder
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, is_clip
from limner.data.shots import Segment, detect_shots, fixed_windows

LONG = 60.0  # seconds; longer videos are cut into shots unless the user asks for something else
SIDE = 640  # pixels of the longer side; several pieces wait for their captions, and no encoder needs more


@dataclass
class Problems:
    """What went wrong with the files of a command, a line each."""

    unreadable: list[str] = field(default_factory=list)  # skipped
    failed: list[str] = field(default_factory=list)  # read, but the model or the server gave no caption
    notes: list[str] = field(default_factory=list)  # captioned, although the file is damaged


@dataclass(frozen=True)
class Cut:
    """How videos are cut: into windows of `every` seconds, into shots, or not at all (`whole`).

    Without any of them only videos that are longer than `LONG` are cut, into shots.
    """

    every: float | None = None
    shots: bool = False
    whole: bool = False

    def __call__(self, clip: ClipIndex) -> list[Segment]:
        """The parts of a video, (start, end) in seconds since the beginning of the file."""
        if self.every is not None:
            return fixed_windows(clip.duration, self.every, clip.span[0])
        if self.shots or (clip.duration > LONG and not self.whole):
            return detect_shots(clip)
        return [clip.span]


class Piece(NamedTuple):
    """A file, or a part of a video with its start and end in seconds; images have no times."""

    file: str
    start: float | None = None
    end: float | None = None
    whole_file: bool = True


def pieces(
    files: Iterable[str], cut: Cut, sampling: FrameSampling, problems: Problems
) -> Iterator[tuple[Piece, Source]]:
    """Every piece of the files, with its pixels or path for a pipeline.

    A video that is cut is decoded once, and one piece of it is in memory at a time.  Files that cannot be read, and
    damaged ones, add a line to `problems`.
    """
    for file in files:
        if not is_clip(file) or is_frame_folder(file):  # frames have no times to cut at
            yield Piece(file), file
            continue
        try:
            with local_file(file) as path:
                clip = index_clip(path)
                parts = cut(clip)
                if len(parts) == 1:
                    yield Piece(file, *clip.span), file
                    continue
                found: list[str] = []
                arrays = read_segments(clip, parts, sampling, None, SIDE, found)
                try:
                    for (start, end), array in zip(parts, arrays, strict=True):
                        yield Piece(file, start, end, whole_file=False), array
                finally:
                    problems.notes += [note.replace(path, file) for note in found]
        except MediaError as error:
            problems.unreadable.append(str(error))
