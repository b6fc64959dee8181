"""Frames of a clip, streamed: decoded once and in order; only those asked for become pictures.

A first pass reads the packets without decoding them, to know when every frame is shown: headers lie about cut and
damaged clips.  The second pass decodes.  In MP4 and Matroska it leaves out whole groups of pictures in which nothing is
wanted, and within a group frames to which no other refers; what is decoded is the same to the bit.  Seeking to every
wanted frame would decode the beginning of a long group once per frame (benchmarks/video_sampling.py).  Memory does not
depend on a clip's length, but for 12 bytes per frame of the index.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from math import ceil, floor
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.data.frames import FrameSampling, sample_indices, sample_positions
from limner.data.pictures import MAX_SIDE, MediaError

# Containers whose key frames are marked by the writer and whose time stamps are those of the decoded frames.
EXACT = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Here "not a reference" is a property of a frame in the whole stream; in HEVC it is so in its own layer only.
DISPOSABLE = ("h264", "mpeg4", "mpeg2video", "mpeg1video")


@dataclass(frozen=True)
class ClipIndex:
    """When the frames of a clip are shown.  Stamps count units of `base` seconds."""

    path: str
    base: Fraction
    stamps: array  # of every frame, ascending
    end: int  # stamp at which the last frame ends
    stamped: bool = True  # False: the file has no time stamps (old AVI); a stamp is a frame's number
    groups: array | None = None  # group of pictures of every frame; None: they cannot be told apart safely
    note: str = ""  # what is missing, when the file is cut short

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return float((self.end - self.stamps[0]) * self.base)

    def on_screen(self, stamp: Fraction | int) -> int:
        """The stamp of the frame that is shown at `stamp`; the first one before the beginning."""
        return self.stamps[max(0, bisect_right(self.stamps, floor(stamp)) - 1)]

    def time(self, stamp: int) -> float:
        """Seconds since the beginning of the clip."""
        return float((stamp - self.stamps[0]) * self.base)

    def cut(self, start: float | None, end: float | None) -> tuple[Fraction, Fraction]:
        """[start, end] seconds from the beginning, as stamps.  Raises MediaError when nothing lies between them."""
        first = Fraction(self.stamps[0])
        begin = first if start is None else first + Fraction(start).limit_denominator(1000) / self.base
        finish = Fraction(self.end)
        if end is not None:
            finish = min(finish, first + Fraction(end).limit_denominator(1000) / self.base)
        if begin >= finish:
            raise MediaError(
                f"{self.path}: the cut from {start} to {end} s lies outside the clip of {self.seconds:.2f} s"
            )
        return begin, finish


def read_clip(
    path: str | PathLike[str],
    sampling: FrameSampling = FrameSampling(),
    start: float | None = None,
    end: float | None = None,
    seed: int | None = None,
    max_side: int = MAX_SIDE,
    notes: list[str] | None = None,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Upright RGB [0, 255] frames of [start, end] seconds (None: the clip's own ends), chosen by `sampling`.

    Uniform shows what is on screen in the middles of `frames` equal parts, whatever the frame rate does; `draw` is the
    seed of policy random.  Pictures longer than `max_side` pixels are scaled down to it, one at a time.  Damage that
    could be passed over is added to `notes`.  Raises MediaError.
    """
    known = index(path)
    return next(read_parts(known, [(start, end)], sampling, seed, max_side, notes))


def read_parts(
    known: ClipIndex,
    parts: Sequence[tuple[float | None, float | None]],
    sampling: FrameSampling = FrameSampling(),
    seed: int | None = None,
    max_side: int = MAX_SIDE,
    notes: list[str] | None = None,
) -> Iterator[UInt8[np.ndarray, "T H W 3"]]:
    """`read_clip` for each of several parts, which follow one another, in one pass over the clip."""
    if notes is not None and known.note:
        notes.append(f"{known.path}: {known.note}")
    wanted = [choose(known, sampling, start, end, seed) for start, end in parts]
    pictures = frames_at(known, [stamp for part in wanted for stamp in part], max_side, notes)
    for part in wanted:
        yield _stack(list(islice(pictures, len(part))))


def choose(
    known: ClipIndex,
    sampling: FrameSampling = FrameSampling(),
    start: float | None = None,
    end: float | None = None,
    seed: int | None = None,
) -> list[int]:
    """The stamps of the frames that a policy shows, ascending."""
    begin, finish = known.cut(start, end)
    if sampling.policy in ("uniform", "random"):
        places = sample_positions(sampling.frames, seed if sampling.policy == "random" else None)
        return [known.on_screen(begin + (finish - begin) * place) for place in places]
    inside = known.stamps[slice(*(bisect_left(known.stamps, ceil(side)) for side in (begin, finish)))] or [
        known.on_screen(begin)
    ]
    chosen = [inside[number] for number in sample_indices(len(inside), sampling)]
    return chosen if sampling.policy == "every" else chosen + [chosen[-1]] * (sampling.frames - len(chosen))


def index(path: str | PathLike[str]) -> ClipIndex:
    """Read the packets of a clip.  Raises MediaError when there is no video in it."""
    import av  # 0.1 s that pictures need not pay

    stamps, groups, keys = array("q"), array("i"), array("q")
    lowest = end = None
    stamped = True
    notes: list[str] = []
    with _clear_errors(path), av.open(str(path)) as container:
        stream = _video(container, path)
        pace = 1 / Fraction(stream.average_rate or 25)
        base = Fraction(stream.time_base)
        for packet in _packets(container, stream, notes):
            stamped &= packet.pts is not None
            stamp = packet.pts if packet.pts is not None else packet.dts or 0
            lowest = stamp if lowest is None else min(lowest, stamp)
            length = packet.duration or max(1, round(pace / base))
            end = stamp + length if end is None else max(end, stamp + length)
            if packet.is_keyframe:
                keys.append(stamp)
            if not packet.is_discard:  # an edit list hides it
                stamps.append(stamp)
                groups.append(len(keys) - 1)
        known_length = _told_length(container, stream)
        exact = container.format.name in EXACT
    if not stamps or lowest is None or end is None:
        raise MediaError(f"{path}: the clip holds no frame; replace or remove it")
    whole = (end - lowest) * base
    if known_length is not None and whole < min(known_length - 1, known_length * Fraction(9, 10)):
        notes.append(f"cut short: {float(whole):.1f} of {float(known_length):.1f} s can be read")
    note = "; ".join(notes)
    if not stamped:
        return ClipIndex(str(path), pace, array("q", range(len(stamps))), len(stamps), False, None, note)
    ordered = np.asarray(stamps).argsort(kind="stable")
    told_apart = exact and _closed(np.asarray(stamps), np.asarray(groups), np.asarray(keys))
    return ClipIndex(
        str(path),
        base,
        array("q", np.asarray(stamps)[ordered].tobytes()),
        end,
        True,
        array("i", np.asarray(groups)[ordered].tobytes()) if told_apart else None,
        note,
    )


def _told_length(container: Any, stream: Any) -> Fraction | None:
    """Seconds of the video stream by the header.  Matroska has them in a tag; else it knows the longest stream only."""
    if stream.duration:  # which FFmpeg guesses from what is left of an AVI file; the number of frames stays
        counted = stream.frames / Fraction(stream.average_rate) if stream.average_rate else 0
        return max(Fraction(stream.duration * stream.time_base), Fraction(counted))
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+)(?:\.\d*)?", stream.metadata.get("DURATION", "")):
        return Fraction(int(tag[1]) * 3600 + int(tag[2]) * 60 + int(tag[3]))
    alone = len(container.streams) == 1 and container.duration
    return Fraction(container.duration, 1_000_000) if alone else None


def _closed(stamps: np.ndarray, groups: np.ndarray, keys: np.ndarray) -> bool:
    """Are all frames different in time, and shown between their own key frame and the next one?  Then a decoder that
    begins at a key frame gives exactly the frames of its group."""
    if groups[0] < 0 or len(np.unique(stamps)) < len(stamps):
        return False
    following = np.append(keys[1:], np.iinfo(np.int64).max)
    return bool((stamps >= keys[groups]).all() and (stamps < following[groups]).all())


def frames_at(
    known: ClipIndex, wanted: Sequence[int], max_side: int = MAX_SIDE, notes: list[str] | None = None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The upright picture that is on screen at each of `wanted` stamps (ascending), as they come out of the decoder.

    Frames that cannot be decoded are passed over: their moment shows the frame before.
    """
    queue = deque(wanted)
    shown: Any = None
    with _clear_errors(known.path):
        for stamp, frame in decoded(known, wanted, notes):
            if shown is not None and queue and stamp > queue[0]:
                picture = upright(shown, max_side)
                while queue and stamp > queue[0]:
                    queue.popleft()
                    yield picture
            if not queue:
                return
            shown = frame
        if shown is None:
            raise MediaError(f"{known.path}: the clip holds no frame that can be decoded; replace or remove it")
        picture = upright(shown, max_side)
        for _ in queue:
            yield picture


def decoded(
    known: ClipIndex, wanted: Sequence[int] | None = None, notes: list[str] | None = None
) -> Iterator[tuple[int, Any]]:
    """(stamp, PyAV frame) in the order of showing: all frames, or only some, with all of `wanted` among them."""
    import av

    problems: list[str] = []
    with av.open(known.path) as container:
        stream = _video(container, known.path)
        # frame threads cost MPEG-4 Part 2 more than they bring
        stream.thread_type = "SLICE" if stream.codec_context.name == "mpeg4" else "AUTO"
        try:
            if wanted is None or known.groups is None:
                yield from _all(known, container, stream, problems)
            else:
                yield from _needed(known, container, stream, set(wanted), problems)
        finally:
            if problems and notes is not None:
                notes.append(f"{known.path}: {len(problems)} damaged places passed over ({problems[0]})")


def _all(known: ClipIndex, container: Any, stream: Any, problems: list[str]) -> Iterator[tuple[int, Any]]:
    number = 0
    for packet in chain(_packets(container, stream, []), [None]):  # None: give out the rest
        for frame in _decode(stream.codec_context, packet, problems):
            stamp = frame.pts if known.stamped else number
            yield known.stamps[min(number, len(known.stamps) - 1)] if stamp is None else stamp, frame
            number += 1


def _needed(
    known: ClipIndex, container: Any, stream: Any, wanted: set[int], problems: list[str]
) -> Iterator[tuple[int, Any]]:
    """Frames up to the last wanted one of every group in which one is wanted."""
    assert known.groups is not None
    context = stream.codec_context
    disposable = context.name in DISPOSABLE
    places = (bisect_right(known.stamps, stamp) - 1 for stamp in wanted)
    left = Counter(known.groups[place] for place in places)
    group = -1
    for packet in _packets(container, stream, []):
        group += packet.is_keyframe
        if not left[group]:
            continue
        asked = packet.pts in wanted
        if disposable:
            context.skip_frame = "DEFAULT" if asked else "NONREF"
        found = _decode(context, packet, problems)
        left[group] -= asked
        if not left[group]:
            found += _decode(context, None, problems)
            context.flush_buffers()
        yield from ((frame.pts, frame) for frame in found if frame.pts is not None)
        if not +left:
            return


def _decode(context: Any, packet: Any, problems: list[str]) -> list[Any]:
    import av

    try:
        return context.decode(packet)
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        problems.append(error.strerror or str(error))
        return []


def _packets(container: Any, stream: Any, notes: list[str]) -> Iterator[Any]:
    """Packets with something in them; a file that breaks off ends there."""
    import av

    packets = container.demux(stream)
    any_yet = False
    while True:
        try:
            packet = next(packets, None)
        except (av.error.InvalidDataError, av.error.EOFError, av.error.OSError) as error:
            if not any_yet:
                raise
            notes.append(f"it breaks off ({error.strerror})")
            return
        if packet is None:
            return
        if packet.size:
            any_yet = True
            yield packet


def _video(container: Any, path: str | PathLike[str]) -> Any:
    import av

    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise MediaError(f"{path}: the file has no video stream (it holds {others}); replace or remove it")
    return streams[0]


@contextmanager
def _clear_errors(path: str | PathLike[str]) -> Iterator[None]:
    import av

    try:
        yield
    except MediaError:
        raise
    except FileNotFoundError as error:
        raise MediaError(f"{path}: there is no such file; check the path or the clip folder") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if Path(path).is_file() and Path(path).stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty (0 bytes); replace or remove it") from error
        what = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{path}: the clip cannot be decoded ({what}): it is cut off, damaged or no clip; replace or remove it"
        ) from error


def upright(frame: Any, max_side: int = MAX_SIDE) -> UInt8[np.ndarray, "H W 3"]:
    """RGB pixels of a PyAV frame, turned as its display matrix says."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    rotation = frame.rotation  # degrees counterclockwise
    if rotation:
        image = image.rotate(rotation, expand=True)
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def _stack(pictures: list[np.ndarray]) -> UInt8[np.ndarray, "T H W 3"]:
    """A stream may change its size; later pictures get that of the first."""
    height, width = pictures[0].shape[:2]
    same = [
        picture
        if picture.shape[:2] == (height, width)
        else np.asarray(Image.fromarray(picture).resize((width, height)))
        for picture in pictures
    ]
    return np.stack(same)
