"""Uniform sampling of 28 frames from a 5-minute clip of 320x240 pixels, against seeking to every frame.

    OMP_NUM_THREADS=1 python benchmarks/video_sampling.py --rounds 5

H.264 clips of 7,500 frames are made first, one after the other (half a minute each), with groups of pictures of 25,
250, 1,500 and 7,500 frames.  Seeking to every frame goes back to the key frame before it and decodes up to it.  Where
a group holds at most one wanted frame (up to 250 here) that is nearly as few frames as can be; where it holds several,
the beginning of the group is decoded again for each.  All variants must give equal pictures before anything is timed.
The peak memory is that of a process of its own that samples the clip and does nothing else.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from limner.data.clips import frames_at, index_clip, sample_timestamps
from limner.data.frames import FrameSampling
from paired import arguments, report, take_turns

FRAMES, SECONDS, RATE, WIDTH, HEIGHT = 28, 300, 25, 320, 240
BAR, MEMORY = 3, 300  # times; MB
CHILD = (  # VmHWM begins at exec; ru_maxrss would be this process's own size, which the child inherits
    "import sys; from limner.data.frames import FrameSampling; from limner.data.media import read_medium; "
    "read_medium(sys.argv[1], FrameSampling(28)); "
    "print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 1024)"
)


def write(path: Path, group: int) -> None:
    """A camera over a pattern of blocks, with a square that changes its grey."""
    blocks = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {
            "preset": "veryfast",
            "g": str(group),
            "keyint_min": str(group),
            "sc_threshold": "0",
            "bf": "3",
        }
        for k in range(SECONDS * RATE):
            picture = blocks[(y := k // 2 % 300) : y + HEIGHT, (x := k % 300) : x + WIDTH].copy()
            picture[10:60, 10:60] = 3 * k % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def seeking(path: Path, wanted: list[int]) -> list[np.ndarray]:
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for timestamp in wanted:
            container.seek(timestamp, stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.pts >= timestamp)
            found.append(frame.to_ndarray(format="rgb24"))
    return found


def sequential(path: Path, wanted: list[int]) -> list[np.ndarray]:
    """Every frame decoded, once."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if frame.pts == wanted[len(found)]:
                found.append(frame.to_ndarray(format="rgb24"))
                if len(found) == len(wanted):
                    break
    return found


def ours(path: Path) -> list[np.ndarray]:
    """The pass over the packets included."""
    clip = index_clip(path)
    return list(frames_at(clip, sample_timestamps(clip, FrameSampling(FRAMES))))


def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    with TemporaryDirectory() as name:
        for group in (25, 250, 1500, SECONDS * RATE):
            path = Path(name) / f"{group}.mp4"
            write(path, group)
            clip = index_clip(path)
            wanted = sample_timestamps(clip, FrameSampling(FRAMES))
            variants: dict[str, Callable[[], list[np.ndarray]]] = {
                "limner": lambda path=path: ours(path),
                "seeking to every frame": lambda path=path, wanted=wanted: seeking(path, wanted),
                "decoding every frame": lambda path=path, wanted=wanted: sequential(path, wanted),
            }
            pictures = [np.stack(variant()) for variant in variants.values()]
            unequal = sum(not np.array_equal(pictures[0], other) for other in pictures[1:])
            print(f"\ngroups of {group} pictures, {len(clip.timestamps)} frames, variants that differ: {unequal}")
            if unequal:
                return 1
            several = group > SECONDS * RATE / FRAMES  # wanted frames in a group
            bars = {"seeking to every frame": BAR} if several else {}
            report(take_turns(variants, rounds), bars, paired_with="loops of our own over PyAV")
            peak = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True)
            print(f"peak memory of sampling it: {float(peak.stdout):.0f} MB (bar {MEMORY}; torch and PyAV included)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
