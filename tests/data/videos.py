"""Clips made for tests: every frame known, every container and codec that PyAV writes."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def write(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "mpeg4",
    rate: int = 10,
    times: Sequence[int] | None = None,
    **options: str,
) -> Path:
    """RGB pictures at `rate` per second, or at `times` in milliseconds."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"qscale": "1"} | options if codec == "mpeg4" else options
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def greys(count: int, step: int = 10, size: tuple[int, int] = (32, 64)) -> list[np.ndarray]:
    """Picture k is grey k * step."""
    return [np.full((*size, 3), k * step % 256, np.uint8) for k in range(count)]


def moving(count: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> list[np.ndarray]:
    """A camera over a random pattern, so that frames refer to one another."""
    shape = ((size[0] + 2 * count) // 8 + 1, (size[1] + 3 * count) // 8 + 1, 3)
    pattern = np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return [pattern[2 * k : 2 * k + size[0], 3 * k : 3 * k + size[1]] for k in range(count)]


def noise(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Pictures that have nothing in common, and so take equally many bytes."""
    return [np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8) for k in range(count)]


def tone(path: Path) -> Path:
    """A second of sound in a file that could be a clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        samples = np.zeros((1, 8000), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(frames: np.ndarray, step: int = 10) -> list[int]:
    """Which of `greys` each frame is."""
    return [round(float(frame.mean()) / step) for frame in frames]


def join(path: Path, *parts: Path) -> Path:
    """Files one behind the other, as `cat a.ts b.ts > path` does it."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def with_matrix(path: Path, source: Path, a: int, b: int, c: int, d: int) -> Path:
    """An MP4 with the display matrix (a, b; c, d): x' = a x + c y, y' = b x + d y."""

    def matrix(*values: int) -> bytes:
        return struct.pack(
            ">9i", *(value << 16 for value in (values[0], values[1], 0, values[2], values[3], 0, 0, 0)), 1 << 30
        )

    content = source.read_bytes()
    track = content.index(b"tkhd")
    path.write_bytes(content[:track] + content[track:].replace(matrix(1, 0, 0, 1), matrix(a, b, c, d), 1))
    return path


def with_sound(path: Path, pictures: Sequence[np.ndarray], begins: float, rate: int = 10) -> Path:
    """Pictures that begin after `begins` seconds of a file whose sound begins at once."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=rate)
        video.width, video.height, video.pix_fmt, video.options = width, height, "yuv420p", {"qscale": "1"}
        sound = container.add_stream("aac", rate=8000, layout="mono")
        for k in range(round((begins + len(pictures) / rate) * 10)):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 8000, 800 * k
            container.mux(sound.encode(samples))
        for k, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(begins * rate) + k, Fraction(1, rate)
            container.mux(video.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode())
    return path


def animate(path: Path, pictures: Sequence[np.ndarray], durations: Sequence[int] | int = 100) -> Path:
    """RGB or RGBA pictures as an animation, each for some milliseconds; the suffix chooses the format."""
    images = [Image.fromarray(picture) for picture in pictures]
    exact = {".webp": {"lossless": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}.get(path.suffix, {})
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, **exact)
    return path
