"""The overlay film: where everything stands on a page, and films that other programs can read."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from limner.core.types import Layout
from limner.data.images import MediaError
from limner.explanations import video
from limner.explanations.explanation_input import DisplayFrames
from limner.explanations.maps import Explanation
from limner.explanations.overlay import heat
from limner.explanations.video import (
    BAR,
    DISPLAY_FPS,
    HIGHLIGHT,
    MARGIN,
    MIN_WIDTH,
    STILL_FRAMES,
    TEXT,
    film_frames,
    pngs_to_mp4,
    write_film,
    write_mp4,
)
from tests.data.videos import greys, noise

WORDS = ("a", "star", "grows")
CELLS = Layout(4, 2, 2)


def explanation(
    words: tuple[str, ...] = WORDS, layout: Layout = CELLS, hot: int | None = None, method: str = "saliency"
) -> Explanation:
    """Nothing stands out, or at every word the cell `hot`."""
    maps = np.zeros((len(words), layout.cells))
    if hot is not None:
        maps[:, hot] = 1
    chances = np.linspace(0.25, 1, len(words))
    return Explanation(" ".join(words), words, maps, layout, method, chances, np.ones(layout.cells, dtype=bool))


def clip(count: int = 4, size: tuple[int, int] = (300, 400)) -> DisplayFrames:
    """Frame k is grey 40 k, at the middle of the k-th of `count` parts of 2 seconds."""
    moments = (np.arange(count) + 0.5) / count
    return DisplayFrames(np.stack(greys(count, 40, size)), moments, 2 * moments)


STILL = DisplayFrames(np.full((1, 300, 400, 3), 90, np.uint8), np.array([0.5]))
LEFT = (400 + 4 * MARGIN + BAR + 42 - 400 - 2 * MARGIN - BAR - 34) // 2  # of a picture 400 wide, see FilmLayout.of


def picture_in(frame: np.ndarray, height: int = 300, width: int = 400) -> np.ndarray:
    return frame[MARGIN : MARGIN + height, LEFT : LEFT + width]


def mark(frame: np.ndarray) -> tuple[int, int, int, int]:
    """Box (x, y, x, y) of the marked word."""
    rows, columns = np.nonzero((frame == HIGHLIGHT).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_the_clip_is_shown_once_for_every_word():
    """Three words and four frames; without weights the picture is as it was."""
    frames = list(film_frames(explanation(), clip()))
    assert len(frames) == 12 and len({frame.shape for frame in frames}) == 1
    assert [int(picture_in(frame).mean()) for frame in frames] == [0, 40, 80, 120] * 3
    assert all(np.ptp(picture_in(frame)) == 0 for frame in frames)
    marks = [mark(frame) for frame in frames]
    assert [len(set(marks[4 * k : 4 * k + 4])) for k in range(3)] == [1, 1, 1]
    assert all(before[2] < after[0] and before[1] == after[1] for before, after in pairwise(marks[::4]))


def test_a_picture_is_held_at_every_word():
    frames = list(film_frames(explanation(layout=Layout(1, 2, 2)), STILL))
    assert len(frames) == 3 * STILL_FRAMES
    assert [mark(frame) for frame in frames[::STILL_FRAMES]] == [
        mark(frame) for frame in frames[STILL_FRAMES - 1 :: STILL_FRAMES]
    ]
    assert len({mark(frame) for frame in frames}) == 3 and (picture_in(frames[0]) == 90).all()


@pytest.mark.parametrize("size", [(300, 401), (301, 400), (9, 33), (700, 13), (1, 1), (64, 64)])
@pytest.mark.parametrize("words", [("one",), ("word",) * 31, ("unpronounceable" * 8, "b")])
def test_frame_sizes_are_even_and_the_sentence_is_complete(size: tuple[int, int], words: tuple[str, ...]):
    shown = DisplayFrames(np.zeros((1, *size, 3), np.uint8), np.array([0.5]))
    frames = list(film_frames(explanation(words, Layout(1, 2, 2)), shown, still_frames=1))
    height, width = frames[0].shape[:2]
    assert height % 2 == width % 2 == 0 and width >= MIN_WIDTH
    found = [mark(frame) for frame in frames]
    assert len(set(found)) == len(words) == len(found)
    assert all(box[3] < height - 20 for box in found)  # a line of facts stands below
    if len(words) == 31:
        lines = sorted({box[1] for box in found})
        assert len(lines) > 2 and np.ptp(np.diff(lines)) == 0 and all(box[2] < width for box in found)
    assert found == sorted(found, key=lambda box: (box[1], box[0]))


def test_other_words_are_bright_letters_on_dark():
    first, *_, last = film_frames(explanation(("MMM", "WWW")), clip())
    x, y, right, bottom = mark(first)
    for frame, marked in ((first, True), (last, False)):
        inside = frame[y : bottom + 1, x : right + 1]
        assert (inside == HIGHLIGHT).all(-1).any() == marked and (inside == TEXT).all(-1).any() != marked


def cursor(frame: np.ndarray, page_width: int = 400) -> tuple[float, int]:
    """Middle column of what is white below the picture, in pixels of the picture; and how many columns."""
    below = frame[MARGIN + 300 : MARGIN + 300 + 40]
    columns = np.nonzero((below == 255).all(-1).any(0))[0]
    return float(columns.mean()) - LEFT, len(columns)


def test_the_cursor_stands_at_the_moment():
    """Moments are 1/8, 3/8, 5/8, 7/8 of 399 pixels."""
    frames = list(film_frames(explanation(("a",)), clip()))
    for frame, share in zip(frames, (1, 3, 5, 7), strict=True):
        middle, count = cursor(frame)
        assert middle == pytest.approx(399 * share / 8, abs=0.5) and count == 3
    for frame in (
        next(film_frames(explanation(("a",), Layout(1, 2, 2)), clip())),
        next(film_frames(explanation(("a",)), STILL)),
    ):
        assert not (frame[MARGIN + 300 :] == 255).all(-1).any()  # cells without a time, or a picture: no course


def test_the_timeline_shows_when_a_word_has_its_weight():
    """The only cell with weight is in the third of four parts: full in its middle, nothing in those beside it."""
    frame = next(film_frames(explanation(("a",), hot=8), clip()))
    below = frame[MARGIN + 300 : MARGIN + 300 + 40, LEFT : LEFT + 400].astype(int)
    row = next(r for r in range(1, 39) if (below[r - 1 : r + 2, 40:] != below[0, 0]).any(-1).all())
    coloured = np.ptp(below[row], axis=-1) > 20  # 60 60 60 is grey
    assert coloured[250] and not coloured[60:150].any() and not coloured[351:].any()


def test_heat_lies_on_the_cell_while_it_lasts():
    """The upper left of 2 x 2 cells in the third of four parts."""
    frames = list(film_frames(explanation(("a",), hot=8), clip()))
    change = [np.abs(picture_in(frame).astype(int) - 40 * k).max(-1) for k, frame in enumerate(frames)]
    assert [bool(pixels.any()) for pixels in change] == [False, False, True, False]
    assert change[2][:75, :100].min() > 50 and change[2][225:].max() < 15 and change[2][:, 300:].max() < 15


def test_a_map_without_time_is_shown_in_every_frame():
    frames = list(film_frames(explanation(("a",), Layout(1, 2, 2), hot=0), clip()))
    assert all((picture_in(frame)[:140, :190] != 40 * k).any(-1).all() for k, frame in enumerate(frames))


def test_the_colour_bar_shows_the_scale():
    """Beside the picture, the highest value above and the average below."""
    frame = next(film_frames(explanation(), clip()))
    bar = frame[MARGIN : MARGIN + 300, LEFT + 400 + MARGIN : LEFT + 400 + MARGIN + BAR]
    expected = heat(np.full((1, 2, 3), 110, np.uint8), np.array([[1.0, 0.0]]))[0]
    assert (bar[0] == expected[0]).all() and (bar[-1] == expected[1]).all() and (bar == bar[:, :1]).all()


def test_the_footer_names_method_word_and_probability():
    found = explanation(hot=3)
    assert video._footer(found, 1) == "saliency · word 2 of 3 · probability 0.62 · peak 16.0 x average"
    assert video._footer(explanation(), 0).endswith("probability 0.25 · nothing stands out")


# --- files ------------------------------------------------------------------------------------------------------------


def decoded(path: Path) -> tuple[list[np.ndarray], av.VideoStream]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], container.streams.video[0]


def far(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def test_mp4_films_are_written(tmp_path: Path):
    found, expected = explanation(hot=8), list(film_frames(explanation(hot=8), clip()))
    assert write_film(found, clip(), tmp_path / "new" / "f.MP4") == tmp_path / "new" / "f.MP4"
    frames, stream = decoded(tmp_path / "new" / "f.MP4")
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert stream.average_rate == DISPLAY_FPS and len(frames) == 12
    for number, frame in enumerate(frames):
        assert far(frame, expected[number]) < 4 < far(frame, expected[number - 1])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f.MP4"]


def test_odd_sides_get_a_row_and_a_column_more(tmp_path: Path):
    ramp = np.broadcast_to(np.linspace(0, 250, 33).astype(np.uint8)[:, None, None], (33, 17, 3))
    write_mp4(tmp_path / "f.mp4", [ramp] * 3, fps=5)
    frames, stream = decoded(tmp_path / "f.mp4")
    assert len(frames) == 3 and stream.average_rate == 5
    assert frames[0].shape == (34, 18, 3) and far(frames[0][:33, :17], ramp) < 5
    assert frames[0][33].mean() == pytest.approx(250, abs=8) and far(frames[0][:33, 17:], ramp[:, :1]) < 5


def test_gif_films_are_written(tmp_path: Path):
    """Every second of 3 x 4 frames, which takes as long; a picture 1.2 s at each word."""
    expected = list(film_frames(explanation(hot=8), clip()))[::2]
    write_film(explanation(hot=8), clip(), tmp_path / "f.gif")
    with Image.open(tmp_path / "f.gif") as image:
        assert image.n_frames == 6 and image.info["loop"] == 0
        for number, frame in enumerate(expected):
            image.seek(number)
            assert image.info["duration"] == 130  # hundredths of a second are the finest that there are
            assert far(np.asarray(image.convert("RGB")), frame) < 6
    write_film(explanation(layout=Layout(1, 2, 2)), STILL, tmp_path / "still.gif")
    with Image.open(tmp_path / "still.gif") as image:
        assert (image.n_frames, image.info["duration"]) == (3, 1200)


def test_a_folder_of_png_frames_is_written(tmp_path: Path):
    folder = tmp_path / "new" / "frames"
    assert write_film(explanation(hot=8), clip(), folder) == folder
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{k:06}.png" for k in range(12)]
    for file, frame in zip(files, film_frames(explanation(hot=8), clip()), strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), frame)
    assert [path.name for path in folder.parent.iterdir()] == ["frames"]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("stays")
    write_film(explanation(layout=Layout(1, 2, 2)), STILL, tmp_path / "there")
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        "000000.png", "000001.png", "000002.png", "notes.txt",
    ]  # fmt: skip


def test_a_folder_with_pictures_is_refused(tmp_path: Path):
    Image.new("RGB", (2, 2)).save(tmp_path / "mine.png")
    with pytest.raises(FileExistsError, match="already holds PNG files, which would be mixed"):
        write_film(explanation(), clip(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


ENDINGS = ["f.mp4", "f.gif", "folder"]


@pytest.mark.parametrize("name", ENDINGS)
def test_an_empty_sentence_writes_no_film(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="the caption is empty, so there is no word to explain: give a sentence"):
        write_film(explanation(()), clip(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ENDINGS)
def test_nothing_is_left_of_an_interrupted_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """The third frame cannot be made; what was there before stays."""

    def breaking(*_: object, **__: object) -> Iterator[np.ndarray]:
        yield from greys(2)
        raise OSError("no more")

    monkeypatch.setattr(video, "film_frames", breaking)
    if name != "folder":
        (tmp_path / name).write_bytes(b"before")
    with pytest.raises(OSError, match="no more"):
        write_film(explanation(), clip(), tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if name == "folder" else [b"before"])


def test_png_files_become_an_mp4_in_the_order_of_their_names(tmp_path: Path):
    """A frame per file in the order of names; the files stay."""
    for number, frame in enumerate(greys(5, 50)):
        Image.fromarray(frame).save(tmp_path / f"{(3 * number) % 5}.png")  # 0, 3, 1, 4, 2
    Image.new("L", (64, 32), 250).save(tmp_path / "9 grey.png")
    (tmp_path / "notes.txt").write_text("")
    assert pngs_to_mp4(tmp_path, tmp_path / "f.mp4", fps=7) == 6
    frames, stream = decoded(tmp_path / "f.mp4")
    assert stream.average_rate == 7
    assert [frame.mean() for frame in frames] == pytest.approx([0, 100, 200, 50, 150, 250], abs=4)
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_a_folder_of_frames_becomes_the_same_film(tmp_path: Path):
    write_film(explanation(hot=8), clip(), tmp_path / "frames")
    pngs_to_mp4(tmp_path / "frames", tmp_path / "f.mp4")
    frames, stream = decoded(tmp_path / "f.mp4")
    assert stream.average_rate == DISPLAY_FPS
    assert all(far(a, b) < 4 for a, b in zip(frames, film_frames(explanation(hot=8), clip()), strict=True))


def test_frames_of_different_sizes_and_empty_folders_are_refused(tmp_path: Path):
    out = tmp_path / "f.mp4"
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"holds no \.png files to make a film from"):
            pngs_to_mp4(folder, out)
    Image.new("RGB", (8, 6)).save(tmp_path / "0.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "1.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"2\.png has 8 x 9 pixels but .*0\.png has 8 x 6: all frames"):
        pngs_to_mp4(tmp_path, out)
    Image.fromarray(noise(1)[0]).save(tmp_path / "2.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:2000])
    with pytest.raises(MediaError, match=r"2\.png: the image is damaged"):
        pngs_to_mp4(tmp_path, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
