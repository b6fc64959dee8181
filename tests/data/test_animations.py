"""Animations are clips wherever a clip may stand: GIF, WebP, APNG and AVIF files of several frames."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from limner.data import animations
from limner.data.animations import is_animation
from limner.data.clip_folder import clip_files
from limner.data.clips import index_clip, read_clip
from limner.data.frames import FrameSampling
from limner.data.images import MediaError
from limner.data.media import is_clip, read_medium
from limner.data.shots import detect_shots
from tests.data.videos import animate, greys, shown, write

ANIMATED = [
    "a.gif",
    "a.webp",
    "a.png",
    pytest.param("a.avif", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")),
]


@pytest.mark.parametrize("name", ANIMATED)
def test_the_frames_of_an_animation_are_those_on_screen(tmp_path: Path, name: str):
    """The first of ten frames is black, as is usual; the last one stays for 1.1 of 2 s."""
    path = animate(tmp_path / name, greys(10, step=25), [100] * 9 + [1100])
    clip = index_clip(path)
    assert is_clip(path) and clip.is_animation and clip.note == ""
    assert [clip.to_seconds(stamp) for stamp in clip.timestamps] == pytest.approx([k / 10 for k in range(10)])
    assert clip.span == (0, 2)
    assert shown(read_medium(path, FrameSampling(4)), 25) == [2, 7, 9, 9]
    assert shown(read_clip(path, FrameSampling(3, "head"), start=0.5), 25) == [5, 6, 7]
    assert shown(read_clip(path, FrameSampling(4, "every", 3)), 25) == [0, 3, 6, 9]


@pytest.mark.parametrize("name", ANIMATED)
def test_the_shots_of_an_animation_are_found(tmp_path: Path, name: str):
    red, green = (np.full((32, 48, 3), colour, np.uint8) for colour in ((220, 20, 20), (20, 200, 40)))
    noise = [np.roll(red, 0) + (k % 2) for k in range(12)]  # equal frames would be stored as one
    path = animate(tmp_path / name, [*noise, *(green + (k % 2) for k in range(15))])
    assert detect_shots(index_clip(path)) == [(0, pytest.approx(1.2)), (pytest.approx(1.2), pytest.approx(2.7))]


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_transparent_pixels_of_an_animation_are_shown_on_white(tmp_path: Path, name: str):
    pictures = []
    for grey in (0, 100):
        rgba = np.full((4, 4, 4), grey, np.uint8)
        rgba[:, :2, 3], rgba[:, 2:, 3] = 51, 255
        pictures.append(rgba)
    frames = read_clip(animate(tmp_path / name, pictures), FrameSampling(2))
    assert frames[:, 0, 0, 0].tolist() == [204, 224] and frames[:, 0, 3, 0].tolist() == [0, 100]


def test_a_gif_without_a_pace_is_shown_as_browsers_do(tmp_path: Path):
    """A frame of 0 or 10 ms is shown for 100 ms, one of 20 ms for 20 ms."""
    assert index_clip(animate(tmp_path / "a.gif", greys(4), [0, 10, 20, 500])).timestamps.tolist() == [0, 100, 200, 220]
    assert index_clip(tmp_path / "a.gif").end == 720


def test_a_frame_that_claims_hours_is_bounded(tmp_path: Path):
    clip = index_clip(animate(tmp_path / "a.png", greys(3), [65_000_000, 100, 100]))
    assert clip.end == 300 and clip.note == "a frame claims 65000 s; it counts as 0.1 s"


def test_an_animation_is_told_by_its_content_not_its_name(tmp_path: Path):
    path = animate(tmp_path / "a.gif", greys(4))
    for name in ("a.mp4", "a.jpg"):
        shutil.copy(path, tmp_path / name)
        assert is_clip(tmp_path / name) and shown(read_medium(tmp_path / name, FrameSampling(4))) == [0, 1, 2, 3]


def test_still_images_and_other_files_are_no_animations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image = Image.fromarray(greys(2)[1])
    for name in ("a.gif", "a.png", "a.webp", "a.jpg", "b.png"):
        image.save(tmp_path / name)
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:12])
    (tmp_path / "text.gif").write_text("GIF89a, a text about GIF")
    write(tmp_path / "a.mp4", greys(3))
    names = [path.name for path in tmp_path.iterdir()] + ["gone.gif", "."]
    assert [name for name in names if is_animation(tmp_path / name)] == []
    opened, was = [], Image.open
    monkeypatch.setattr(animations.Image, "open", lambda *given, **named: opened.append(given) or was(*given, **named))
    for name in ("a.png", "a.webp", "a.jpg", "a.mp4"):
        is_animation(tmp_path / name)
    assert opened == []  # their first bytes are enough


def test_text_before_the_frames_of_a_png_is_skipped(tmp_path: Path):
    for length in (5000, 3_000_000):  # Pillow refuses the longer one
        text = PngImagePlugin.PngInfo()
        text.add_text("note", "x" * length, zip=True)
        images = [Image.fromarray(picture) for picture in greys(3)]
        images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], duration=100, pnginfo=text)
        assert is_animation(tmp_path / "a.png") and is_animation((tmp_path / "a.png").read_bytes())
        assert shown(read_clip(tmp_path / "a.png", FrameSampling(3))) == [0, 1, 2]


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_the_readable_part_of_a_truncated_animation_is_read_and_noted(tmp_path: Path, name: str):
    pictures = [np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8) for k in range(10)]
    path = animate(tmp_path / name, pictures)
    whole = read_clip(path, FrameSampling(10))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    notes: list[str] = []
    found = read_clip(path, FrameSampling(4, "head"), notes=notes)
    np.testing.assert_array_equal(found, whole[:4])
    assert len(notes) == 1 and notes[0].startswith(f"{path}: truncated: ")
    assert 0.3 < index_clip(path).duration < 0.7


def test_animations_lie_among_the_clips_of_a_data_set(tmp_path: Path):
    """TGIF has GIF files; a still image beside them, a thumbnail, is none."""
    animate(tmp_path / "one.gif", greys(3))
    write(tmp_path / "two.mp4", greys(3))
    Image.fromarray(greys(1)[0]).save(tmp_path / "three.gif")
    Image.fromarray(greys(1)[0]).save(tmp_path / "two.png")
    assert clip_files(tmp_path) == {"one": str(tmp_path / "one.gif"), "two": str(tmp_path / "two.mp4")}


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_frame_that_claims_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, ending: str):
    """A GIF grows with its second frame: byte 6 of the image descriptor is its height; a WebP has one canvas."""
    path = animate(tmp_path / f"a.{ending}", greys(2))
    data = bytearray(path.read_bytes())
    if ending == "gif":
        second = data.index(b"\x2c", data.index(b"\x2c") + 1)
        data[second + 5 : second + 9] = (6000).to_bytes(2, "little") * 2
    else:
        data[24:30] = (5999).to_bytes(3, "little") * 2
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"has \d+ x \d+ pixels, [\d,]+ in all, and at most 25,000,000 are decoded"):
        index_clip(path)
