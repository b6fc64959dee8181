"""Frames as they are shown: of a film that plays, of a camera of this machine, or of a stream.

Nothing is fetched unless the user names the address.  A stream may not make FFmpeg open files.
"""

import re
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from limner.data.clips import decode_frames, index_clip
from limner.data.containers import decoder, video_stream
from limner.data.images import MediaError
from limner.data.pyav import MissingPyAvError, require_pyav
from limner.data.video_pixels import plausible_aspect

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt", "rtp")
PROTOCOLS = "rtsp,rtsps,rtmp,rtmps,rtp,srtp,http,https,httpproxy,udp,tcp,tls,srt,crypto"  # not file, concat, data ...
TIMEOUT = (10.0, 10.0)  # seconds to open a stream, and for its next packet
RETRIES = 5  # times in a row that a stream is opened again
LATE = 0.1  # seconds; a frame that comes later than this is not looked at, so that the next one is in time


class Frame(NamedTuple):
    """A frame of a source."""

    second: float  # since the beginning of the source
    image: Any  # of PyAV
    pixel_aspect: Fraction
    due: float  # when it is to be seen, on the clock of `time.perf_counter`


class Film:
    """A video file that plays in real time, or with `fast` as fast as its frames are taken.

    Raises MediaError when it cannot be read.
    """

    def __init__(self, path: str, fast: bool = False):
        self.name, self.fast = path, fast
        self.clip = index_clip(path)
        self.notes: list[str] = [f"{path}: {self.clip.note}"] if self.clip.note else []

    @property
    def end(self) -> float | None:
        """When it ends, in seconds."""
        return self.clip.span[1]

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """The frames, each at its time; those that are late are left out."""
        begin: float | None = None
        for timestamp, image in decode_frames(self.clip, notes=self.notes):
            second = self.clip.to_seconds(timestamp)
            now = time.perf_counter()
            begin = now - second if begin is None else begin
            due = now if self.fast else begin + second
            if stop.is_set() or (due > now and stop.wait(due - now)):
                return
            if now - due < LATE:
                yield Frame(second, image, self.clip.pixel_aspect, due)


class Camera:
    """A camera of this machine by its number, or a stream by its address.

    Raises MediaError, without the password in the address, when it cannot be opened.
    """

    fast = False
    end: float | None = None

    def __init__(self, source: str):
        self.source = source
        self.name = without_password(source)
        self.notes: list[str] = []
        self._container = _open(source, self.name)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """The frames as they come.  A stream that breaks off is opened again, some times in a row."""
        import av

        begin, failures = time.perf_counter(), 0
        while not stop.is_set():
            try:
                with self._container as container:
                    for frame in _decoded(container, self.name, begin, stop):
                        failures = 0
                        yield frame
                why = "it ended"
            except av.error.FFmpegError as error:
                why = error.strerror or "it broke off"
            if stop.is_set():
                return
            while True:
                failures += 1
                if failures > RETRIES or self.source.isdigit():
                    raise MediaError(f"{self.name}: no more pictures ({why})")
                if stop.wait(2**failures / 4):
                    return
                try:
                    self._container = _open(self.source, self.name)
                    print(f"note: {self.name}: opened again ({why})", file=sys.stderr, flush=True)
                    break
                except MediaError as error:
                    why = str(error).removeprefix(f"{self.name}: ")


def open_source(source: str, fast: bool = False) -> Film | Camera:
    """The film, camera or stream that a text names.

    Raises MediaError when it cannot be opened, ValueError when only a film can do what is asked.
    """
    is_address = re.match(r"[a-z]+://", source, re.IGNORECASE) is not None
    if not source.isdigit() and not is_address:
        return Film(source, fast)
    if fast:
        raise ValueError(f"--fast is for video files; {without_password(source)} comes as it comes")
    if is_address and source.partition("://")[0].lower() not in SCHEMES:
        raise ValueError(f"{without_password(source)}: give an address with one of {', '.join(SCHEMES)}, or a file")
    return Camera(source)


def without_password(address: str) -> str:
    """An address without the name and the password in it.

    >>> without_password("rtsp://me:secret@camera:554/stream")
    'rtsp://camera:554/stream'
    """
    return re.sub(r"(?<=://)[^/]*@", "", address)


def _open(source: str, name: str) -> Any:
    """The PyAV container of a camera or a stream."""
    try:
        require_pyav()
    except MissingPyAvError as error:
        raise MediaError(f"{name}: {error}") from error
    import av

    try:
        if source.isdigit():
            return av.open(_device(source), format="v4l2", options={"framerate": "30"})
        options = {"protocol_whitelist": PROTOCOLS, "rtsp_transport": "tcp"}
        return av.open(source, options=options, timeout=TIMEOUT)
    except av.error.FFmpegError as error:
        raise MediaError(
            f"{name}: it cannot be opened ({error.strerror}); check the address and who may use it"
        ) from None


def _device(number: str) -> str:
    """The device file of a camera.  Raises MediaError, which lists the cameras, when there is none."""
    path = Path(f"/dev/video{number}")
    if path.exists():
        return str(path)
    if sys.platform != "linux":
        raise MediaError(f"camera {number}: cameras by number are read with v4l2, on Linux; give an address or a file")
    others = sorted(other.name.removeprefix("video") for other in Path("/dev").glob("video[0-9]*"))
    known = f"there are {', '.join(others)}" if others else "there is no camera (in a container: --device /dev/video0)"
    raise MediaError(f"camera {number}: there is no {path}; {known}")


def _decoded(container: Any, name: str, begin: float, stop: threading.Event) -> Iterator[Frame]:
    """The frames of an open stream; those that come later than others are left out, and damage is skipped."""
    import av

    stream = video_stream(container, name)
    context, aspect = decoder(stream), plausible_aspect(stream.sample_aspect_ratio)
    least: float | None = None  # the smallest delay so far, between the time stamp of a frame and its arrival
    for packet in container.demux(stream):
        if stop.is_set():
            return
        try:
            images = context.decode(packet)
        except av.error.InvalidDataError:
            continue
        for image in images:
            now = time.perf_counter()
            delay = 0.0 if image.time is None else now - image.time
            least = delay if least is None else min(least, delay)
            if delay - least < LATE:
                yield Frame(now - begin, image, aspect, now)
