"""Attention laid over the picture: weights, shares and panels worked out by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.explain.figure import attention_figure, enlarge, half_of
from limner.explain.overlay import shade, upsample
from limner.pipeline import Caption


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


def test_weights_lie_in_the_view():
    """300 x 100 pixels of which the middle third was seen: even weights are 1 in columns 100..199 and 0 elsewhere."""
    values = upsample(np.full((7, 7), 1 / 49, np.float32), 100, 300, (1 / 3, 0, 2 / 3, 1))
    expected = np.zeros((100, 300))
    expected[:, 100:200] = 1
    assert values == pytest.approx(expected)
    assert half_of(values) == (1, pytest.approx(1 / 6, abs=1e-3))  # half of a third


def test_a_view_beyond_the_picture_is_cut():
    """Padding above and below: of 4 rows of cells the middle two lie on the picture."""
    weights = np.array([[0.0], [1.0], [0.0], [0.0]], np.float32)
    values = upsample(weights, 20, 10, (0, -0.5, 1, 1.5))
    assert values.shape == (20, 10) and values[:10].mean() > 4 * values[10:].mean()
    assert values[:, 0].argmax() in (4, 5)


def test_half_of_by_hand():
    assert half_of(np.array([[4.0, 3.0], [2.0, 1.0]])) == (3, 0.5)  # 4 is less than 5 of 10, 4 + 3 is not
    assert half_of(np.array([[10.0, 0.0, 0.0, 0.0]])) == (10, 0.25)
    assert half_of(np.ones((2, 5))) == (1, 0.5)
    assert half_of(np.zeros((2, 2))) == (0, 1)


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
    assert enlarge(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)
    right = np.zeros((224, 300, 3), np.uint8)
    assert enlarge(right) is right


@pytest.mark.parametrize("words", [(), ("red",), ("a", "red", "circle", "above", "$5", "$x_1$"), ("long",) * 40])
def test_a_panel_per_word_and_one_for_the_picture(tmp_path: Path, words: tuple[str, ...]):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters stay letters
        attention_figure(np.zeros((30, 40, 3), np.uint8), caption(words), tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text(encoding="utf-8")
    assert len(re.findall(r"<image ", text)) == len(words) + 1
    shown = re.findall(r">([^<>]*) {1,2}\(\d+%\)<", text)
    assert [word.strip() for word in shown] == list(words)


def test_the_share_is_of_the_whole_picture(tmp_path: Path):
    """Even weights over the middle third: half of them takes a sixth, 17 %."""
    import matplotlib

    even = Caption("all", -1.0, ("all",), np.full((1, 1, 4, 4), 1 / 16, np.float32))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        for view, share in (((1 / 3, 0, 2 / 3, 1), "17%"), ((0, 0, 1, 1), "50%")):
            attention_figure(np.zeros((224, 600, 3), np.uint8), even, tmp_path / "f.svg", view=view)
            assert f"({share})" in (tmp_path / "f.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (10, 2000)])
def test_odd_pictures(tmp_path: Path, size: tuple[int, int]):
    attention_figure(np.zeros((*size, 3), np.uint8), caption(("a", "b")), tmp_path / "f.png")
    width, height = Image.open(tmp_path / "f.png").size
    assert width == round(2.3 * 3 * 120) and height <= 936  # 0.55 + 3 * 2.3 + 0.35 inches


def test_what_makes_no_figure(tmp_path: Path):
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"f\.bmp: the ending says the format; known are \.png"):
        attention_figure(picture, caption(("a",)), tmp_path / "f.bmp")
    with pytest.raises(ValueError, match="attention over 3 frames needs a clip's overlay"):
        attention_figure(picture, caption(("a",), frames=3), tmp_path / "f.png")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_letters_that_the_font_lacks_do_not_stop_the_figure(tmp_path: Path):
    assert attention_figure(np.zeros((8, 8, 3), np.uint8), caption(("红色", "圆")), tmp_path / "f.png").is_file()
