"""Decoding of clips: the chosen frames of a video file as RGB arrays.

A clip is read in two passes.  The first reads the packets without decoding them and notes when each frame is shown,
because the headers of cut or damaged files are wrong.  The second decodes once, in order, and only the chosen frames
become arrays.  In MP4 and Matroska files the second pass skips every group of pictures (GOP) without a chosen frame,
and inside a GOP the frames to which no other frame refers; the decoded frames stay bit-identical.  Seeking to each
chosen frame would decode the beginning of a long GOP again for each of them (benchmarks/video_sampling.py).  Memory
grows with the length of a clip only by the index, 12 bytes per frame.  Animations (GIF, WebP, APNG, AVIF) are clips
too; Pillow decodes them.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from math import ceil, floor
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.data import animations
from limner.data.containers import Clock, as_media_error, clocked_packets, decoder, open_video
from limner.data.frames import FrameSampling, sample_indices, sample_positions
from limner.data.images import MAX_SIDE, MediaError
from limner.data.video_pixels import plausible_aspect, upright

# Containers in which the writer marks the key frames, and packets have the timestamps of their decoded frames.
EXACT_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Codecs that mark frames to which no frame of the stream refers.  HEVC marks them only within a temporal layer.
CODECS_WITH_DISPOSABLE_FRAMES = ("h264", "mpeg4", "mpeg2video", "mpeg1video")


@dataclass(frozen=True)
class ClipIndex:
    """When each frame of a clip is shown.  Timestamps are whole numbers of `time_base` seconds.

    They count from the beginning of the file.  The first frame may come later: sound may begin before it.
    """

    path: str
    time_base: Fraction
    timestamps: array  # of all frames, ascending
    end: int  # timestamp at which the last frame ends
    has_timestamps: bool = True  # False: the file has none (old AVI), and a timestamp is the number of the frame
    gops: array | None = None  # number of each frame's group of pictures; None: groups cannot be skipped safely
    note: str = ""  # what is missing in a truncated file, or wrong with its time stamps
    pixel_aspect: Fraction = Fraction(1)  # width of a stored pixel divided by its height
    is_animation: bool = False  # True: an animated image, which Pillow decodes

    @property
    def duration(self) -> float:
        """Length in seconds, from the first frame to the end of the last one."""
        return float((self.end - self.timestamps[0]) * self.time_base)

    @property
    def span(self) -> tuple[float, float]:
        """When the first frame begins and the last one ends, in seconds since the beginning of the file."""
        return self.to_seconds(self.timestamps[0]), self.to_seconds(self.end)

    def shown_at(self, timestamp: Fraction | int) -> int:
        """Timestamp of the frame that is on screen at `timestamp`; before the beginning, of the first frame."""
        return self.timestamps[max(0, bisect_right(self.timestamps, floor(timestamp)) - 1)]

    def to_seconds(self, timestamp: Fraction | int) -> float:
        """A timestamp in seconds since the beginning of the file, which is what players and subtitles count."""
        return float(timestamp * self.time_base)

    def count_frames(self, start: float, end: float) -> int:
        """How many frames begin from `start` to before `end`, in seconds since the beginning of the file."""
        first, last = (bisect_left(self.timestamps, round(second / self.time_base)) for second in (start, end))
        return last - first

    def interval(self, start: float | None, end: float | None) -> tuple[Fraction, Fraction]:
        """[start, end] in seconds since the beginning of the file (None: the clip's own ends) as timestamps.

        Raises MediaError when the interval does not overlap the clip.
        """
        begin, finish = Fraction(self.timestamps[0]), Fraction(self.end)
        if start is not None:
            begin = max(begin, Fraction(start).limit_denominator(1000) / self.time_base)
        if end is not None:
            finish = min(finish, Fraction(end).limit_denominator(1000) / self.time_base)
        if begin >= finish:
            clip = f"the clip of {self.duration:.2f} s"
            clip += f", which begins at {self.span[0]:.2f} s of the file" if self.timestamps[0] > 0 else ""
            raise MediaError(f"{self.path}: the interval from {start} to {end} s lies outside {clip}")
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
    """Read the chosen frames between `start` and `end` seconds (None: the clip's own ends) as upright RGB in [0, 255].

    sampling  number of frames and policy.  Uniform takes the frames that are on screen in the middles of equal parts
              of the time, so a variable frame rate does not matter.
    seed      of the policy "random"
    max_side  larger frames are scaled down to this longer side, in pixels
    notes     a list to which a line is added for damage that did not stop decoding
    Raises MediaError when the file is missing or cannot be decoded, or the interval lies outside the clip.
    """
    return next(read_segments(index_clip(path), [(start, end)], sampling, seed, max_side, notes))


def read_segments(
    clip: ClipIndex,
    segments: Sequence[tuple[float | None, float | None]],
    sampling: FrameSampling = FrameSampling(),
    seed: int | None = None,
    max_side: int = MAX_SIDE,
    notes: list[str] | None = None,
) -> Iterator[UInt8[np.ndarray, "T H W 3"]]:
    """`read_clip` for each of several consecutive segments, (start, end) in seconds, in one pass over the clip."""
    if notes is not None and clip.note:
        notes.append(f"{clip.path}: {clip.note}")
    chosen = [sample_timestamps(clip, sampling, start, end, seed) for start, end in segments]
    frames = frames_at(clip, [timestamp for segment in chosen for timestamp in segment], max_side, notes)
    for segment in chosen:
        yield _stack_frames(list(islice(frames, len(segment))))


def sample_timestamps(
    clip: ClipIndex,
    sampling: FrameSampling = FrameSampling(),
    start: float | None = None,
    end: float | None = None,
    seed: int | None = None,
) -> list[int]:
    """Timestamps of the frames that `sampling` chooses between `start` and `end` seconds, ascending."""
    begin, finish = clip.interval(start, end)
    if sampling.policy in ("uniform", "random"):
        positions = sample_positions(sampling.frames, seed if sampling.policy == "random" else None)
        return [clip.shown_at(begin + (finish - begin) * position) for position in positions]
    edges = (bisect_left(clip.timestamps, ceil(edge)) for edge in (begin, finish))
    inside = clip.timestamps[slice(*edges)] or [clip.shown_at(begin)]
    chosen = [inside[index] for index in sample_indices(len(inside), sampling)]
    return chosen if sampling.policy == "every" else chosen + [chosen[-1]] * (sampling.frames - len(chosen))


def index_clip(path: str | PathLike[str]) -> ClipIndex:
    """Read the packets of a clip, without decoding them.  Raises MediaError when the file has no video."""
    if animations.is_animation(path):
        starts, end, note = animations.frame_times(path)
        return ClipIndex(str(path), Fraction(1, 1000), starts, end, note=note, is_animation=True)
    timestamps, gops, keyframes = array("q"), array("i"), array("q")
    has_timestamps = True
    notes: list[str] = []
    with as_media_error(path), open_video(path) as (container, stream):
        clock = Clock(container, stream)
        for packet in clocked_packets(container, stream, clock, notes):
            has_timestamps &= packet.pts is not None
            timestamp = packet.pts if packet.pts is not None else packet.dts or 0
            if packet.is_keyframe:
                keyframes.append(timestamp)
            if not packet.is_discard:  # an edit list hides such a packet
                timestamps.append(timestamp)
                gops.append(len(keyframes) - 1)
        exact = container.format.name in EXACT_CONTAINERS
        aspect = plausible_aspect(stream.sample_aspect_ratio)
        if not timestamps:
            raise MediaError(f"{path}: the clip holds no frame; replace or remove it")
        end = len(timestamps) if clock.end is None else clock.end
        first = 0 if clock.end is None else min(timestamps)
        notes += filter(
            None, [clock.note() or _missing(container, stream, first * clock.time_base, end * clock.time_base)]
        )
    note = "; ".join(notes)
    if not has_timestamps or not clock.is_usable:
        frame_numbers = array("q", range(len(timestamps)))
        return ClipIndex(str(path), clock.frame_seconds, frame_numbers, len(timestamps), False, None, note, aspect)
    order = np.asarray(timestamps).argsort(kind="stable")
    skippable = exact and _closed_gops(np.asarray(timestamps), np.asarray(gops), np.asarray(keyframes))
    return ClipIndex(
        str(path),
        clock.time_base,
        array("q", np.asarray(timestamps)[order].tobytes()),
        end,
        True,
        array("i", np.asarray(gops)[order].tobytes()) if skippable else None,
        note,
        aspect,
    )


def _missing(container: Any, stream: Any, begin: Fraction, end: Fraction) -> str:
    """A note when the header promises more than what can be read, from `begin` to `end` seconds; "" otherwise."""
    header_seconds = _header_duration(container, stream)
    is_matroska = "matroska" in container.format.name  # it stores the time stamp of the end
    readable = end + Fraction(container.start_time or 0, 1_000_000) if is_matroska else end - begin
    if header_seconds is None or readable >= min(header_seconds - 1, header_seconds * Fraction(9, 10)):
        return ""
    return f"truncated: {float(readable):.1f} of {float(header_seconds):.1f} s can be read"


def _header_duration(container: Any, stream: Any) -> Fraction | None:
    """Seconds of the video stream according to the header; None when the header does not say.

    Matroska stores them in a tag.  A container's own duration is that of its longest stream, so it counts only when
    the video is the only stream.
    """
    if stream.duration:
        # FFmpeg guesses the duration of a truncated AVI file from its size, but the number of frames is still right.
        # In MP4 that number also counts the frames that an edit list hides.
        counted = stream.frames / Fraction(stream.average_rate) if stream.average_rate else 0
        is_avi = container.format.name == "avi"
        return max(Fraction(stream.duration * stream.time_base), Fraction(counted if is_avi else 0))
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+)(?:\.\d*)?", stream.metadata.get("DURATION", "")):
        return Fraction(int(tag[1]) * 3600 + int(tag[2]) * 60 + int(tag[3]))
    only_stream = len(container.streams) == 1 and container.duration
    return Fraction(container.duration, 1_000_000) if only_stream else None


def _closed_gops(timestamps: np.ndarray, gops: np.ndarray, keyframes: np.ndarray) -> bool:
    """Whether all timestamps differ, and every frame is shown between its own key frame and the next one.

    Then a decoder that starts at a key frame gives exactly the frames of its group.
    """
    if gops[0] < 0 or len(np.unique(timestamps)) < len(timestamps):
        return False
    following = np.append(keyframes[1:], np.iinfo(np.int64).max)
    return bool((timestamps >= keyframes[gops]).all() and (timestamps < following[gops]).all())


def frames_at(
    clip: ClipIndex, timestamps: Sequence[int], max_side: int = MAX_SIDE, notes: list[str] | None = None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield the upright RGB frame that is on screen at each of the ascending `timestamps`, one at a time.

    In place of a frame that cannot be decoded the frame before it is given.
    """
    queue = deque(timestamps)
    shown: Any = None
    with as_media_error(clip.path):
        for timestamp, frame in decode_frames(clip, timestamps, notes):
            if shown is not None and queue and timestamp > queue[0]:
                image = upright(shown, max_side, clip.pixel_aspect)
                while queue and timestamp > queue[0]:
                    queue.popleft()
                    yield image
            if not queue:
                return
            shown = frame
        if shown is None:
            raise MediaError(f"{clip.path}: no frame of the clip can be decoded; replace or remove it")
        image = upright(shown, max_side, clip.pixel_aspect)
        for _ in queue:
            yield image


def decode_frames(
    clip: ClipIndex, wanted: Sequence[int] | None = None, notes: list[str] | None = None
) -> Iterator[tuple[int, Any]]:
    """Yield (timestamp, PyAV frame) in display order: all frames, or at least those at the timestamps `wanted`."""
    if clip.is_animation:
        yield from _decode_animation(clip)
        return
    errors: list[str] = []
    with as_media_error(clip.path), open_video(clip.path) as (container, stream):
        context = decoder(stream)
        packets = clocked_packets(container, stream, Clock(container, stream), [])
        try:
            if wanted is None or clip.gops is None:
                yield from _decode_all(clip, context, packets, errors)
            else:
                yield from _decode_gops(clip, context, packets, set(wanted), errors)
        finally:
            if errors and notes is not None:
                notes.append(f"{clip.path}: {len(errors)} damaged places were skipped ({errors[0]})")


def _decode_animation(clip: ClipIndex) -> Iterator[tuple[int, Any]]:
    import av

    images = animations.decode(clip.path, len(clip.timestamps))
    for timestamp, image in zip(clip.timestamps, images, strict=True):
        yield timestamp, av.VideoFrame.from_ndarray(image, format="rgb24")


def _decode_all(clip: ClipIndex, context: Any, packets: Iterator[Any], errors: list[str]) -> Iterator[tuple[int, Any]]:
    number = 0
    for packet in chain(packets, [None]):  # None makes the decoder return what it holds back
        for frame in _decode_packet(context, packet, errors):
            timestamp = frame.pts if clip.has_timestamps else number
            yield clip.timestamps[min(number, len(clip.timestamps) - 1)] if timestamp is None else timestamp, frame
            number += 1


def _decode_gops(
    clip: ClipIndex, context: Any, packets: Iterator[Any], wanted: set[int], errors: list[str]
) -> Iterator[tuple[int, Any]]:
    """Decode every group of pictures that has a wanted frame, up to the last wanted frame in it."""
    assert clip.gops is not None
    has_disposable_frames = context.name in CODECS_WITH_DISPOSABLE_FRAMES
    indices = (bisect_right(clip.timestamps, timestamp) - 1 for timestamp in wanted)
    remaining = Counter(clip.gops[index] for index in indices)  # group -> wanted frames that are not decoded yet
    gop = -1
    for packet in packets:
        gop += packet.is_keyframe
        if not remaining[gop]:
            continue
        is_wanted = packet.pts in wanted
        if has_disposable_frames:
            context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        frames = _decode_packet(context, packet, errors)
        remaining[gop] -= is_wanted
        if not remaining[gop]:
            frames += _decode_packet(context, None, errors)
            context.flush_buffers()
        yield from ((frame.pts, frame) for frame in frames if frame.pts is not None)
        if not +remaining:
            return


def _decode_packet(context: Any, packet: Any, errors: list[str]) -> list[Any]:
    import av

    try:
        return context.decode(packet)
    except av.error.FFmpegError as error:  # damage has many names: invalid data, invalid argument, end of file
        errors.append(error.strerror or str(error))
        return []


def _stack_frames(frames: list[np.ndarray]) -> UInt8[np.ndarray, "T H W 3"]:
    """Frames as one array.  A stream may change its size; later frames are resized to the first one."""
    height, width = frames[0].shape[:2]
    resized = [
        frame if frame.shape[:2] == (height, width) else np.asarray(Image.fromarray(frame).resize((width, height)))
        for frame in frames
    ]
    return np.stack(resized)
