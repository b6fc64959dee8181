"""What a file is by its content, whatever its name says."""

import io
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from limner.data.image_files import FORMATS
from limner.data.media import MediaError, is_clip, read_image, read_medium
from limner.data.recognition import recognise

COLOURS = np.zeros((48, 64, 3), np.uint8)
COLOURS[:, 32:] = (255, 0, 0)  # the left half is black, the right one red
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)

IMAGES = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "DIB",
    "PPM",
    "WEBP",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "ICO",
    "PCX",
    "SGI",
    "TGA",
    "MPO",
)
VIDEOS = {  # container: (FFmpeg's name, codec)
    "mp4": ("mp4", "mpeg4"),
    "3g2": ("3g2", "mpeg4"),
    "f4v": ("f4v", "h264"),
    "qt": ("mov", "mpeg4"),
    "mkv": ("matroska", "mpeg4"),
    "webm": ("webm", "libvpx"),
    "avi": ("avi", "mpeg4"),
    "mts": ("mpegts", "mpeg2video"),
    "mpg": ("mpeg", "mpeg1video"),
    "vob": ("vob", "mpeg2video"),
    "asf": ("asf", "wmv2"),
    "flv": ("flv", "flv"),
    "mxf": ("mxf", "mpeg2video"),
    "ogv": ("ogg", "libvpx"),
    "y4m": ("yuv4mpegpipe", "wrapped_avframe"),
    "nut": ("nut", "mpeg4"),
    "m1v": ("mpeg1video", "mpeg1video"),
    "h264": ("h264", "libx264"),
    "hevc": ("hevc", "libx265"),
    "dv": ("dv", "dvvideo"),
}


def image_bytes(format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, format, **options)
    return buffer.getvalue()


def video_bytes(format: str, codec: str, path: Path) -> bytes:
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=25)
        width, height = (720, 576) if codec == "dvvideo" else (64, 48)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(25):  # a file of a few kB is too short for FFmpeg to recognise MPEG by its content
            noisy = COLOURS // 2 + noise.integers(0, 50, COLOURS.shape, dtype=np.uint8) + COLOURS // 4
            noisy = np.asarray(Image.fromarray(noisy).resize((width, height)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def is_black_and_red(frame: np.ndarray) -> bool:
    middle = len(frame) // 2
    left, right = frame[middle, 10].astype(int), frame[middle, -10].astype(int)
    return bool(left.max() < 60 and right[0] > 180 and right[1] < 60)


@pytest.mark.parametrize("format", IMAGES)
def test_an_image_is_recognised_without_a_suffix_and_with_a_wrong_one(tmp_path: Path, format: str) -> None:
    for name in ("f3a9c1", "photo.JPG", "clip.mp4", "photo.jpg?w=640"):
        path = tmp_path / (name if format != "TGA" else f"{name}.TGA")  # TGA has no signature
        path.write_bytes(image_bytes(format))
        assert recognise(path) == "image" and not is_clip(path)
        frames = read_medium(path)
        assert len(frames) == 1 and is_black_and_red(frames[0])


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_video_is_recognised_without_a_suffix_and_with_a_wrong_one(tmp_path: Path, kind: str) -> None:
    format, codec = VIDEOS[kind]
    content = video_bytes(format, codec, tmp_path / "made")
    for name in ("f3a9c1", f"CLIP.{kind.upper()}", "wrong.avi", "wrong.jpg", "wrong.png"):
        (tmp_path / name).write_bytes(content)
        assert recognise(tmp_path / name) == "video" and is_clip(tmp_path / name)
        assert is_black_and_red(read_medium(tmp_path / name)[0])


def test_transport_streams_of_cameras_have_a_time_before_each_packet(tmp_path: Path) -> None:
    content = video_bytes("mpegts", "mpeg2video", tmp_path / "made")
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    (tmp_path / "00001").write_bytes(b"".join(bytes(4) + packet for packet in packets))
    assert recognise(tmp_path / "00001") == "video"
    assert is_black_and_red(read_medium(tmp_path / "00001")[0])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_image_with_several_frames_is_an_animation(tmp_path: Path, format: str) -> None:
    more = [Image.fromarray(COLOURS[:, ::-1])]
    (tmp_path / "moving").write_bytes(image_bytes(format, save_all=True, append_images=more))
    (tmp_path / "still").write_bytes(image_bytes(format))
    assert recognise(tmp_path / "moving") == "animation" and recognise(tmp_path / "still") == "image"


def test_pages_of_a_tiff_file_are_no_animation(tmp_path: Path) -> None:
    path = tmp_path / "scan"
    path.write_bytes(image_bytes("TIFF", save_all=True, append_images=[Image.fromarray(COLOURS)]))
    assert recognise(path) == "image"


def test_other_files_are_no_media(tmp_path: Path) -> None:
    contents = {
        "notes": b"a dog\n",
        "BM.txt": b"BMW and P4 and II are names",
        "P6": b"P6 is a chip\n",
        "array.npy": b"\x93NUMPY\x01\0" + bytes(300),
        "data.bin": bytes(range(256)) * 8,
        "song": b"ID3\x04" + bytes(500),
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nother.ts\n",
        "empty.jpg": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert recognise(tmp_path / name) == "", name


def test_a_path_that_is_not_there_is_judged_by_its_suffix() -> None:
    assert [recognise(f"/nowhere/a.{suffix}") for suffix in ("JPG", "mts", "txt")] == ["image", "video", ""]


def test_a_file_that_changes_is_recognised_anew(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(image_bytes("PNG"))
    assert recognise(path) == "image"
    path.write_bytes(b"text")
    assert recognise(path) == ""


@pytest.mark.parametrize("name", ["x.png", "x.mp4", "x"])
def test_fifos_sockets_and_devices_are_named_and_nothing_waits_for_them(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert recognise(tmp_path / name) == "" and not is_clip(tmp_path / name)
    with pytest.raises(MediaError, match=rf"{name}: a FIFO \(named pipe\), not a file"):
        read_medium(tmp_path / name)
    with pytest.raises(MediaError, match=rf"{name}: a FIFO \(named pipe\), not a file"):
        read_image(tmp_path / name)
    with pytest.raises(MediaError, match="a device, not a file"):
        read_medium("/dev/zero")
    address = tmp_path / f"s-{name}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        with pytest.raises(MediaError, match="a socket, not a file"):
            read_medium(address)


def test_postscript_is_refused_and_starts_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    def ghostscript(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    for source in (path, path.read_bytes()):
        with pytest.raises(MediaError, match="it is PostScript; save it as PNG"):
            read_image(source)
    assert not {"EPS", "WMF", "PDF", "FPX", "MIC", "IPTC"} & set(FORMATS)


def test_heic_without_the_plug_in_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(HEIC)
    assert recognise(path) == "image"
    with pytest.raises(MediaError, match=r"it is HEIC, which needs a plug-in: pip install 'limner\[heif\]'"):
        read_medium(path)


def test_heic_is_handed_to_the_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pillow-heif, which registers a reader called HEIF."""

    def register_heif_opener(thumbnails: bool) -> None:
        monkeypatch.setitem(Image.OPEN, "HEIF", (lambda file, name: Image.new("RGB", (5, 4), "red"), None))

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register_heif_opener))
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(HEIC)
    assert read_medium(path).tolist() == [[[[255, 0, 0]] * 5] * 4]
    assert read_image(HEIC).shape == (1, 4, 5, 3)


def test_heic_is_read_with_the_plug_in(tmp_path: Path) -> None:
    """In HEIF the EXIF orientation does not count; libheif turns an image by its own properties."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / "a.heic", "HEIF", exif=exif, quality=95)
    frame = read_medium(tmp_path / "a.heic")[0]
    assert frame.shape == (48, 64, 3) and is_black_and_red(frame)


def test_avif_data_in_a_file_called_heic_are_read(tmp_path: Path) -> None:
    (tmp_path / "IMG_0002.HEIC").write_bytes(image_bytes("AVIF"))
    assert is_black_and_red(read_medium(tmp_path / "IMG_0002.HEIC")[0])
