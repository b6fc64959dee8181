"""The paired bootstrap: values derived by hand or from all draws, a plain version to compare with, and error rates."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from limner.metrics import significance
from limner.metrics.bleu import bleu
from limner.metrics.references import References, Score
from limner.metrics.report import METRICS, compute_scores
from limner.metrics.significance import (
    bleu_statistics,
    bootstrap,
    difference,
    estimate,
    mean_statistics,
    metric_statistics,
)
from tests.metrics.corpus import corpus

SCORES = arrays.arrays(np.float64, st.integers(2, 30), elements=st.floats(0, 10))


def every_draw(values: np.ndarray) -> np.ndarray:
    """The mean of each of the n^n equally likely draws."""
    return np.array([np.mean(draw) for draw in product(values, repeat=len(values))])


def test_all_draws_of_three_items_by_hand():
    """Differences 1, 1, -1 with the mean 1/3: the mean of a draw is 1, 1/3, -1/3, -1 in 8, 12, 6, 1 of 27 draws.

    All draws but the 12 lie at least as far from 1/3 as 1/3 lies from 0: 15 draws.
    """
    draws = every_draw(np.array([1.0, 1.0, -1.0]))
    found = difference(0, 1 / 3, np.zeros(27), draws)
    assert found.value == pytest.approx(1 / 3) and found.p == (1 + 15) / (1 + 27)
    drawn = bootstrap([mean_statistics(np.zeros(3)), mean_statistics(np.array([1.0, 1.0, -1.0]))], 20_000, seed=1)
    # the standard error of the share is (15/27 * 12/27 / 20000)^.5 = .0035
    assert difference(0, 1 / 3, *drawn).p == pytest.approx(15 / 27, abs=0.014)


def test_the_interval_of_all_draws():
    """Two scores, 0 and 1: a quarter of the draws has the mean 0, a half .5, a quarter 1."""
    found = estimate(0.5, every_draw(np.array([0.0, 1.0])))
    assert (found.low, found.high) == pytest.approx((0.0375, 0.9625))  # .025 * 3 of the way from 0 to the next, .5
    drawn = bootstrap([mean_statistics(np.array([0.0, 1.0]))], 1000)[0]
    assert set(drawn) == {0.0, 0.5, 1.0}
    assert (estimate(0.5, drawn).low, estimate(0.5, drawn).high) == (0, 1)


@given(SCORES)
def test_equal_sides_do_not_differ(values: np.ndarray):
    drawn = bootstrap([mean_statistics(values), mean_statistics(values.copy())], 50)
    found = difference(values.mean(), values.mean(), *drawn)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@given(SCORES, st.integers(0, 9))
def test_swapping_the_sides_turns_the_sign(values: np.ndarray, seed: int):
    other = values[::-1].copy()
    drawn = bootstrap([mean_statistics(values), mean_statistics(other)], 50, seed)
    ahead = difference(values.mean(), other.mean(), drawn[0], drawn[1])
    back = difference(other.mean(), values.mean(), drawn[1], drawn[0])
    assert (back.value, back.low, back.high) == pytest.approx((-ahead.value, -ahead.high, -ahead.low))
    assert back.p == ahead.p


def test_a_shift_of_every_item_is_certain():
    values = np.random.default_rng(0).random(40)
    drawn = bootstrap([mean_statistics(values), mean_statistics(values + 0.25)], 99)
    found = difference(values.mean(), values.mean() + 0.25, *drawn)
    assert (found.low, found.high) == pytest.approx((0.25, 0.25)) and found.p == 1 / 100


@pytest.mark.parametrize("seed", [3, 4, 7])
def test_slow_twin(seed: int):
    """Every draw is scored as a corpus in which a medium occurs as often as it was drawn."""
    captions, texts = corpus(seed)
    ids = list(captions)
    references = References(texts, "split")
    candidates = references.candidates(captions)
    rouge = METRICS["ROUGE-L"](candidates, references)
    pools = [bleu_statistics(candidates, references, order) for order in (1, 4)] + [mean_statistics(rouge.segments)]
    fast = bootstrap(pools, 20, seed)
    rng = np.random.default_rng(seed)
    for k, draw in enumerate(rng.integers(len(ids), size=(20, len(ids)))):
        anew = References({str(j): texts[ids[i]] for j, i in enumerate(draw)}, "split")
        drawn = anew.candidates({str(j): captions[ids[i]] for j, i in enumerate(draw)})
        slow = [bleu(drawn, anew, 1).corpus, bleu(drawn, anew, 4).corpus, METRICS["ROUGE-L"](drawn, anew).corpus]
        assert fast[:, k] == pytest.approx(slow, rel=1e-9)


def test_corpus_bleu_is_not_a_mean_of_segments():
    """One caption has one right word, the other three wrong ones: 1 of 4 words; the mean of the segments is .5."""
    references = References({"x": ["cat"], "y": ["a b c"]}, "split")
    candidates = references.candidates({"x": "cat", "y": "d e f"})
    drawn = bootstrap([bleu_statistics(candidates, references, 1)], 200)[0]
    assert np.unique(drawn.round(6)).tolist() == [0, 0.25, 1]


def test_every_metric_of_a_report_can_be_drawn():
    captions, texts = corpus(7)
    references = References(texts, "split")
    candidates = references.candidates(captions)
    scores, _ = compute_scores(candidates, references)
    for name, found in scores.items():
        pool = metric_statistics(name, found, candidates, references)
        assert pool.score(pool.counts.sum(0, keepdims=True)) == pytest.approx([found.corpus]), name


def test_a_metric_that_is_no_mean_is_refused():
    references = References({"x": ["a"], "y": ["b"]}, "split")
    with pytest.raises(ValueError, match=r"New is 0.9, not the mean of its segments, 0.5"):
        metric_statistics(
            "New", Score(0.9, np.array([0.0, 1.0])), references.candidates({"x": "a", "y": "b"}), references
        )


def test_the_seed_decides_and_chunks_do_not(monkeypatch):
    pools = [mean_statistics(np.random.default_rng(2).random(13))]
    drawn = bootstrap(pools, 100, seed=5)
    assert (drawn == bootstrap(pools, 100, seed=5)).all() and (drawn != bootstrap(pools, 100, seed=6)).any()
    monkeypatch.setattr(significance, "MAX_CELLS", 13 * 7)  # 7 draws at a time
    assert bootstrap(pools, 100, seed=5) == pytest.approx(drawn)


def test_one_item_is_too_few():
    with pytest.raises(ValueError, match="needs at least 2, got 1"):
        bootstrap([mean_statistics(np.ones(1))])


def test_error_rates():
    """About 5 % of 400 pairs of equally good captioners get p < .05; about 95 % of 400 means lie in their interval."""
    rng = np.random.default_rng(0)
    low, inside = 0, 0
    for seed in range(400):
        first, second = rng.normal(size=(2, 100))
        drawn = bootstrap([mean_statistics(first), mean_statistics(second)], 200, seed)
        low += difference(first.mean(), second.mean(), *drawn).p < 0.05
        found = estimate(first.mean(), drawn[0])
        inside += found.low < 0 < found.high
    assert 8 <= low <= 34 and 366 <= inside <= 394  # three standard errors, 400 * .05 +- 3 * 4.4, and a little
