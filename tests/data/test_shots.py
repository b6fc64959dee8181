"""Shots: cuts at known times are found, flashes and motion are not; windows and their lengths."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.data.clips import index_clip
from limner.data.shots import (
    FLASH,
    LONGEST,
    SHORTEST,
    detect_shots,
    equal_windows,
    fixed_windows,
    histogram_distance,
    shot_boundaries,
)
from tests.data.videos import write

# the middle of their bins of 32 levels, so that rounding in an encoder moves no pixel to the next bin
RED, GREEN, WHITE = (
    np.full((32, 48, 3), colour, np.uint8) for colour in ((208, 16, 16), (16, 208, 48), (240, 240, 240))
)


def panning(count: int) -> list[np.ndarray]:
    """A blue wall with a bright stripe that wanders over it."""
    wall = np.full((32, 48, 3), (48, 48, 208), np.uint8)
    wall[:, :16] = (240, 240, 80)
    return [np.roll(wall, 2 * k, 1) for k in range(count)]


def found(path: Path) -> list[tuple[float, float]]:
    return [(round(a, 2), round(b, 2)) for a, b in detect_shots(index_clip(path))]


def test_three_scenes_are_three_shots(tmp_path: Path):
    path = write(tmp_path / "a.mp4", [RED] * 20 + panning(25) + [GREEN] * 15)
    assert found(path) == [(0, 2), (2, 4.5), (4.5, 6)]


def test_one_scene_is_one_shot(tmp_path: Path):
    assert found(write(tmp_path / "a.mp4", panning(30))) == [(0, 3)]


def test_a_flash_is_not_a_shot_boundary_and_a_lasting_change_is(tmp_path: Path):
    assert found(write(tmp_path / "a.mp4", [RED] * 20 + [WHITE] + [RED] * 20)) == [(0, 4.1)]
    assert found(write(tmp_path / "b.mp4", [RED] * 20 + [WHITE] * 4 + [RED] * 16)) == [(0, 2), (2, 4)]  # .4 s of white


def test_a_short_shot_joins_the_one_before(tmp_path: Path):
    assert found(write(tmp_path / "a.mp4", [RED] * 20 + [GREEN] * 5)) == [(0, 2.5)]
    assert found(write(tmp_path / "b.mp4", [RED] * 5 + [GREEN] * 20)) == [(0, 2.5)]


def test_a_long_shot_is_cut_evenly(tmp_path: Path):
    assert found(write(tmp_path / "a.mp4", [RED] * 70, rate=1)) == [(0, 23.33), (23.33, 46.67), (46.67, 70)]


def test_shot_boundaries_by_hand():
    a, b, c = np.eye(3)
    assert histogram_distance(a, a) == 0 and histogram_distance(a, b) == 1 and histogram_distance(a, (a + b) / 2) == 0.5
    steady = [(0.1 * k, [a, b][k >= 5]) for k in range(12)]
    assert list(shot_boundaries(steady)) == [0.5]
    assert list(shot_boundaries([(0.1 * k, b if k == 5 else a) for k in range(12)])) == []
    assert list(shot_boundaries([(0.1 * k, [a, b, c][(k >= 3) + (k >= 9)]) for k in range(10)])) == pytest.approx(
        [0.3, 0.9]
    )
    assert list(shot_boundaries([])) == []


@given(st.floats(0.1, 500), st.floats(0.5, 60))
def test_equal_windows_cover_the_whole_interval(length: float, longest: float):
    parts = equal_windows(0.0, length, longest)
    assert parts[0][0] == 0 and parts[-1][1] == pytest.approx(length)
    assert all(a[1] == b[0] for a, b in pairwise(parts))
    assert all(b - a <= longest * 1.0001 for a, b in parts) and len(parts) < length / longest + 1.001


@given(st.floats(0.1, 500), st.floats(0.5, 60))
def test_fixed_windows_are_equal_except_the_last(length: float, step: float):
    parts = fixed_windows(length, step)
    assert parts[0][0] == 0 and parts[-1][1] == length
    assert all(a[1] == b[0] and a[1] - a[0] == pytest.approx(step) for a, b in pairwise(parts))
    assert len(parts) == 1 or 0.499 * step <= parts[-1][1] - parts[-1][0] <= 1.501 * step


def test_fixed_windows_by_hand():
    assert fixed_windows(12.0, 5.0) == [(0, 5), (5, 12)] and fixed_windows(13.0, 5.0) == [(0, 5), (5, 10), (10, 13)]
    assert fixed_windows(0.5, 5.0) == [(0, 0.5)]
    assert SHORTEST < LONGEST and FLASH < SHORTEST
