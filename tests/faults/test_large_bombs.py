"""Bombs at full size: files of a megabyte that claim gigabytes, and files of a gigabyte that claim nothing at all."""

import resource
import struct
import tarfile
import time
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from limner.apps.cli import main
from limner.core.tensors import load_tensors
from limner.data.archives import media_of_archive
from limner.data.captions_file import read_captions
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from tests.faults.test_bombs import MIB, refused

pytestmark = pytest.mark.faults


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_a_png_of_900_million_pixels(tmp_path: Path):
    """All of them are there: 900 MB of zeros in a file of one."""
    packer, parts = zlib.compressobj(9), []
    for _ in range(300):
        parts.append(packer.compress(bytes(100 * 30_001)))
    data = b"".join(parts) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    assert path.stat().st_size < 2 * MIB
    assert "too many pixels" in refused(lambda: read_medium(path))


def gif(frames: int, width: int = 1) -> bytes:
    """A GIF whose frames are one black pixel each, on a canvas of `width` x `width`."""
    frame = b"\x21\xf9\x04\x00\x0a\x00\x00\x00\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, width, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frames * frame + b";"


def test_a_gif_of_100_000_frames(tmp_path: Path):
    (tmp_path / "a.gif").write_bytes(gif(100_000))
    assert "more than 20,000 frames of 1 x 1 pixels" in refused(lambda: read_medium(tmp_path / "a.gif"))
    (tmp_path / "b.gif").write_bytes(gif(100_000, 20_000))
    assert "400000000 pixels" in refused(lambda: read_medium(tmp_path / "b.gif"))
    (tmp_path / "c.gif").write_bytes(gif(19_000))
    assert read_medium(tmp_path / "c.gif", FrameSampling(4)).shape == (4, 1, 1, 3)


@pytest.mark.parametrize(("ending", "container"), [("mp4", "mp4"), ("mkv", "matroska")])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_clip_of_four_hours_and_a_frame_or_two(ending: str, container: str, frames: int, tiny: Path, tmp_path: Path):
    """It is read at once, and captioned in parts of ten seconds too: 1,440 rows, which all show these frames."""
    path, out = tmp_path / f"a.{ending}", tmp_path / "c.csv"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seconds in (0, 4 * 3600)[:frames]:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = seconds, Fraction(1, 1)
            file.mux(stream.encode(frame))
        for packet in stream.encode():
            packet.duration = 4 * 3600 if frames == 1 else packet.duration
            file.mux(packet)
    assert path.stat().st_size < 4000
    begin = time.process_time()
    assert read_medium(path, FrameSampling(4)).shape == (4, 48, 64, 3)
    assert time.process_time() - begin < 2
    command = ["caption", str(path), "--model", str(tiny / "run"), "--every", "10", "--out", str(out), "--beam", "1"]
    assert main(command) in (0, 3) and len(out.read_text().splitlines()) <= 1442


def test_a_line_of_a_gigabyte(tmp_path: Path):
    """A table with a field that does not end."""
    with open(tmp_path / "a.csv", "w") as file:
        file.write('file,caption\na.png,"')
        for _ in range(1024):
            file.write("x" * MIB)
    assert "a line of it has more than 134,217,728 bytes" in refused(lambda: read_captions(tmp_path / "a.csv"))


def test_a_safetensors_header_of_100_megabytes(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    entries = (f'"{number:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(1_600_000))
    header = f"{{{','.join(entries)}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "has a header of 94,400,001 bytes, and at most 16,777,216 are read" in refused(lambda: load_tensors(path))


def test_a_tar_of_a_million_empty_files(tmp_path: Path):
    """512 MB of headers are read in the time that they take (half a minute), without a kilobyte for each of them."""
    info = tarfile.TarInfo("0000000")
    head = info.tobuf()
    total = int(head[148:154], 8) - sum(b"0000000")
    with open(tmp_path / "a.tar", "wb") as file:
        for number in range(1_000_000):
            name = b"%07d" % number
            file.write(name + head[7:148] + b"%06o" % (total + sum(name)) + head[154:])
        file.write(bytes(1024))
    grown = peak_of(lambda: media_of_archive(tmp_path / "a.tar"))
    assert grown < 600 * MIB


def peak_of(read: Callable[[], Any]) -> int:
    """How much memory a refused file takes, in bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="there is no image or clip in it"):
        read()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
