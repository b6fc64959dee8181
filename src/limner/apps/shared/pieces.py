"""What gets a caption of its own: a picture, a clip, or a piece of a long clip."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from limner.core.torch_free import Source
from limner.data.clips import ClipIndex, index_clip, read_segments
from limner.data.frames import FrameSampling
from limner.data.media import MediaError, is_clip
from limner.data.shots import Segment, detect_shots, fixed_windows

LONG = 60.0  # seconds; longer clips are cut into shots unless something else is asked for
SIDE = 640  # pixels; several pieces wait for their captions at a time, and no encoder looks closer


@dataclass(frozen=True)
class Cut:
    """How clips are cut: into windows of `every` seconds, into shots, or not at all; else shots of long clips."""

    every: float | None = None
    shots: bool = False
    whole: bool = False

    def __call__(self, clip: ClipIndex) -> list[Segment]:
        if self.every is not None:
            return fixed_windows(clip.duration, self.every)
        if self.shots or (clip.duration > LONG and not self.whole):
            return detect_shots(clip)
        return [(0.0, clip.duration)]


class Piece(NamedTuple):
    """A part of a file, in seconds; pictures have no time.  `alone`: it is all of its file."""

    file: str
    start: float | None = None
    end: float | None = None
    alone: bool = True


def pieces(
    files: Iterable[str], cut: Cut, sampling: FrameSampling, problems: list[str]
) -> Iterator[tuple[Piece, Source]]:
    """Every piece with what a pipeline can caption; a clip that is cut is decoded once, one piece in memory at a time.

    Files that cannot be read, and those that are damaged, add a line to `problems`.
    """
    for file in files:
        if not is_clip(file):
            yield Piece(file), file
            continue
        try:
            clip = index_clip(file)
            parts = cut(clip)
            if len(parts) == 1:
                yield Piece(file, 0.0, clip.duration), file
                continue
            arrays = read_segments(clip, parts, sampling, None, SIDE, problems)
            for (start, end), array in zip(parts, arrays, strict=True):
                yield Piece(file, start, end, alone=False), array
        except MediaError as error:
            problems.append(str(error))
