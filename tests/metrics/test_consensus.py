"""Consensus of sentences: expected CIDEr-D by hand, and the choice among candidates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.metrics.cider import cider
from limner.metrics.consensus import consensus, expected_cider_d
from limner.metrics.references import References


def test_the_expected_cider_d_is_the_weighted_sum_over_the_candidates() -> None:
    """Both share 2 of 3 words and 1 of 2 bigrams: 10 * (2/3 + 1/2) / 4.  Each equals itself in 3 orders of 4."""
    gain = expected_cider_d([[5, 6, 7], [5, 6, 8]], np.array([0.75, 0.25]))
    other, own = 10 * (2 / 3 + 1 / 2) / 4, 7.5
    np.testing.assert_allclose(gain, [0.75 * own + 0.25 * other, 0.25 * own + 0.75 * other])


def test_it_is_the_cider_of_the_metrics_where_all_ngrams_weigh_the_same() -> None:
    """Two media that share no word: every n-gram has the idf log(2), which cancels in the cosine."""
    texts = ["a dog runs on the grass", "a dog is on green grass", "two dogs run"]
    references = References({"x": texts, "y": ["q"]}, "split")
    words = {word: i for i, word in enumerate(dict.fromkeys(" ".join(texts).split()))}
    gain = expected_cider_d([[words[word] for word in text.split()] for text in texts], np.full(3, 1 / 3))
    for text, value in zip(texts, gain, strict=True):
        assert cider(references.candidates({"x": text, "y": "q"}), references).segments[0] == pytest.approx(value)


def test_the_sentence_that_most_agree_with_wins_over_the_likeliest() -> None:
    captions = [[9, 9, 9, 9], [5, 6, 7, 8], [5, 6, 7, 4], [5, 6, 7, 3]]
    assert consensus(captions, np.log([0.31, 0.23, 0.23, 0.23])) == [1]
    assert consensus(captions, np.log([0.97, 0.01, 0.01, 0.01])) == [0]


def test_equal_captions_add_up_and_are_returned_once() -> None:
    captions = [[5], [6], [6], [7]]
    assert consensus(captions, np.log([0.4, 0.25, 0.25, 0.1]), n_best=5) == [1, 0, 3]


def test_captions_without_a_probability_are_none() -> None:
    assert consensus([[5], [6]], np.array([-np.inf, -3.0]), n_best=2) == [1]
    assert consensus([[]], np.array([0.0])) == [0]
    with pytest.raises(ValueError, match="nothing to choose from"):
        consensus([[5]], np.array([-np.inf]))


@given(st.lists(st.lists(st.integers(3, 6), max_size=5), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_the_captions_and_a_common_factor_do_not_matter(captions, random) -> None:  # type: ignore[no-untyped-def]
    logprobs = np.array([random.uniform(-5, 0) for _ in captions])
    best = captions[consensus(captions, logprobs)[0]]
    order = random.sample(range(len(captions)), len(captions))
    again = consensus([captions[i] for i in order], logprobs[order] - 100.0)
    found = captions[order[again[0]]]
    if found != best:  # the value of one caption can be that of another: then they may change places
        distinct = [list(it) for it in dict.fromkeys(map(tuple, captions))]
        weights = [sum(np.exp(logprobs[k]) for k, it in enumerate(captions) if it == one) for one in distinct]
        gain = expected_cider_d(distinct, np.array(weights) / sum(weights))
        assert gain[distinct.index(found)] == pytest.approx(gain[distinct.index(best)], abs=1e-8)
