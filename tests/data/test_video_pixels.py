"""Pixels as players show them: orientation, shape of pixels, transparency, colours."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from limner.core.types import Medium
from limner.data.clips import index_clip, read_clip
from limner.data.frames import FrameSampling
from limner.data.shots import colour_histograms
from limner.data.video_pixels import plausible_aspect, rgb_pixels, upright
from limner.explanations.explanation_input import display_frames
from tests.data.videos import with_matrix, write

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
NAMES = {RED: "r", GREEN: "g", BLUE: "b", WHITE: "w"}


def quarters(height: int = 64, width: int = 96) -> np.ndarray:
    """Red, green / blue, white."""
    image = np.zeros((height, width, 3), np.uint8)
    for rows, columns, colour in ((0, 0, RED), (0, 1, GREEN), (1, 0, BLUE), (1, 1, WHITE)):
        image[rows * height // 2 :, columns * width // 2 :] = colour
    image[height // 2 :, : width // 2] = BLUE
    return image


def corners(image: np.ndarray) -> str:
    """The colours of the quarters, row by row: `rg/bw`."""
    height, width = image.shape[:2]
    found = []
    for y, x in ((1, 1), (1, 3), (3, 1), (3, 3)):
        pixel = image[y * height // 4, x * width // 4].astype(int)
        found.append(NAMES[min(NAMES, key=lambda colour: np.abs(pixel - colour).sum())])
    return "{}{}/{}{}".format(*found)


@pytest.mark.parametrize(
    ("matrix", "expected", "shape"),
    [
        ((1, 0, 0, 1), "rg/bw", (64, 96)),
        ((-1, 0, 0, 1), "gr/wb", (64, 96)),  # mirrored, as front cameras write it
        ((1, 0, 0, -1), "bw/rg", (64, 96)),
        ((-1, 0, 0, -1), "wb/gr", (64, 96)),
        ((0, 1, -1, 0), "br/wg", (96, 64)),  # 90 degrees clockwise, as phones write it
        ((0, -1, 1, 0), "gw/rb", (96, 64)),
        ((0, 1, 1, 0), "rb/gw", (96, 64)),  # mirrored at one diagonal
        ((0, -1, -1, 0), "wg/br", (96, 64)),  # and at the other
    ],
)
def test_all_eight_display_matrices_are_applied(tmp_path: Path, matrix, expected: str, shape: tuple[int, int]):
    """In reading, and in the frames that an explanation shows."""
    path = with_matrix(tmp_path / "b.mp4", write(tmp_path / "a.mp4", [quarters()] * 5), *matrix)
    frames = read_clip(path, FrameSampling(2))
    assert frames.shape[1:3] == shape and [corners(frame) for frame in frames] == [expected] * 2
    shown = display_frames(Medium("b", str(path)), None, FrameSampling(2)).frames
    assert shown.shape[1:3] == shape and corners(shown[0]) == expected


def anamorphic(path: Path, codec: str, aspect: Fraction, size: tuple[int, int] = (96, 96)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(*size), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "aspect", "shape"),
    [
        ("a.mp4", "libx264", Fraction(64, 45), (96, 137)),  # 96 * 64 / 45 = 136.5
        ("a.mkv", "libx264", Fraction(4, 3), (96, 128)),
        ("a.ts", "libx264", Fraction(1, 2), (192, 96)),  # no pixel is lost: the other side grows
        ("a.mpg", "mpeg2video", Fraction(4, 3), (96, 128)),
        ("a.mkv", "libx264", Fraction(400), (96, 96)),  # nonsense
    ],
)
def test_pixels_become_square(tmp_path: Path, name: str, codec: str, aspect: Fraction, shape: tuple[int, int]):
    path = anamorphic(tmp_path / name, codec, aspect)
    frames = read_clip(path, FrameSampling(2))
    assert frames.shape[1:3] == shape and corners(frames[0]) == "rg/bw"
    assert max(read_clip(path, FrameSampling(1), max_side=48).shape[1:3]) == 48


def test_pixels_become_square_before_the_frame_is_turned(tmp_path: Path):
    """96 x 96 pixels of 2:1, turned by 90 degrees: 96 wide, 192 high."""
    path = with_matrix(tmp_path / "b.mp4", anamorphic(tmp_path / "a.mp4", "libx264", Fraction(2)), 0, 1, -1, 0)
    frame = read_clip(path, FrameSampling(1))[0]
    assert frame.shape[:2] == (192, 96) and corners(frame) == "br/wg"


def test_an_aspect_that_is_missing_or_absurd_is_one():
    assert [plausible_aspect(ratio) for ratio in (None, Fraction(0), Fraction(1, 400), Fraction(400))] == [1] * 4
    assert plausible_aspect(Fraction(64, 45)) == Fraction(64, 45)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "qtrle", "argb"),
        ("b.mov", "prores_ks", "yuva444p10le"),
        ("a.mkv", "ffv1", "bgra"),
    ],
)
def test_transparent_pixels_of_a_clip_are_shown_on_white(tmp_path: Path, name: str, codec: str, pixel_format: str):
    """Left opaque red; right black, above transparent, below with opacity 51 of 255: 255 * (1 - 51/255) = 204."""
    rgba = np.zeros((32, 64, 4), np.uint8)
    rgba[:, :32] = (200, 0, 0, 255)
    rgba[16:, 32:, 3] = 51
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 64, pixel_format
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    frame = read_clip(path, FrameSampling(1))[0].astype(int)
    for (y, x), colour in (((16, 8), (200, 0, 0)), ((4, 56), (255, 255, 255)), ((28, 56), (204, 204, 204))):
        np.testing.assert_allclose(frame[y, x], colour, atol=4)
    histogram = next(colour_histograms(index_clip(path)))[1]
    assert histogram[511] == pytest.approx(0.25, abs=0.05)  # a quarter is white for the detection of shots too


@pytest.mark.parametrize(
    ("size", "tag", "matrix"),
    [
        ((720, 1280), 1, "709"),
        ((720, 1280), 5, "601"),
        ((720, 1280), 6, "601"),
        ((720, 1280), 9, "2020"),
        ((720, 1280), 2, "709"),  # untagged HD
        ((240, 320), 1, "709"),
        ((240, 320), 5, "601"),
        ((240, 320), 2, "601"),  # untagged SD
    ],
)
def test_colours_go_by_the_tag_and_without_one_by_the_size(size: tuple[int, int], tag: int, matrix: str):
    """Y = 120, Cb = 90, Cr = 170 of the limited range, by hand with Kr and Kb of ITU-R BT.601, BT.709 and BT.2020."""
    frame = av.VideoFrame(size[1], size[0], "yuv420p")
    for plane, value in zip(frame.planes, (120, 90, 170), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range = tag, 1
    kr, kb = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}[matrix]
    y, cb, cr = (120 - 16) / 219, (90 - 128) / 224, (170 - 128) / 224
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    expected = [255 * value for value in (red, (y - kr * red - kb * blue) / (1 - kr - kb), blue)]
    np.testing.assert_allclose(rgb_pixels(frame)[100, 100].astype(float), expected, atol=2)


def test_rgb_and_grey_frames_keep_their_values():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(upright(av.VideoFrame.from_ndarray(pixels, format="rgb24")), pixels)
    np.testing.assert_array_equal(
        upright(av.VideoFrame.from_ndarray(pixels[..., 0], format="gray"))[..., 2], pixels[..., 0]
    )
