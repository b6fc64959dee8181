"""Opening of video files with PyAV: the right stream, its packets on one clock, and errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

from limner.data.images import MediaError
from limner.data.pyav import MissingPyAvError, require_pyav

LONGEST_FRAME = 3600  # seconds; a frame that claims to be on screen for longer has a wrong time stamp
LONGEST_GAP = 10  # seconds; the same for formats whose time stamps may jump (MPEG-TS, MPEG-PS)
# Containers of video.  FFmpeg has readers for much more: images, playlists, text screens.
VIDEO_FORMATS = frozenset((
    "asf", "av1", "avi", "avs", "avs2", "dhav", "dv", "film_cpk", "flv", "gxf", "h261", "h263", "h264", "hevc", "ivf",
    "live_flv", "m4v", "matroska", "mjpeg", "mov", "mpeg", "mpegts", "mpegvideo", "mxf", "nsv", "nut", "obu", "ogg",
    "rm", "vc1", "vvc", "wtv", "yuv4mpegpipe",
))  # fmt: skip
TS_DISCONT = 512  # FFmpeg's AVFMT_TS_DISCONT: time stamps of the format may jump
# How files begin whose format FFmpeg is so unsure about that it trusts a wrong suffix, as in clip.jpg.
UNSURE_FORMATS = (
    (b"\0\0\x01\xba", "mpeg"),  # MPEG program stream, VOB
    (b"\0\0\x01\xb3", "mpegvideo"),  # MPEG-1 and MPEG-2 without a container
    *((b"\0\0\0\x01" + unit, "h264") for unit in (b"\x67", b"\x27", b"\x09\x10", b"\x09\xf0")),  # without a container
    *((b"\0\0\0\x01" + unit, "hevc") for unit in (b"\x40\x01", b"\x46\x01")),
    *((b"\x1f\x07\0" + lines, "dv") for lines in (b"\x3f", b"\xbf")),  # 60 and 50 fields
)
PLAYLIST_HEADS = (b"#EXTM3U", b"ffconcat")  # text files that name other files and addresses
IMAGE_BRANDS = ("avif", "avis", "heic", "heix", "heim", "heis", "mif1")  # HEIF and AVIF files are ISO media files too


@contextmanager
def open_video(path: str | PathLike[str]) -> Iterator[tuple[Any, Any]]:
    """Open a video file, and yield its PyAV container and video stream.

    The path is never taken as an address: `10:30 party.mp4` is a file, and nothing is fetched from a network, not even
    for a playlist.  Raises MediaError when the file has no video stream that PyAV can decode.
    """
    require_pyav()
    import av  # takes 0.1 s, which reading images need not spend

    head = b""
    if Path(path).is_file():
        with open(path, "rb") as file:
            head = file.read(16)
    elif Path(path).exists() and not Path(path).is_dir():
        raise MediaError(f"{path}: neither a file nor a folder but a device or pipe; give a video file")
    if head.startswith(PLAYLIST_HEADS):
        raise MediaError(f"{path}: a playlist, not a video; give the files that it names")
    format = next((name for magic, name in UNSURE_FORMATS if head.startswith(magic)), None)
    with av.open(f"file:{path}", format=format, options={"protocol_whitelist": "file"}) as container:
        yield container, video_stream(container, path)


def is_video(path: str | PathLike[str]) -> bool:
    """Whether the content of a file, whatever its name, is a video that PyAV can decode.

    False for images, sound, text and missing files, and for every file where PyAV is not installed.
    """
    if find_spec("av") is None:
        return False
    import av

    try:
        with open_video(path) as (container, _):
            brand = container.metadata.get("major_brand", "")
            return bool(set(container.format.name.split(",")) & VIDEO_FORMATS) and brand not in IMAGE_BRANDS
    except (MediaError, av.error.FFmpegError, OSError, ValueError):
        return False


def video_stream(container: Any, path: str | PathLike[str]) -> Any:
    """The video stream that players show: the default one, and never a cover image.

    Raises MediaError when there is none, or none that PyAV can decode.
    """
    import av

    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise MediaError(f"{path}: the file has no video stream (it holds {others}); replace or remove it")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise MediaError(
            f"{path}: the video is in a format that this PyAV cannot decode; convert it, for example to H.264 in MP4"
        )
    chosen = [stream for stream in known if stream.disposition & av.stream.Disposition.default] or known
    best = container.streams.best("video") if len(chosen) > 1 else None  # FFmpeg's choice among equals
    return next((stream for stream in chosen if best is not None and stream.index == best.index), chosen[0])


def decoder(stream: Any) -> Any:
    """The codec context that decodes a stream.

    FFmpeg's own decoder of VP8 and VP9 leaves out the transparency of WebM files, libvpx reads it.
    """
    import av

    context = stream.codec_context
    library = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.name)
    if stream.metadata.get("alpha_mode") == "1" and library in av.codecs_available:
        context = av.CodecContext.create(library, "r")
    # threads for whole frames cost MPEG-4 Part 2 more time than they save
    context.thread_type = "SLICE" if context.name == "mpeg4" else "AUTO"
    return context


class Clock:
    """Puts the time stamps of a stream on one clock that begins at the container's start and never goes back.

    Sound may begin before the first frame; players and subtitles count from the beginning of the whole.  Where
    recordings were joined, or a camera was restarted, time stamps begin anew or jump: the next part then follows the
    last frame without a gap.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.time_base = Fraction(stream.time_base)
        rate = Fraction(stream.average_rate or 25)
        self.frame_seconds = 1 / (rate if rate * LONGEST_FRAME >= 1 else Fraction(25))
        self.frame = self._ticks(self.frame_seconds)  # length of a frame; ticks are those of the time base
        may_jump = bool(container.format.flags & TS_DISCONT)
        self.longest_frame, self.longest_gap = (
            self._ticks(seconds) for seconds in (LONGEST_FRAME, LONGEST_GAP if may_jump else LONGEST_FRAME)
        )
        # frames are stored in the order of decoding; a frame may be shown up to 16 frames before the one stored before
        self.reordered = max(self._ticks(1), 17 * self.frame)
        self.slack = max(self._ticks(Fraction(1, 10)), self.frame) if may_jump else self.reordered
        self.is_avi = container.format.name == "avi"
        start = round(Fraction(container.start_time or 0, 1_000_000) / self.time_base)
        self.offset = -start
        self.first = start if stream.start_time is None else stream.start_time  # the lowest time stamp, FFmpeg thinks
        self.end: int | None = None  # when the frames so far end
        self.breaks: list[int] = []  # when the parts after the first begin
        self.is_usable = self.time_base <= LONGEST_FRAME  # False: even one tick is longer than a frame may be
        # the longest time for which a frame claims to be shown, where it is not plausible
        self.absurd = 0 if self.is_usable else 1
        self._last_dts: int | None = None
        self._last_shown = 0  # the latest time stamp of this part

    def _ticks(self, seconds: Fraction | int) -> int:
        return max(1, round(seconds / self.time_base))

    def set(self, packet: Any) -> None:
        """Change the time stamps of the next packet."""
        shown = packet.pts if packet.pts is not None else packet.dts
        if shown is None:
            return
        if not packet.is_discard:  # an edit list hides such a packet; its time stamps need not fit
            if self.end is None:
                self._begin(shown)
            elif self._starts_part(shown, packet.dts, self.end):
                self.breaks.append(self.end)
                self.offset = self.end - shown
                self._last_shown = shown
            self._last_dts = packet.dts
            self._last_shown = max(self._last_shown, shown) if self.end is not None else shown
            end = shown + self.offset + self.length(packet)
            self.end = end if self.end is None else max(self.end, end)
        if packet.dts is not None:
            packet.dts = _in_range(packet.dts + self.offset)
        if packet.pts is not None:
            packet.pts = _in_range(packet.pts + self.offset)

    def length(self, packet: Any) -> int:
        """How long a frame is shown, in ticks; a length that is missing or absurd is that of the average frame."""
        if (packet.duration or 0) > self.longest_frame:
            self.absurd = max(self.absurd, packet.duration)
            return self.frame
        return packet.duration if (packet.duration or 0) > 0 else self.frame

    def note(self) -> str:
        """What was wrong with the time stamps, or nothing."""
        if self.absurd and not (self.breaks and self.is_usable):
            claimed = float(self.absurd * self.time_base)
            return f"a frame claims to be shown for {claimed:.0f} s; it counts as {float(self.frame_seconds):.2f} s"
        if not self.breaks or self.end is None:
            return ""
        places = f"{len(self.breaks)} places" if len(self.breaks) > 1 else "1 place"
        first, whole = (float(ticks * self.time_base) for ticks in (self.breaks[0], self.end))
        return (
            f"the time stamps begin anew or jump at {places} (first after {first:.1f} s); "
            f"the parts were joined to one clip of {whole:.1f} s"
        )

    def _begin(self, shown: int) -> None:
        """Place the first frame."""
        # AVI stores when a frame is decoded, which may be some frames before it is shown; in other formats, FFmpeg may
        # have looked ahead and seen a part with lower time stamps
        if self.is_avi or shown - self.first > self.reordered:
            self.offset += self.first - shown
        if abs(shown + self.offset) > self.longest_frame:
            self.breaks.append(0)
            self.offset = -shown

    def _starts_part(self, shown: int, dts: int | None, end: int) -> bool:
        """Whether the next frame does not belong to the clock so far."""
        if shown + self.offset - end > self.longest_gap:
            return True
        if dts is None or self._last_dts is None:
            return self._last_shown - shown > self.reordered
        return self._last_dts - dts > self.slack


def _in_range(stamp: int) -> int:
    """A time stamp that FFmpeg can store (64 bits)."""
    return max(-(1 << 62), min(stamp, 1 << 62))


def clocked_packets(container: Any, stream: Any, clock: Clock, notes: list[str]) -> Iterator[Any]:
    """The packets that hold data, with the time stamps of the clock.

    When a file breaks off after some packets, they end there and a note is added.
    """
    import av

    packets = container.demux(stream)
    any_yet = False
    while True:
        try:
            packet = next(packets, None)
        except (av.error.InvalidDataError, av.error.EOFError, av.error.OSError) as error:
            if not any_yet:
                raise
            notes.append(f"the file breaks off ({error.strerror})")
            return
        if packet is None:
            return
        if packet.size:
            any_yet = True
            clock.set(packet)
            yield packet


@contextmanager
def as_media_error(path: str | PathLike[str]) -> Iterator[None]:
    """Turn errors of FFmpeg, Pillow and the file system into a MediaError that names the file and says what to do."""
    try:
        require_pyav()
    except MissingPyAvError as error:
        raise MediaError(f"{path}: {error}") from error
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
            f"{path}: the clip cannot be decoded ({what}): it is damaged or not a video; replace or remove it"
        ) from error
