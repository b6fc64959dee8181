"""n-grams of 1 to 4 ids, numbered and counted: the common part of BLEU, CIDEr and the CIDEr-D reward.

Sentences are given as one array of ids, sentence after sentence, and an array of their lengths.  For each order n, one
sort numbers the n-grams, counts them per sentence, and puts the sentences that contain an n-gram side by side.

    ids 7 7 0 7, lengths 3 1          two sentences, "7 7 0" and "7"
    n-grams 0: (0), 1: (7), 2: (7 0), 3: (7 7), 4: (7 7 0)

Letters in shapes: T ids, S sentences, E entries (an n-gram and a sentence that contains it), G distinct n-grams,
I media, R references of all media, U pairs (an n-gram and a medium whose references contain it).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

MAX_ORDER = 4  # n-grams of 1..4 words, in BLEU and in CIDEr
UNSEEN = -1  # the number of an n-gram that an index does not contain


@dataclass(frozen=True)
class NgramIndex:
    """Distinct n-grams, numbered from 0: all unigrams first, then all bigrams, and so on; within an order by key.

    keys   per order the sorted keys of its n-grams.  The key of an n-gram is (place of its first n-1 ids among the keys
           of order n-1) * width + its last id
    width  larger than every id

    >>> index, _ = count_ngrams(np.array([7, 7, 0, 7]), np.array([3, 1]))
    >>> index.width, [keys.tolist() for keys in index.keys]
    (8, [[0, 7], [8, 15], [8], []])

    The bigram (7 7) has the key 15 = 1 * 8 + 7, because (7) is at place 1 among the unigrams.  The trigram (7 7 0) has
    the key 8 = 1 * 8 + 0, because (7 7) is at place 1 among the bigrams.
    """

    keys: tuple[Int[np.ndarray, " _"], ...]
    width: int

    def __len__(self) -> int:
        return sum(map(len, self.keys))

    def lookup(self, other: "NgramIndex") -> Int[np.ndarray, " G"]:
        """The number in this index of each n-gram of another index, or UNSEEN."""
        numbers, offset = [], 0
        place = np.zeros(1, np.int64)  # of the empty n-gram
        for keys, other_keys in zip(self.keys, other.keys, strict=True):
            prefix, last = np.divmod(other_keys, other.width)
            # a prefix that is UNSEEN (-1) gives a negative key, which is not found either
            key = np.where(last < self.width, place[prefix] * self.width + last, UNSEEN)
            place = sorted_lookup(keys, key)
            numbers.append(np.where(place == UNSEEN, UNSEEN, place + offset))
            offset += len(keys)
        return np.concatenate(numbers)


@dataclass(frozen=True)
class NgramCounts:
    """The n-gram counts of many sentences: one entry for each n-gram and each sentence that contains it."""

    sentence: Int[np.ndarray, " E"]
    ngram: Int[np.ndarray, " E"]  # its number in an index, or UNSEEN
    order: Int[np.ndarray, " E"]  # n - 1
    count: Int[np.ndarray, " E"]  # how often the sentence contains the n-gram

    def sum_by_order(
        self, weight: Float[np.ndarray, " E"] | Int[np.ndarray, " E"], sentences: int
    ) -> Float[np.ndarray, "sentences 4"]:
        """The sum of the entries' weights, per sentence and order."""
        return sum_by_cell(self.sentence * MAX_ORDER + self.order, weight, sentences)

    def tfidf_norms(self, idf: Float[np.ndarray, " E"], sentences: int) -> Float[np.ndarray, "sentences 4"]:
        """The Euclidean length of each sentence's tf-idf vector, per order.  `idf` has a value for each entry."""
        return np.sqrt(self.sum_by_order((self.count * idf) ** 2, sentences))


def count_ngrams(tokens: Int[np.ndarray, " T"], lengths: Int[np.ndarray, " S"]) -> tuple[NgramIndex, NgramCounts]:
    """Number and count the n-grams of sentences.  The ids are 0 or more.

    The entries are sorted by n-gram, then by sentence.  The numbers are exact for any ids and as many sentences as
    memory holds: a key is below ids * n-grams, which an int64 has to hold.

    >>> _, counts = count_ngrams(np.array([7, 7, 0, 7]), np.array([3, 1]))
    >>> counts.sentence.tolist(), counts.ngram.tolist(), counts.count.tolist()
    ([0, 0, 1, 0, 0, 0], [0, 1, 1, 2, 3, 4], [1, 2, 1, 1, 1, 1])

    The second entry says that sentence 0 contains the n-gram 1, which is (7), twice.
    """
    width = int(tokens.max(initial=0)) + 1
    assert width * max(1, len(tokens)) < 1 << 63
    sentences = np.repeat(np.arange(len(lengths)), lengths)
    remaining = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # ids up to the end of the sentence
    place = np.zeros(len(tokens), np.int64)  # of the n-1 ids that begin here
    keys: list[Int[np.ndarray, " _"]] = []
    columns: list[tuple[Int[np.ndarray, " _"], ...]] = []
    offset = 0
    for n in range(MAX_ORDER):
        begin = np.flatnonzero(remaining > n)
        key = place[begin] * width + tokens[begin + n]
        by_key = np.argsort(key, kind="stable")  # keeps the sentences of an n-gram in their order
        begin, key = begin[by_key], key[by_key]
        is_new = differs_from_previous(key)
        number = np.cumsum(is_new) - 1
        place[begin] = number
        sentence = sentences[begin]
        entry = np.flatnonzero(is_new | differs_from_previous(sentence))
        count = np.diff(entry, append=len(begin))
        columns.append((sentence[entry], number[entry] + offset, np.full(len(entry), n, np.int8), count))
        keys.append(key[is_new])
        offset += len(keys[-1])
    sentence, ngram, order, count = (np.concatenate(column) for column in zip(*columns, strict=True))
    return NgramIndex(tuple(keys), width), NgramCounts(sentence, ngram, order, count)


class Postings:
    """An inverted index of reference captions: for each n-gram, the media and references that contain it.

    index, counts       n-grams of the references; the references of a medium follow one another
    lengths             (R,) ids in each reference
    per_medium          (I,) number of references of each medium
    first               (I,) the first reference of each medium
    start               (U+1,) pair u has the entries start[u] .. start[u+1] of `counts`
    max_count           (U+1,) the largest count of the pair's n-gram in a reference of its medium; the last value is 0,
                        so that max_count[UNSEEN] is right for n-grams that the references lack
    document_frequency  (G,) number of media whose references contain the n-gram

    Two media: the first has the references "5 5" and "5 6", the second has "6".  The n-grams are 0: (5), 1: (6),
    2: (5 5), 3: (5 6).

    >>> postings = Postings(np.array([5, 5, 5, 6, 6]), lengths=np.array([2, 2, 1]), per_medium=np.array([2, 1]))
    >>> postings.document_frequency.tolist()
    [1, 2, 1, 1]
    >>> pair = postings.lookup(ngram=np.array([0, 0]), medium=np.array([0, 1]))
    >>> pair.tolist()                                         # the second medium has no 5
    [0, -1]
    >>> postings.max_count[pair].tolist()                     # "5 5" contains 5 twice
    [2, 0]
    >>> entries = slice(postings.start[0], postings.start[1])
    >>> postings.counts.sentence[entries].tolist(), postings.counts.count[entries].tolist()
    ([0, 1], [2, 1])
    """

    def __init__(
        self, tokens: Int[np.ndarray, " T"], lengths: Int[np.ndarray, " R"], per_medium: Int[np.ndarray, " I"]
    ) -> None:
        self.lengths, self.per_medium = lengths, per_medium
        self.first = np.cumsum(per_medium) - per_medium
        self.index, self.counts = count_ngrams(tokens, lengths)
        medium = np.repeat(np.arange(len(per_medium)), per_medium)[self.counts.sentence]
        key = self._key(self.counts.ngram, medium)  # sorted, because the entries are
        begin = np.flatnonzero(differs_from_previous(key))
        self._pairs = key[begin]
        self.start = np.append(begin, len(key))
        self.max_count = np.append(np.maximum.reduceat(self.counts.count, begin) if len(begin) else begin, 0)
        self.document_frequency = np.bincount(self.counts.ngram[begin], minlength=len(self.index))

    def lookup(self, ngram: Int[np.ndarray, " E"], medium: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
        """The pair of each n-gram and medium, or UNSEEN where the medium's references lack the n-gram."""
        pair = np.full(len(ngram), UNSEEN)
        known = np.flatnonzero(ngram != UNSEEN)  # a binary search is fast when neighbouring keys are searched in turn
        pair[known] = sorted_lookup(self._pairs, self._key(ngram[known], medium[known]))
        return pair

    def _key(self, ngram: Int[np.ndarray, " E"], medium: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
        return ngram * len(self.per_medium) + medium


def sorted_lookup(keys: Integer[np.ndarray, " G"], wanted: Integer[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
    """The place of each wanted key among the sorted `keys`, or UNSEEN.

    >>> sorted_lookup(np.array([2, 5, 9]), np.array([5, 6, 2])).tolist()
    [1, -1, 0]
    """
    if not len(keys):
        return np.full(len(wanted), UNSEEN)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, UNSEEN)


def differs_from_previous(values: Int[np.ndarray, " E"]) -> Bool[np.ndarray, " E"]:
    """Where a value differs from the value before it.  The first value counts as different."""
    differs = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=differs[1:])
    return differs


def concatenated_ranges(start: Int[np.ndarray, " E"], count: Int[np.ndarray, " E"]) -> Int[np.ndarray, " _"]:
    """The numbers start[0], start[0] + 1, ... (count[0] of them), then start[1], ..., and so on.

    >>> concatenated_ranges(np.array([5, 9, 1]), np.array([2, 0, 3])).tolist()
    [5, 6, 1, 2, 3]
    """
    return np.repeat(start - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))


def sum_by_cell(
    cell: Int[np.ndarray, " E"], weight: Float[np.ndarray, " E"] | Int[np.ndarray, " E"], rows: int
) -> Float[np.ndarray, "rows 4"]:
    """The sum of the weights in each cell of a table; `cell` is row * MAX_ORDER + order."""
    # np.bincount of an empty array gives integers, whatever the weights are
    return np.bincount(cell, weight, minlength=rows * MAX_ORDER).astype(np.float64).reshape(rows, MAX_ORDER)
