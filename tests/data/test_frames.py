"""Which frames a policy picks, counted by hand and for all sizes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.data.frames import FrameSampling, sample_indices, sample_positions

POLICIES = ("uniform", "head", "tail", "random", "every")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("uniform", [0, 3, 6, 9]),
        ("head", [0, 1, 2, 3]),
        ("tail", [6, 7, 8, 9]),
        ("random", [1, 3, 6, 8]),  # middles of [0, 2), [2, 5), [5, 7), [7, 10)
        ("every", [0, 5]),
    ],
)
def test_four_of_ten_rows_by_every_policy(policy: str, expected: list[int]):
    assert list(sample_indices(10, FrameSampling(4, policy))) == expected


def test_every_third_row_up_to_the_limit():
    assert list(sample_indices(10, FrameSampling(4, "every", 3))) == [0, 3, 6, 9]
    assert list(sample_indices(100, FrameSampling(4, "every", 3))) == [0, 3, 6, 9]
    assert list(sample_indices(2, FrameSampling(4, "every", 3))) == [0]


@given(st.integers(1, 300), st.integers(1, 60), st.sampled_from(POLICIES), st.none() | st.integers(0, 99))
def test_row_indices_ascend_are_unique_and_exist(count: int, frames: int, policy: str, seed: int | None):
    found = list(sample_indices(count, FrameSampling(frames, policy), seed))
    assert found == sorted(set(found)) and found[0] >= 0 and found[-1] < count
    if policy != "every":
        assert len(found) == min(count, frames)


@given(st.integers(1, 300), st.integers(2, 60))
def test_uniform_sampling_is_a_truncated_linspace(count: int, frames: int):
    if count > frames:
        exact = [
            int(Fraction(k * (count - 1), frames - 1)) for k in range(frames)
        ]  # np.linspace may miss a whole number
        assert list(sample_indices(count, FrameSampling(frames))) == exact
        assert np.abs(np.linspace(0, count - 1, frames) - exact).max() < 1 + 1e-9


def test_one_frame_is_drawn_from_each_part():
    seen = {tuple(int(10 * place) for place in sample_positions(2, seed)) for seed in range(200)}
    assert {a for a, _ in seen} == {0, 1, 2, 3, 4} and {b for _, b in seen} == {5, 6, 7, 8, 9}
    assert sample_positions(3, 7) == sample_positions(3, 7) != sample_positions(3, 8)
    assert sample_positions(2) == [Fraction(1, 4), Fraction(3, 4)]
