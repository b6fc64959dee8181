"""Calibrated confidences: the regression, distances and reliability by hand, and what a calibration holds for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from limner.core.torch_free import Caption
from limner.decode.confidence import (
    FILE,
    Calibration,
    Familiarity,
    Logistic,
    caption_features,
    comparable,
    cross_validated,
    fit_familiarity,
    fit_logistic,
    load_calibration,
    reliability,
)
from limner.decode.options import Beam, Sample

CALIBRATION = Calibration(
    0.5, comparable(Beam(3)), "images", 1, Logistic((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), 2.0),
    Familiarity((0.0, 0.0), ((0.0, 1.0),), (4.0,), 1.0, 1.5),
)  # fmt: skip


def caption(logprob: float, words: int = 4, finished: bool = True) -> Caption:
    return Caption("a " * words, logprob, ("a",) * words, np.zeros((words, 1, 1, 1), np.float32), finished)


def test_two_groups_get_their_shares() -> None:
    """A feature of two values, with 3 of 4 and 1 of 4 right; 1,000 copies leave the penalty without effect."""
    features = np.tile([[0.0], [0.0], [0.0], [0.0], [1.0], [1.0], [1.0], [1.0]], (1000, 1))
    right = np.tile([True, True, True, False, True, False, False, False], 1000)
    model = fit_logistic(features, right)
    np.testing.assert_allclose(model(np.array([[0.0], [1.0]])), [0.75, 0.25], atol=1e-3)


def test_the_fit_is_the_minimum_of_the_penalised_loss() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)) * [3, 0.1] + [5, 1]
    right = rng.random(200) < 1 / (1 + np.exp(-(x[:, 0] - 5)))
    model = fit_logistic(x, right)
    z = (x - np.array(model.mean)) / np.array(model.scale)

    def loss(weights: np.ndarray, bias: float) -> float:
        margin = np.where(right, 1, -1) * (z @ weights + bias)
        return float(np.logaddexp(0, -margin).sum() + 0.5 * (weights**2).sum())

    best = np.array(model.weights)
    for change in np.eye(3) * 0.01:
        for sign in (-1, 1):
            assert loss(best + sign * change[:2], model.bias + sign * change[2]) > loss(best, model.bias)


def test_captions_that_are_all_alike_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="all of 3 captions are above the bar: choose another --bar"):
        fit_logistic(np.zeros((3, 1)), np.ones(3, bool))


def test_held_out_probabilities_do_not_know_their_own_caption() -> None:
    """One caption of each value is right in turn: fitted on the others, it cannot be known."""
    features = np.arange(20.0)[:, None]
    right = np.zeros(20, bool)
    right[[3, 11, 16]] = True
    found = cross_validated(features, right)
    assert found.shape == (20,) and found.max() < 0.5


def test_distances_and_their_limit() -> None:
    """Pictures vary along (1, 1) / sqrt(2): the variance there is 9, and 1 across."""
    training = np.tile([[3.0, 3.0], [-3.0, -3.0], [1.0, -1.0], [-1.0, 1.0]], (10, 1)) + np.array([10.0, 0.0])
    found = fit_familiarity(training, training, 100)
    assert found.mean == (10.0, 0.0) and found.rest == pytest.approx(1.0) and found.variances == pytest.approx((9.0,))
    assert np.abs(found.directions) == pytest.approx(np.full((1, 2), np.sqrt(0.5)), abs=1e-5)
    distance = found.distance(np.array([[13.0, 3.0], [11.0, -1.0], [12.0, -2.0]]))
    np.testing.assert_allclose(distance, [1.0, 1.0, 2.0], rtol=1e-4)
    assert found.limit == pytest.approx(1.0, rel=1e-4)


def test_channels_that_never_vary_are_no_division_by_zero() -> None:
    found = fit_familiarity(np.zeros((20, 3)), np.zeros((20, 3)))
    assert np.isfinite(found.distance(np.ones((1, 3)))).all() and found.limit == 0


def test_reliability_of_perfect_and_of_useless_probabilities() -> None:
    right = np.array([True, False, True, False])
    perfect = reliability(right.astype(float), right)
    assert (perfect.brier, perfect.ece, perfect.auc) == (0.0, 0.0, 1.0)
    useless = reliability(np.full(4, 0.5), right)
    assert (useless.brier, useless.ece, useless.auc, useless.base_brier) == (0.25, 0.0, 0.5, 0.25)
    assert useless.counts == [0, 0, 0, 0, 0, 4, 0, 0, 0, 0]


def test_features_of_a_caption() -> None:
    found = caption_features([caption(-5.0), caption(-5.0, finished=False)], np.array([1.0, 2.0]))
    assert found.tolist() == [[-1.0, 5.0, 1.0], [-1.25, 4.0, 2.0]]


def test_a_confidence_holds_for_the_calibrated_search_and_media() -> None:
    pooled = np.array([[0.0, 0.0], [4.0, 0.0]])  # distances 0 and sqrt(8)
    rated = CALIBRATION.rate([caption(-5.0), caption(-10.0)], pooled, Beam(3, n_best=2), 1)
    assert [each.confidence for each in rated] == pytest.approx([1 / (1 + np.exp(-1)), 0.5])
    assert [each.unfamiliar for each in rated] == [False, True]
    for other in (Beam(5), Sample(2)):
        (found,) = CALIBRATION.rate([caption(-5.0)], pooled[:1], other, 1)
        assert (found.confidence, found.unfamiliar) == (None, False)
    (clip,) = CALIBRATION.rate([caption(-5.0)], pooled[:1], Beam(3), 4)
    assert (clip.confidence, clip.unfamiliar) == (None, None)
    clips = replace(CALIBRATION, media="clips", frames=4)
    assert [clips.reads(4, True), clips.reads(4, False), clips.reads(8, True), clips.reads(1, True)] == [True] + [
        False
    ] * 3


def test_a_calibration_is_a_file_that_is_checked(tmp_path: Path) -> None:
    assert load_calibration(tmp_path) is None
    CALIBRATION.save(tmp_path)
    assert load_calibration(tmp_path) == CALIBRATION
    saved = json.loads((tmp_path / FILE).read_text())
    for damage, message in (
        ({"format": 9}, "has format 9; this limner reads up to 1"),
        ({"bar": "high"}, "is no calibration"),
        ({"features": ["tokens"]}, "has other features"),
    ):
        (tmp_path / FILE).write_text(json.dumps(saved | damage))
        with pytest.raises(ValueError, match=message):
            load_calibration(tmp_path)
