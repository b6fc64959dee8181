from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.metrics.ngrams import UNSEEN, NgramCounts, NgramIndex, Postings, concatenated_ranges, count_ngrams

Gram = tuple[int, ...]


def count(tokens: list[int]) -> Counter[Gram]:
    """A plain version to compare with: how often each n-gram of 1..4 ids occurs in one sentence."""
    return Counter(tuple(tokens[i : i + n]) for n in range(1, 5) for i in range(len(tokens) - n + 1))


def flat(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(sentence) for sentence in sentences]
    return np.array(list(chain(*sentences)), np.int64), np.array(lengths, np.int64)


def spelled(ngrams: NgramIndex) -> list[Gram]:
    """The ids of every n-gram, by its number."""
    found: list[Gram] = []
    before: list[Gram] = [()]
    for keys in ngrams.keys:
        before = [(*before[key // ngrams.width], key % ngrams.width) for key in keys.tolist()]
        found += before
    return found


def rows(counts: NgramCounts, grams: list[Gram], count: int) -> list[dict[Gram, int]]:
    found: list[dict[Gram, int]] = [{} for _ in range(count)]
    for row, gram, order, times in zip(*(x.tolist() for x in vars(counts).values()), strict=True):
        assert order == len(grams[gram]) - 1 and grams[gram] not in found[row]
        found[row][grams[gram]] = times
    return found


few = st.integers(0, 3)  # so that n-grams recur
sentences = st.lists(st.lists(st.one_of(few, few, st.integers(0, 1 << 40)), max_size=9), max_size=8)


@settings(deadline=None)
@given(sentences)
def test_counts_are_those_of_the_slow_twin(given_sentences):
    ngrams, counts = count_ngrams(*flat(given_sentences))
    grams = spelled(ngrams)
    assert len(grams) == len(ngrams) == len(set(grams))
    assert rows(counts, grams, len(given_sentences)) == [dict(count(sentence)) for sentence in given_sentences]
    assert list(zip(counts.ngram, counts.sentence, strict=True)) == sorted(
        zip(counts.ngram, counts.sentence, strict=True)
    )


def test_three_sentences_by_hand():
    ngrams, counts = count_ngrams(*flat([[7, 7, 0], [], [7]]))
    assert spelled(ngrams) == [(0,), (7,), (7, 0), (7, 7), (7, 7, 0)]
    assert rows(counts, spelled(ngrams), 3) == [{(0,): 1, (7,): 2, (7, 0): 1, (7, 7): 1, (7, 7, 0): 1}, {}, {(7,): 1}]
    assert counts.sum_by_order(counts.count, 3).tolist() == [[3, 2, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


@settings(deadline=None)
@given(sentences, sentences)
def test_n_grams_are_found_or_unseen(ours, theirs):
    mine, others = count_ngrams(*flat(ours))[0], count_ngrams(*flat(theirs))[0]
    number = {gram: i for i, gram in enumerate(spelled(mine))}
    assert mine.lookup(others).tolist() == [number.get(gram, UNSEEN) for gram in spelled(others)]


@settings(deadline=None)
@given(st.lists(st.lists(st.lists(few, max_size=7), min_size=1, max_size=4), min_size=1, max_size=5))
def test_postings_know_who_holds_what(images):
    tokens, lengths = flat(list(chain(*images)))
    postings = Postings(tokens, lengths, np.array([len(references) for references in images]))
    grams = spelled(postings.index)
    gram, image = (x.ravel() for x in np.meshgrid(np.arange(-1, len(grams)), np.arange(len(images))))
    owner = np.repeat(np.arange(len(images)), postings.per_medium)
    for number, i, pair in zip(gram, image, postings.lookup(gram, image), strict=True):
        counts = [count(references)[grams[number]] if number >= 0 else 0 for references in images[i]]
        assert postings.max_count[pair] == max(counts)
        assert (pair == UNSEEN) == (max(counts) == 0)
        if pair != UNSEEN:
            entries = slice(postings.start[pair], postings.start[pair + 1])
            held = dict(
                zip(postings.counts.sentence[entries] - postings.first[i], postings.counts.count[entries], strict=True)
            )
            assert held == {reference: times for reference, times in enumerate(counts) if times}
            assert (owner[postings.counts.sentence[entries]] == i).all()
    for number, gram_ in enumerate(grams):
        assert postings.document_frequency[number] == sum(
            any(count(r)[gram_] for r in references) for references in images
        )


def test_ranges():
    assert concatenated_ranges(np.array([5, 9, 1]), np.array([2, 0, 3])).tolist() == [5, 6, 1, 2, 3]
    assert concatenated_ranges(np.array([], int), np.array([], int)).tolist() == []


def test_ids_so_large_that_keys_would_overflow_are_refused():
    with pytest.raises(AssertionError):
        count_ngrams(np.array([1 << 62, 0]), np.array([2]))
