"""The alignment: examples by hand, and the compiled version compared with the plain Python version."""

import random
import sys
from typing import Any

import numpy as np
import pytest

from limner.metrics.meteor import compiled
from limner.metrics.meteor.align import best_alignment, uncontested
from limner.metrics.meteor.evaluation import MeteorReferences
from limner.metrics.meteor.matches import EXACT, PARAPHRASE, STEM, SYNONYM, Match
from limner.metrics.meteor.statistics import CHUNKS, LENGTH, MATCHED, WORDS_MATCHED, corpus_counts, score_from_counts
from limner.metrics.meteor.tables import Tables
from tests.metrics.meteor.conftest import WORDS


def exact(*places: tuple[int, int]) -> list[list[Match]]:
    """Exact matches of words at (place in the reference, place in the hypothesis)."""
    size = max((place for place, _ in places), default=-1) + 1
    return [[Match(i, 1, j, 1, EXACT) for place, j in places if place == i] for i in range(size)]


def chosen(found: tuple[tuple[Match, ...], int]) -> tuple[list[tuple[int, int]], int]:
    return [(match.ref_start, match.hyp_start) for match in found[0]], found[1]


def test_words_in_order_are_one_chunk() -> None:
    assert chosen(best_alignment(exact((0, 0), (1, 1), (2, 2)))) == ([(0, 0), (1, 1), (2, 2)], 1)
    assert chosen(best_alignment(exact((0, 0), (1, 2), (2, 1)))) == ([(0, 0), (1, 2), (2, 1)], 3)
    assert chosen(best_alignment(exact((0, 0), (2, 1)))) == (
        [(0, 0), (2, 1)],
        2,
    )  # the reference's word between breaks it
    assert chosen(best_alignment([])) == ([], 0)


def test_of_two_places_the_one_that_continues_a_chunk() -> None:
    # hypothesis "the x the dog", reference "the dog": words 2, 3 are one chunk, words 0, 3 two
    assert chosen(best_alignment(exact((0, 0), (0, 2), (1, 3)))) == ([(0, 2), (1, 3)], 1)


def test_distances_weigh_on_the_path_that_branches_off() -> None:
    # hypothesis "a x a", reference "y a": each place gives one chunk; the branch to word 0 comes first, and no distance
    # is added to either branch
    assert chosen(best_alignment(exact((1, 0), (1, 2)))) == ([(1, 0)], 1)
    # reference "a z a": the path that leaves word 0 for later, having looked at both, is at distance 0 + 2
    assert chosen(best_alignment(exact((0, 0), (0, 2), (2, 0), (2, 2)))) == ([(0, 0), (2, 2)], 2)


def test_a_lone_word_that_is_not_exact_counts_nothing_in_the_search() -> None:
    match = Match(0, 1, 2, 1, STEM)
    assert best_alignment([[match]]) == ((match,), 1)  # without a rival it is fixed
    rival = match._replace(module=SYNONYM)
    assert best_alignment([[match, rival]]) == ((), 0)  # 0 matches in 0 chunks are better than 0 matches in 1 chunk
    # beside an exact match it costs no chunk, and the first of equals wins
    exact_match = Match(1, 1, 3, 1, EXACT)
    assert best_alignment([[match, rival], [exact_match]]) == ((match, exact_match), 1)


def test_halves_of_words_are_cut() -> None:
    # a paraphrase of three words by three weighs 1 + 1, as an exact word does
    long = Match(0, 3, 0, 3, PARAPHRASE)
    assert chosen(best_alignment([[Match(0, 1, 0, 1, EXACT), long], [Match(1, 1, 1, 1, EXACT)], []])) == (
        [(0, 0), (1, 1)],
        1,
    )
    assert best_alignment([[long, long], [], []]) == ((long,), 1)


def test_what_has_no_rival_is_fixed() -> None:
    first, second = Match(0, 2, 4, 1, PARAPHRASE), Match(2, 1, 5, 1, EXACT)
    assert uncontested([[first], [], [second]]) == {0: first, 2: second}
    assert uncontested([[first], [second._replace(ref_start=1)]]) == {}  # both want word 1 of the reference
    assert uncontested([[first], [], [second._replace(hyp_start=4)]]) == {}
    assert uncontested([[first], [], [second, second]]) == {0: first}


def test_score_by_hand() -> None:
    # "the cat sat on the mat" against the same with a stop: function words the, on, the and the stop
    counts = np.zeros(23, dtype=np.int64)
    counts[LENGTH : LENGTH + 4] = 6, 7, 3, 4
    counts[MATCHED : MATCHED + 4] = 3, 3, 3, 3
    counts[CHUNKS], counts[WORDS_MATCHED], counts[WORDS_MATCHED + 1] = 1, 6, 6
    recall = 3 / (3 * 0.75 + 4 * 0.25)
    assert score_from_counts(counts) == pytest.approx(
        1 / (0.15 + 0.85 / recall) * (1 - 0.6 * (1 / 6) ** 0.2), abs=1e-15
    )
    assert score_from_counts(np.zeros(23, dtype=np.int64)) == 0
    # a synonym and a paraphrase weigh .8 and .6; all in one chunk, so no penalty
    counts[:] = 0
    counts[LENGTH : LENGTH + 4] = 2, 3, 0, 1
    counts[[MATCHED + 8, MATCHED + 9, MATCHED + 12, MATCHED + 13, MATCHED + 15]] = 1, 1, 1, 1, 1
    counts[CHUNKS], counts[WORDS_MATCHED], counts[WORDS_MATCHED + 1] = 1, 2, 3
    precision, recall = (0.8 + 0.6) / 2, (1.4 * 0.75 + 0.6 * 0.25) / (2 * 0.75 + 0.25)
    assert score_from_counts(counts) == pytest.approx(1 / (0.15 / precision + 0.85 / recall), abs=1e-15)


def test_a_perfect_segment_adds_no_chunk_to_the_corpus() -> None:
    counts = np.zeros((3, 23), dtype=np.int64)
    counts[:, [LENGTH, LENGTH + 1, WORDS_MATCHED, WORDS_MATCHED + 1]] = 4
    counts[:, CHUNKS] = 1, 2, 1
    counts[2, LENGTH + 1] = 5
    assert corpus_counts(counts)[CHUNKS] == 3 and corpus_counts(counts)[LENGTH + 1] == 13


def lines(rng: random.Random, words: tuple[str, ...], most: int) -> str:
    return " ".join(rng.choices(words, k=rng.randint(0, most)))


@pytest.mark.parametrize(("words", "most", "images"), [(WORDS, 12, 100), (WORDS[:4], 10, 60), (WORDS * 6, 70, 6)])
def test_kernel_and_twin_agree(little: Tables, words: tuple[str, ...], most: int, images: int) -> None:
    pytest.importorskip("numba")
    rng = random.Random(most)
    vocabulary = (*words, *("c0", "an", ".", "mice", "mouse"), *(f"w{i}" for i in range(most)))
    references = [[lines(rng, vocabulary, most) for _ in range(rng.randint(1, 4))] for _ in range(images)]
    candidates = [lines(rng, vocabulary, most) if rng.random() < 0.9 else rng.choice(r) for r in references]
    known = MeteorReferences(references, little)
    fast = known.count(candidates)
    slow = known.count_without_numba(*known.lexicon.sentences(candidates))
    assert np.array_equal(fast, slow)
    assert (fast.sum(0)[MATCHED : MATCHED + 16].reshape(4, 4).sum(1) > 0).all()  # all modules were at work
    assert fast[:, CHUNKS].max() > 2


def test_where_numba_may_not_write_it_compiles_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    asked: list[dict[str, Any]] = []

    def njit(**options: Any) -> Any:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled.compile_cached(lambda x: x + 1)(1) == 2
    assert [options.get("cache", False) for options in asked] == [True, False]


def test_without_numba_the_twin_is_used(little: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "limner.metrics.meteor.kernel", None)  # importing it raises ImportError
    known = MeteorReferences([["zebra", "big dog"], ["mouse"]], little)
    counts = known.count(["large dog", "the zebras"])
    # "large" is a synonym of "big", "dog" is exact: one chunk of all words; the other caption has no match
    assert counts[0, : MATCHED + 2].tolist() == [2, 2, 0, 0, 1, 1] and counts[0, MATCHED + 8 :].tolist()[:2] == [1, 1]
    assert counts[0, CHUNKS:].tolist() == [1, 2, 2]
    assert counts[1].tolist() == [2, 1, 1, 0, *[0] * 19]
