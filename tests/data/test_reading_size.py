"""Large images are read at a fraction of their size: an encoder sees nearly the same; small ones keep every pixel."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin

from limner.core.types import Medium
from limner.data.augmentations import AUGMENTATIONS
from limner.data.batches import from_files
from limner.data.frames import FrameSampling
from limner.data.images import LARGE, read_image
from limner.data.media import frames_of, read_medium
from limner.encoders import SmallCNNConfig, build_encoder
from limner.encoders.extract import ExtractionJob, _load_frames
from limner.inference.onnx.pixels import Preprocess

SIDE = 160


def photograph(width: int, height: int) -> Image.Image:
    """Something with the spectrum of a photograph: noise of every size, the coarse stronger than the fine."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for step in range(2, 11):
        small = rng.normal(0, 2.0**step / 32, (height // 2**step + 2, width // 2**step + 2, 3)).clip(-60, 60)
        scaled = Image.fromarray((128 + small).clip(0, 255).astype(np.uint8)).resize((width, height), 3)
        total += np.asarray(scaled, np.float32) - 128
    return Image.fromarray((128 + total).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def resized(frame: np.ndarray, side: int = SIDE) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)).astype(int)


@pytest.fixture(scope="module")
def large() -> Image.Image:
    return photograph(2400, 1800)


@pytest.mark.parametrize(("format", "shape"), [("JPEG", (450, 600)), ("PNG", (360, 480)), ("WEBP", (360, 480))])
def test_a_large_image_is_read_at_twice_the_size_that_is_needed(
    large: Image.Image, format: str, shape: tuple[int, int]
) -> None:
    """1800 / 320 = 5.6: libjpeg decodes at 1/4, and 450 / 320 is less than 2; other formats are divided by 5."""
    options = {"method": 0} if format == "WEBP" else {"compress_level": 1} if format == "PNG" else {"quality": 92}
    content = encoded(large, format, **options)
    full, reduced = read_image(content)[0], read_image(content, side=SIDE)[0]
    assert reduced.shape == (*shape, 3)
    difference = np.abs(resized(full) - resized(reduced))
    assert resized(full).std() > 20  # there is something to see
    assert difference.mean() < 1 and difference.max() <= 20


def test_images_as_large_as_those_of_data_sets_keep_every_pixel() -> None:
    """640 x 480 is COCO's, 500 x 375 Flickr's; 1600 x 1200 has 1.92 million pixels."""
    for width, height in ((500, 375), (640, 480), (1600, 1200)):
        assert width * height < LARGE
        content = encoded(photograph(width, height), "JPEG")
        for side in (16, 64, SIDE):
            np.testing.assert_array_equal(read_image(content, side=side), read_image(content))


def test_a_size_that_leaves_nothing_to_reduce_changes_nothing(large: Image.Image) -> None:
    content = encoded(large, "JPEG")
    np.testing.assert_array_equal(read_image(content, side=480), read_image(content))  # 1800 / 960 = 1.9


def test_an_image_on_its_side_is_reduced_and_stands_upright(large: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(large.rotate(90, expand=True), "JPEG", exif=exif)
    upright = read_image(turned, side=SIDE)[0]
    assert upright.shape == (450, 600, 3)
    assert np.abs(resized(upright) - resized(read_image(encoded(large, "JPEG"), side=SIDE)[0])).mean() < 1


def test_grey_and_transparent_images_are_reduced_too() -> None:
    values = np.linspace(0, 4095, 1800 * 1600).reshape(1800, 1600).astype(np.uint16)
    grey = read_image(encoded(Image.fromarray(values), "PNG", compress_level=1), side=SIDE)[0]
    assert grey.shape == (360, 320, 3) and grey.min() < 3 and grey.max() > 252
    pixels = np.zeros((1600, 1600, 4), np.uint8)
    pixels[:, :, 3] = 51
    shown = read_image(encoded(Image.fromarray(pixels), "PNG", compress_level=1), side=SIDE)[0]
    assert shown.shape == (320, 320, 3) and np.unique(shown).tolist() == [204]  # 255 * (1 - 51/255)


def test_every_reader_asks_for_the_size_that_it_needs(
    tmp_path: Path, large: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(large, "JPEG"))
    sizes: list[tuple[int, int]] = []
    load = JpegImagePlugin.JpegImageFile.load

    def noting(self: JpegImagePlugin.JpegImageFile) -> object:
        sizes.append(self.size)
        return load(self)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", noting)
    encoder = build_encoder(SmallCNNConfig(size=64, width=8, dim=8))
    medium = Medium("a", str(path))
    assert encoder.reading_side() == 64

    def decoded(read: object) -> tuple[int, int]:
        sizes.clear()
        read()  # type: ignore[operator]
        return sizes[0]

    reader = from_files(encoder.preprocess, side=encoder.reading_side())
    assert decoded(lambda: reader([(medium, "full")])) == (300, 225)  # 1/8
    assert decoded(lambda: _load_frames(ExtractionJob(medium, "full"), encoder, FrameSampling())) == (300, 225)
    assert decoded(lambda: frames_of(medium, side=Preprocess(size=(64, 96)).reading_side)) == (300, 225)
    assert decoded(lambda: frames_of(medium, side=Preprocess(edge=256, crop=(224, 224)).reading_side)) == (1200, 900)
    assert decoded(lambda: read_medium(medium)) == (2400, 1800)


def test_a_crop_is_cut_from_an_image_that_stays_large_enough(tmp_path: Path, large: Image.Image) -> None:
    """For 110 pixels 1800 / 220 = 8.2 allows 1/8; for a crop of .85 of the side it is 1800 / 260 = 6.9, so 1/4."""
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(large, "JPEG"))
    seen: list[tuple[int, ...]] = []

    def preprocess(frames: np.ndarray) -> torch.Tensor:
        seen.append(frames.shape[1:3])
        return torch.zeros(1, 3, 4, 4)

    read = from_files(preprocess, side=110)
    for augmentation in ("full", "flip-crop-centre"):
        read([(Medium("a", str(path)), augmentation)])
    assert seen == [(225, 300), AUGMENTATIONS["flip-crop-centre"](np.zeros((1, 450, 600, 3), np.uint8)).shape[1:3]]
