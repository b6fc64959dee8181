"""Pictures and clips as they come: odd ones decode to known numbers, broken ones raise one clear error."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from limner.core.types import Medium
from limner.data.augmentations import AUGMENTATIONS
from limner.data.frames import FrameSampling
from limner.data.media import MAX_SIDE, MediaError, frames_of, read_image, read_medium
from tests.data.videos import animate, greys, shown, write


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_pixels_come_back_exactly_from_path_bytes_pil_and_array(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", pixels)
    for source in (path, str(path), path.read_bytes(), Image.open(path), pixels):
        image = read_image(source)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, pixels[None])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    # where the first stored row and column lie in the upright picture, from the EXIF standard
    stored = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: upright[:, ::-1].swapaxes(0, 1),  # right, top
        7: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: upright[::-1].swapaxes(0, 1),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    path = save(tmp_path / name, np.ascontiguousarray(stored), exif=exif, **options)
    np.testing.assert_array_equal(read_image(path)[0], upright)


def test_cmyk_pictures_keep_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(path, quality=100)
    np.testing.assert_allclose(read_image(path)[0, 8, 8].astype(int), (0, 255, 255), atol=2)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_by_its_range_not_clipped(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    image = read_image(save(tmp_path / name, values))[0, 0]
    assert image[0].tolist() == [0] * 3 and image[1].tolist() == [1] * 3
    assert image[2, 0] in (127, 128) and image[3].tolist() == [255] * 3
    np.testing.assert_array_equal(read_image(values)[0, 0], image)


def test_16_bit_pgm_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 32768, 65535))
    assert read_image(path)[0, 0, :, 0].tolist() == [127, 255]


@pytest.mark.parametrize(("top", "expected"), [(1.0, 255), (255.0, 255)])
def test_float_tiff_files_are_scaled_by_the_range_of_their_values(tmp_path: Path, top: float, expected: int) -> None:
    image = read_image(save(tmp_path / "a.tif", np.array([[0, top / 2, top]], np.float32)))
    assert image[0, 0, :, 0].tolist() == [0, 127, expected]


def test_grey_palette_and_bilevel_pictures_become_rgb(tmp_path: Path) -> None:
    grey = read_image(save(tmp_path / "g.png", np.array([[0, 77, 255]], np.uint8)))
    assert grey[0, 0].tolist() == [[0] * 3, [77] * 3, [255] * 3]
    colours = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    assert read_image(save(tmp_path / "p.png", colours, "P"))[0].tolist() == colours.tolist()
    assert read_image(save(tmp_path / "1.png", np.array([[0, 255]], np.uint8), "1"))[0, 0, :, 0].tolist() == [0, 255]


def test_transparent_pixels_are_shown_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 51]]], np.uint8)
    for name in ("a.png", "a.webp"):
        image = read_image(save(tmp_path / name, pixels, **({"lossless": True} if name.endswith("webp") else {})))
        assert image[0, 0].tolist() == [[255] * 3, [255, 0, 0], [204] * 3]  # 255 * (1 - 51/255) = 204
    np.testing.assert_array_equal(read_image(pixels), image)


def test_transparent_palette_colours_are_shown_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [[255] * 3, [0, 255, 0]]


def test_an_animation_is_a_clip_and_read_as_an_image_its_first_frame(tmp_path: Path) -> None:
    red, blue = [[[255, 0, 0]] * 4] * 4, [[[0, 0, 255]] * 4] * 4
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_medium(str(tmp_path / "a.gif"), FrameSampling(4)).tolist() == [red, red, blue, blue]
    assert read_image(tmp_path / "a.gif").tolist() == [red]


def test_a_picture_of_one_pixel_is_read(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.png", np.array([[[1, 2, 3]]], np.uint8))).tolist() == [[[[1, 2, 3]]]]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_12000_pixels_wide_is_scaled_down(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (12000, 60), (10, 200, 30)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (1, 10, MAX_SIDE, 3)
    np.testing.assert_allclose(image[0, 5, 1000].astype(int), (10, 200, 30), atol=2)


def test_a_decompression_bomb_is_refused_with_a_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MediaError, match=r"a\.png: too many pixels .* scale it down"):
        read_image(save(tmp_path / "a.png", np.zeros((30, 30, 3), np.uint8)))


def jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad\.jpg: the file is empty \(0 bytes\); replace or remove it"),
        (b"404 not found", r"bad\.jpg: not an image in a format that is read; replace or remove it"),
        (b"\n<!DOCTYPE html>", r"bad\.jpg: it is a web page, not what it shows; download the file itself"),
        (jpeg()[:700], r"bad\.jpg: the image is damaged \(.*truncated.*\); replace or remove it"),
        (jpeg()[:20] + bytes(3000), r"bad\.jpg: .*; replace or remove it"),
        (None, r"bad\.jpg: there is no such file; check"),
    ],
)
def test_errors_about_broken_pictures_name_the_file_and_the_remedy(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=message):
        read_image(path)
    if content is not None:
        with pytest.raises(MediaError, match="<bytes>: "):
            read_image(content)


def test_a_folder_and_wrong_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="a folder, not a file; give an image or a video file"):
        read_image(tmp_path)
    with pytest.raises(MediaError, match="uint8"):
        read_image(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(MediaError, match=r"not \(2, 4, 4, 3\)"):
        read_image(np.zeros((2, 4, 4, 3), np.uint8))


def test_a_file_that_is_no_medium_is_named_for_what_it_is(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.txt", b"dog", "neither an image nor a video that is read; convert or remove it"),
        ("b", b"%PDF-1.7", "it is a PDF document; save its pages as PNG"),
        ("c", b"", r"the file is empty \(0 bytes\); replace or remove it"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=f"{name}: {message}"):
            read_medium(tmp_path / name)
    with pytest.raises(MediaError, match=r"gone\.txt: there is no such file"):
        read_medium(tmp_path / "gone.txt")


GREYS = 20  # frame k of a test clip is grey 10 * k


def clip(path: Path, count: int = GREYS, rate: int = 10, codec: str = "mpeg4") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.options = {"qscale": "1"}
        for k in range(count):
            array = np.full((32, 64, 3), 10 * k, np.uint8)
            array[:, :32] //= 2  # the left half is darker
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return path


def right_grey(frames: np.ndarray) -> list[int]:
    return [round(float(frame[8:24, 40:60].mean()) / 10) for frame in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_frames_are_the_middles_of_equal_parts(tmp_path: Path, suffix: str) -> None:
    frames = read_medium(clip(tmp_path / f"a{suffix}"), FrameSampling(5))
    assert frames.shape == (5, 32, 64, 3)
    assert right_grey(frames) == [2, 6, 10, 14, 18]  # 2 s in 5 parts of .4 s: middles at .2, .6, 1, 1.4, 1.8 s


def test_start_and_end_cut_the_clip(tmp_path: Path) -> None:
    path = str(clip(tmp_path / "a.mp4"))
    # at .75 and 1.25 s
    assert right_grey(read_medium(Medium("a", path, start=0.5, end=1.5), FrameSampling(2))) == [7, 12]
    assert right_grey(read_medium(Medium("a", path, start=1.5, end=99.0), FrameSampling(1))) == [17]
    with pytest.raises(MediaError, match=r"from 3.0 to 4.0 s lies outside the clip of 2\.00 s"):
        read_medium(Medium("a", path, start=3.0, end=4.0))


def test_a_short_clip_repeats_its_frames(tmp_path: Path) -> None:
    assert right_grey(read_medium(clip(tmp_path / "a.mp4", count=2), FrameSampling(4))) == [0, 0, 1, 1]


def test_a_clip_filmed_upright_stands_upright(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    flat = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(
        ">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30
    )  # what a phone writes: 90 clockwise
    content = path.read_bytes()
    track = content.index(b"tkhd")
    before = read_medium(path, FrameSampling(1))[0]
    path.write_bytes(content[:track] + content[track:].replace(flat, turned, 1))
    np.testing.assert_array_equal(read_medium(path, FrameSampling(1))[0], np.rot90(before, -1))
    assert before[:, :24].mean() < 0.6 * before[:, 40:].mean()  # the dark left half, which is now on top


def test_broken_clips_are_refused(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:300])
    (tmp_path / "empty.avi").write_bytes(b"")
    for name, what in (("cut.mp4", "the clip cannot be decoded .*"), ("empty.avi", r"the file is empty \(0 bytes\)")):
        with pytest.raises(MediaError, match=f"{name}: {what}; replace or remove it"):
            read_medium(tmp_path / name)
    with pytest.raises(MediaError, match=r"gone\.mp4: there is no such file"):
        read_medium(tmp_path / "gone.mp4")


def test_augmentations_crop_and_flip_the_frames() -> None:
    frames = np.arange(2 * 20 * 40 * 3, dtype=np.uint8).reshape(2, 20, 40, 3)
    assert AUGMENTATIONS["full"](frames) is frames
    np.testing.assert_array_equal(AUGMENTATIONS["flip"](frames)[:, :, 0], frames[:, :, -1])
    for name, rows, columns in (
        ("crop-tl", slice(0, 17), slice(0, 34)),
        ("crop-tr", slice(0, 17), slice(6, 40)),
        ("crop-bl", slice(3, 20), slice(0, 34)),
        ("crop-br", slice(3, 20), slice(6, 40)),
        ("crop-centre", slice(2, 19), slice(3, 37)),
    ):
        np.testing.assert_array_equal(AUGMENTATIONS[name](frames), frames[:, rows, columns])
        np.testing.assert_array_equal(AUGMENTATIONS[f"flip-{name}"](frames), frames[:, rows, columns][:, :, ::-1])
    assert AUGMENTATIONS["crop-br"](frames[:, :1, :1]).shape == (2, 1, 1, 3)
    assert len(AUGMENTATIONS) == 12


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.mp4"])
def test_bytes_of_a_clip_are_the_clip_of_their_file(tmp_path: Path, name: str):
    path = tmp_path / name
    write(path, greys(6, 20)) if name == "a.mp4" else animate(path, greys(6, 20))
    sampling = FrameSampling(6)
    np.testing.assert_array_equal(frames_of(path.read_bytes(), sampling), read_medium(path, sampling))


def test_a_pil_image_of_an_animation_is_the_frame_that_it_shows_and_says_so(tmp_path: Path):
    notes: list[str] = []
    with Image.open(animate(tmp_path / "a.gif", greys(6, 20))) as image:
        image.seek(2)
        assert shown(frames_of(image, notes=notes), 20) == [2]
    assert notes == ["<GifImageFile>: one of its 6 frames is read; give the path or the bytes to read a clip"]


def test_bytes_of_a_damaged_clip_are_named(tmp_path: Path):
    with pytest.raises(MediaError, match=r"^<bytes>: the clip cannot be decoded"):
        frames_of(b"RIFF....AVI LIST" + bytes(50))
