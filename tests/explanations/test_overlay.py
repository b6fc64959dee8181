"""Cell weights on pixels and moments, worked out by hand.  Upsampling and shading are tested with the figure."""

import numpy as np
import pytest

from limner.core.types import Layout
from limner.explanations.maps import Explanation
from limner.explanations.overlay import (
    WHOLE_IMAGE,
    above_mean,
    heat,
    heat_colours,
    maps_between,
    paint_regions,
    upsample_unscaled,
    word_intensity,
)


def explanation(maps: np.ndarray, layout: Layout, regions: np.ndarray | None = None) -> Explanation:
    words = tuple(f"w{k}" for k in range(len(maps)))
    real = np.ones(layout.cells, dtype=bool)
    return Explanation(" ".join(words), words, maps, layout, "saliency", np.ones(len(maps)), real, regions)


def test_weight_above_the_mean_by_hand():
    """Mean 2, maximum 5: 1 and 2 fall away; the highest is (1 - 2/5) ** .5, the middle one a third of it."""
    found = above_mean(np.array([0.0, 1.0, 2.0, 3.0, 5.0, 1.0]), np.ones(6, dtype=bool))
    peak = 0.6**0.5
    assert found == pytest.approx([0, 0, 0, peak / 3, peak, 0])
    padded = above_mean(np.array([0.0, 1.0, 2.0, 3.0, 5.0, 1.0, 99.0]), np.arange(7) < 6)
    assert padded == pytest.approx([*found, 0])
    for flat in (0.0, 0.25):
        assert not above_mean(np.full(4, flat), np.ones(4, dtype=bool)).any()
    one_hot = above_mean(np.eye(100)[0], np.ones(100, dtype=bool))
    assert one_hot[0] == pytest.approx(0.99**0.5) and not one_hot[1:].any()


def test_moments_lie_between_the_middles_of_cells():
    """Four cells: their middles are 1/8, 3/8, 5/8 and 7/8 of the clip; before the first and after the last nothing
    changes."""
    maps = np.array([[0.0], [1.0], [5.0], [2.0]])
    for moment, expected in ((0, 0), (1 / 8, 0), (1 / 4, 0.5), (3 / 8, 1), (1 / 2, 3), (7 / 8, 2), (1, 2)):
        assert maps_between(maps, moment, moment) == pytest.approx(expected)
    assert maps_between(np.array([[7.0]]), 0.3, 0.3) == 7
    assert maps_between(np.arange(12.0).reshape(2, 2, 3), 0.5, 0.5) == pytest.approx(np.arange(6).reshape(2, 3) + 3)


def test_an_interval_shows_the_highest_value_of_every_cell():
    maps = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 9.0]])
    assert maps_between(maps, 0, 0.5).tolist() == [1, 3]
    assert maps_between(maps, 0.5, 1).tolist() == [2, 9]
    assert maps_between(maps, 0, 1 / 3).tolist() == [1, 3]  # the second cell has begun by then
    assert maps_between(maps, 0, 1).tolist() == [2, 9]


def test_intensity_is_relative_to_the_whole_clip():
    """Two frames of one cell, 0 and 1: the first moment is dark, the second is not."""
    found = explanation(np.array([[0.0, 1.0]]), Layout(2, 1, 1))
    assert word_intensity(found, 0, 4, 6, WHOLE_IMAGE, (0.25, 0.25)).max() == 0
    assert word_intensity(found, 0, 4, 6, WHOLE_IMAGE, (0.75, 0.75)) == pytest.approx(np.full((4, 6), 0.5**0.5))
    assert word_intensity(found, 0, 4, 6, WHOLE_IMAGE, (0.5, 0.5)) == pytest.approx(np.full((4, 6), 0.5**0.5 / 2))
    assert word_intensity(found, 0, 4, 6, (0, 0, 0.5, 1), (1, 1))[0].tolist() == pytest.approx([0.5**0.5] * 3 + [0] * 3)


def test_regions_are_painted_over_one_another():
    """The upper left quarter (weight .5) and the upper half (.2) of 4 x 4 pixels; a box without area is one pixel."""
    regions = np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 0.5], [0.75, 0.75, 0.75, 0.75]])
    found = paint_regions(np.array([0.5, 0.2, 0.9]), regions, 4, 4)
    expected = np.zeros((4, 4))
    expected[:2] = 0.2
    expected[:2, :2] = 0.5
    expected[3, 3] = 0.9
    assert found == pytest.approx(expected)
    whole = word_intensity(
        explanation(np.array([[1.0, 0.0, 0.0]]), Layout(1, 1, 3), regions), 0, 4, 4, WHOLE_IMAGE, (0, 1)
    )
    assert (whole > 0).sum() == 4


def test_upsampling_without_scaling_keeps_the_weights():
    assert upsample_unscaled(np.full((2, 2), 0.3), 8, 8) == pytest.approx(np.full((8, 8), 0.3))


def test_the_heat_strip_by_hand():
    """0 leaves the picture; 1 covers three quarters of it with the last colour."""
    picture = np.full((1, 2, 3), 100, np.uint8)
    found = heat(picture, np.array([[0.0, 1.0]]))
    assert found[0, 0].tolist() == [100, 100, 100]
    assert found[0, 1] == pytest.approx(0.25 * 100 + 0.75 * heat_colours()[255], abs=1)
    assert heat_colours()[255][0] > 100 > heat_colours()[255][2]  # red
