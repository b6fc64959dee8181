"""Attention laid over the picture: weights, shares and panels worked out by hand."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner.core.types import Layout
from limner.explanations import figure
from limner.explanations.explanation_input import DisplayFrames
from limner.explanations.figure import attention_figure, enlarge, half_weight_level, strip_figure, word_figure
from limner.explanations.maps import Explanation
from limner.explanations.overlay import shade, upsample
from limner.inference.pipeline import Caption
from tests.data.videos import greys


def caption(words: tuple[str, ...], cells: int = 4, frames: int = 1) -> Caption:
    """Every word looks at one cell more to the right than the word before."""
    maps = np.zeros((len(words), frames, cells, cells), np.float32)
    for k in range(len(words)):
        maps[k, 0, 0, k % cells] = 1
    return Caption(" ".join(words), -1.0, words, maps)


def test_even_weights_are_1_everywhere_and_none_are_0():
    assert upsample(np.full((3, 5), 0.2, np.float32), 30, 50) == pytest.approx(np.ones((30, 50)))
    assert not upsample(np.zeros((3, 5), np.float32), 30, 50).any()


def test_a_single_cell_lies_where_it_should():
    """Cell (1, 2) of 3 x 4 covers rows 10..19 and columns 20..29 of 30 x 40 pixels."""
    weights = np.zeros((3, 4), np.float32)
    weights[1, 2] = 0.7
    values = upsample(weights, 30, 40)
    assert values.max() == 1 and values.min() == 0
    assert {int(i) for i in np.argwhere(values > 0.9)[:, 0]} <= set(range(10, 20))
    assert {int(j) for j in np.argwhere(values > 0.9)[:, 1]} <= set(range(20, 30))
    centre = (values * np.arange(40)).sum() / values.sum(), (values.T * np.arange(30)).sum() / values.sum()
    assert centre == pytest.approx((24.5, 14.5), abs=0.3)  # 0.3: the bicubic kernel's negative lobes are cut


def test_weights_lie_in_the_region_that_the_encoder_kept():
    """300 x 100 pixels of which the middle third was seen: even weights are 1 in columns 100..199 and 0 elsewhere."""
    values = upsample(np.full((7, 7), 1 / 49, np.float32), 100, 300, (1 / 3, 0, 2 / 3, 1))
    expected = np.zeros((100, 300))
    expected[:, 100:200] = 1
    assert values == pytest.approx(expected)
    assert half_weight_level(values) == (1, pytest.approx(1 / 6, abs=1e-3))  # half of a third


def test_a_kept_region_beyond_the_picture_is_cut():
    """Padding above and below: of 4 rows of cells the middle two lie on the picture."""
    weights = np.array([[0.0], [1.0], [0.0], [0.0]], np.float32)
    values = upsample(weights, 20, 10, (0, -0.5, 1, 1.5))
    assert values.shape == (20, 10) and values[:10].mean() > 4 * values[10:].mean()
    assert values[:, 0].argmax() in (4, 5)


def test_the_smallest_area_with_half_of_the_weight_by_hand():
    assert half_weight_level(np.array([[4.0, 3.0], [2.0, 1.0]])) == (3, 0.5)  # 4 is less than 5 of 10, 4 + 3 is not
    assert half_weight_level(np.array([[10.0, 0.0, 0.0, 0.0]])) == (10, 0.25)
    assert half_weight_level(np.ones((2, 5))) == (1, 0.5)
    assert half_weight_level(np.zeros((2, 2))) == (0, 1)


def test_shade_by_hand():
    """Grey of (200, 100, 0) is 100, so unseen it is a quarter of 0.4 * (200, 100, 0) + 60 = (140, 100, 60)."""
    picture = np.array([[[200, 100, 0]] * 3], np.uint8)
    shaded = shade(picture, np.array([[1.0, 0.0, 0.5]], np.float32))
    assert shaded.tolist() == [[[200, 100, 0], [35, 25, 15], [117, 62, 7]]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (224, 224)), ((64, 128), (224, 448)), ((100, 400), (160, 640)), ((2000, 1000), (640, 320))],
)
def test_enlarge_keeps_the_aspect(size: tuple[int, int], expected: tuple[int, int]):
    """Its left half is dark and its right half light, before and after."""
    picture = np.full((*size, 3), 200, np.uint8)
    picture[:, : size[1] // 2] = 70
    found, quarter = enlarge(picture), expected[1] // 4
    assert found.shape == (*expected, 3) and (found[:, -quarter:] == 200).all()
    assert (found[:, :quarter] == (70 if size[1] > 1 else 200)).all()
    right = np.zeros((224, 300, 3), np.uint8)
    assert enlarge(right) is right


@pytest.mark.parametrize("words", [(), ("red",), ("a", "red", "circle", "above", "$5", "$x_1$"), ("long",) * 40])
def test_a_panel_per_word_and_one_for_the_picture(tmp_path: Path, words: tuple[str, ...]):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters stay letters
        attention_figure(np.zeros((30, 40, 3), np.uint8), caption(words), tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text(encoding="utf-8")
    assert len(re.findall(r"<image ", text)) == len(words) + 1
    legend = "Outlined: the smallest area that holds half of the attention; number: its share of the image"
    lines = re.findall(r">([^<>]*)<", text)
    assert (legend in " ".join(line for line in lines if line.strip())) == bool(words)
    shown = re.findall(r">([^<>]*) {1,2}\(\d+%\)<", text)
    assert [word.strip() for word in shown] == list(words)


def test_the_share_is_of_the_whole_picture(tmp_path: Path):
    """Even weights over the middle third: half of them takes a sixth, 17 %."""
    import matplotlib

    even = Caption("all", -1.0, ("all",), np.full((1, 1, 4, 4), 1 / 16, np.float32))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        for kept_region, share in (((1 / 3, 0, 2 / 3, 1), "17%"), ((0, 0, 1, 1), "50%")):
            attention_figure(np.zeros((224, 600, 3), np.uint8), even, tmp_path / "f.svg", kept_region=kept_region)
            assert f"({share})" in (tmp_path / "f.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (10, 2000)])
def test_pictures_of_unusual_sizes_are_drawn(tmp_path: Path, size: tuple[int, int]):
    attention_figure(np.zeros((*size, 3), np.uint8), caption(("a", "b")), tmp_path / "f.png")
    width, height = Image.open(tmp_path / "f.png").size
    assert width == round(2.3 * 3 * 120) and height <= 960  # 0.55 + 3 * 2.3 + 0.35 inches, and 0.2 for the note


def test_invalid_outputs_are_refused(tmp_path: Path):
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"f\.bmp: the ending chooses the format; known are \.png"):
        attention_figure(picture, caption(("a",)), tmp_path / "f.bmp")
    with pytest.raises(ValueError, match=r"f\.mp4: the ending chooses the format"):
        strip_figure(clip(2), explanation(np.zeros((1, 2)), Layout(2, 1, 1)), tmp_path / "f.mp4")
    with pytest.raises(ValueError, match="the caption is empty, so there is no word to explain: give a sentence"):
        strip_figure(clip(2), explanation(np.zeros((0, 2)), Layout(2, 1, 1)), tmp_path / "f.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_s_cells_that_have_a_time_are_summed(tmp_path: Path):
    """As a video network has them: the figure is that of the sum, to the last byte."""
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    timed = np.random.default_rng(1).random((2, 3, 4, 4)).astype(np.float32)
    for name, maps in (("timed", timed), ("summed", timed.sum(1, keepdims=True)), ("first", timed[:, :1])):
        attention_figure(picture, Caption("a b", -1.0, ("a", "b"), maps), tmp_path / f"{name}.png")
    assert (tmp_path / "timed.png").read_bytes() == (tmp_path / "summed.png").read_bytes()
    assert (tmp_path / "timed.png").read_bytes() != (tmp_path / "first.png").read_bytes()


def svg(path: Path, draw: Callable[[Path], object]) -> str:
    """With letters that stay letters."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw(path)
    return path.read_text(encoding="utf-8")


def test_the_figure_says_what_outline_and_number_mean(tmp_path: Path):
    """One line for four panels, two for two panels, none without words; a strip explains its colours."""
    picture, maps = np.zeros((30, 40, 3), np.uint8), np.eye(3, 4)
    share = "number: its share of the image"
    for words, lines in (
        (3, [f"Outlined: the smallest area that holds half of the gradcam values above their mean; {share}"]),
        (1, ["Outlined: the smallest area that holds half of the gradcam values", f"above their mean; {share}"]),
        (0, []),
    ):
        made = explanation(maps[:words], Layout(1, 2, 2))
        text = svg(tmp_path / "f.svg", lambda path, made=made: word_figure(picture, made, path))
        assert re.findall(r">((?:Outlined|above)[^<]*)<", text) == lines
    text = svg(tmp_path / "a.svg", lambda path: attention_figure(picture, caption(("a", "b", "c")), path))
    assert ">Outlined: the smallest area that holds half of the attention; number: its share of the image<" in text
    text = svg(tmp_path / "s.svg", lambda path: strip_figure(clip(9), explanation(maps, Layout(4, 1, 1)), path))
    assert ">Colour: how far the map of a word exceeds its average; grey word: nowhere<" in text


def test_methods_other_than_attention_show_what_lies_above_the_mean(tmp_path: Path):
    """Of eight cells in a row one has 1, another .5, the rest .25 (mean .34): the two take half of it at least in a
    quarter of the picture.  Attention shows all that it pays.  A map without weight says so."""
    maps = np.full((2, 8), 0.25)
    maps[0, 2:4], maps[1] = (1, 0.5), 0
    found = explanation(maps, Layout(1, 1, 8))
    picture = np.zeros((224, 640, 3), np.uint8)
    text = svg(tmp_path / "f.svg", lambda path: word_figure(picture, found, path))
    assert "w1  (nothing stands out)" in text and ">gradcam<" in text
    share = int(re.findall(r"w0 {1,2}\((\d+)%\)", text)[0])
    attention_maps = replace(found, method="attention")
    text = svg(tmp_path / "g.svg", lambda path: word_figure(picture, attention_maps, path))
    assert int(re.findall(r"w0 {1,2}\((\d+)%\)", text)[0]) > 25 and share < 13 and ">attention<" in text
    assert "half of the attention" in text


# --- the strip of a clip ----------------------------------------------------------------------------------------------


def explanation(maps: np.ndarray, layout: Layout) -> Explanation:
    words = tuple(f"w{k}" for k in range(len(maps)))
    real = np.ones(layout.cells, dtype=bool)
    return Explanation(" ".join(words), words, maps, layout, "gradcam", np.ones(len(maps)), real)


def clip(count: int, seconds: bool = True) -> DisplayFrames:
    """Frame k is grey k, as many pixels as a strip shows; `count` frames in 4 seconds."""
    moments = (np.arange(count) + 0.5) / count
    return DisplayFrames(np.stack(greys(count, 1, (120, 160))), moments, 4 * moments if seconds else None)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What strips are made of: (sheet, explanation, times, title, out)."""
    made: list[tuple] = []

    def recorded(*parts: Any) -> Path:
        made.append(parts)
        return parts[-1]

    monkeypatch.setattr(figure, "_compose_strip", recorded)
    return made


@pytest.mark.parametrize(("times", "columns", "first"), [(1, 1, 40), (2, 2, 20), (5, 5, 8), (8, 8, 5), (20, 8, 5)])
def test_the_strip_has_a_frame_for_each_time_of_the_cells(sheets: list[tuple], times: int, columns: int, first: int):
    """80 frames: with n columns the middle of the first of n parts is frame 80 / 2n, and the next is 80 / n later."""
    strip_figure(clip(80), explanation(np.zeros((2, times)), Layout(times, 1, 1)), "f.png")
    sheet, _, seconds, title, _ = sheets[0]
    assert sheet.shape == (2 * 124 - 4, columns * 164 - 4, 3) and title == "w0 w1"
    shown = [int(sheet[row * 124 + 60, column * 164 + 80, 0]) for row in range(2) for column in range(columns)]
    assert np.abs(np.array(shown) - [first + k * 80 // columns for k in range(columns)] * 2).max() <= 1
    assert [float(second.split()[0]) for second in seconds] == pytest.approx(
        [4 * (k + 0.5) / columns for k in range(columns)], abs=0.08
    )


def test_the_strip_shows_heat_in_the_row_of_its_word_and_the_column_of_its_time(sheets: list[tuple]):
    """Word 1 has the lower right cell of the third time; word 0 has nothing."""
    maps = np.zeros((2, 16))
    maps[1, 2 * 4 + 3] = 1
    strip_figure(clip(40), explanation(maps, Layout(4, 2, 2)), "f.png")
    sheet = sheets[0][0].astype(int)
    for row in range(2):
        for column in range(4):
            block = sheet[row * 124 : row * 124 + 120, column * 164 : column * 164 + 160]
            coloured = np.ptp(block, axis=-1) > 60
            if (row, column) == (1, 2):
                assert coloured[75:, 100:].all() and not coloured[:30].any() and not coloured[:, :40].any()
            else:
                assert not np.ptp(block, axis=-1).any()
    assert (sheet[120:124] == 255).all()


def test_the_strip_shows_words_times_and_scale(tmp_path: Path):
    """Words are black, or grey where nothing stands out; without seconds the parts are counted."""
    maps = np.array([[0.0, 0.0, 1.0], [0.5, 0.5, 0.5]])
    found = explanation(maps, Layout(3, 1, 1))
    text = svg(tmp_path / "f.svg", lambda path: strip_figure(clip(33), found, path, title="$5 a & b"))
    for shown in ("w0", "w1", "0.7 s", "2.0 s", "3.3 s", "average", "most", "gradcam", "$5 a &amp; b"):
        assert f">{shown}<" in text, shown
    grey = re.findall(r"<text style=\"[^\"]*fill: #a6a6a6[^\"]*\"[^>]*>([^<]*)<", text)
    assert grey == ["w1"]
    text = svg(tmp_path / "g.svg", lambda path: strip_figure(clip(33, seconds=False), found, path))
    assert ">2 of 3<" in text and " s<" not in text


@pytest.mark.parametrize("words", [1, 3, 30])
def test_strips_are_as_high_as_their_words_need(tmp_path: Path, words: int):
    """110 pixels of the sheet are an inch of 120 dots; below stand 0.4 inches, above at least 0.5."""
    strip_figure(clip(20), explanation(np.eye(words, 40), Layout(40, 1, 1)), tmp_path / "f.png")
    width, height = Image.open(tmp_path / "f.png").size
    sheet = (words * 124 - 4) / 110 * 120
    assert sheet + 0.9 * 120 - 2 <= height <= sheet + 2 * 120
    assert width == pytest.approx(((8 * 164 - 4) / 110 + 0.3 + 0.13 * len(f"w{words - 1}") + 1.1) * 120, abs=2)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_letters_that_the_font_lacks_do_not_stop_the_figure(tmp_path: Path):
    """They are drawn as boxes and warned about; everything else is as with letters that the font has."""
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.warns(UserWarning, match=r"Glyph 22278 .* missing from"):  # U+5706, the second word
        attention_figure(picture, caption(("红色", "圆")), tmp_path / "missing.png", "title")
    attention_figure(picture, caption(("aa", "a")), tmp_path / "known.png", "title")
    missing, known = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("missing", "known"))
    assert missing.shape == known.shape
    differs = (missing != known).any((1, 2)).nonzero()[0]
    assert len(differs) and differs.max() - differs.min() < 0.25 * 120  # only the line of the words
