"""Clips made for tests: every frame known, every container and codec that PyAV writes."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


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
