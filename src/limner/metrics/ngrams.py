"""n-grams of 1 to 4 ids, numbered and counted: what BLEU, CIDEr and the CIDEr-D reward have in common.

Sentences are ids laid end to end and a length each.  One sort per order numbers the n-grams, counts them per sentence
and leaves, for every n-gram, the sentences that hold it side by side.

Letters in shapes: T ids, S sentences, E (n-gram, sentence) entries, G distinct n-grams, I images, R references,
U (n-gram, image) pairs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

ORDERS = 4  # n-grams of 1..4 words, in BLEU and in CIDEr
UNSEEN = -1  # the number of an n-gram that is not in an index


@dataclass(frozen=True)
class Ngrams:
    """Distinct n-grams, numbered from 0: unigrams first, then bigrams, ..., each order by `keys`.

    keys   per order, sorted: (place of the first n-1 ids among the keys of their order) * width + last id
    width  more than any id
    """

    keys: tuple[Int[np.ndarray, " _"], ...]
    width: int

    def __len__(self) -> int:
        return sum(map(len, self.keys))

    def find(self, others: "Ngrams") -> Int[np.ndarray, " G"]:
        """The number of each of the `others` here, or UNSEEN."""
        numbers, offset = [], 0
        place = np.zeros(1, np.int64)  # of the empty n-gram
        for mine, theirs in zip(self.keys, others.keys, strict=True):
            prefix, last = np.divmod(theirs, others.width)
            key = np.where(
                last < self.width, place[prefix] * self.width + last, UNSEEN
            )  # below 0 if its prefix is unseen
            place = search(mine, key)
            numbers.append(np.where(place == UNSEEN, UNSEEN, place + offset))
            offset += len(mine)
        return np.concatenate(numbers)


@dataclass(frozen=True)
class Table:
    """n-gram counts of many sentences: one entry per n-gram and sentence that holds it."""

    row: Int[np.ndarray, " E"]  # which sentence
    gram: Int[np.ndarray, " E"]  # which n-gram, or UNSEEN
    order: Int[np.ndarray, " E"]  # n - 1
    count: Int[np.ndarray, " E"]

    def total(self, weight: Float[np.ndarray, " E"] | Int[np.ndarray, " E"], rows: int) -> Float[np.ndarray, "rows 4"]:
        """Sum of `weight` per sentence and order."""
        return sums(self.row * ORDERS + self.order, weight, rows)

    def norms(self, idf: Float[np.ndarray, " E"], rows: int) -> Float[np.ndarray, "rows 4"]:
        """Euclidean length of each sentence's tf-idf vector, per order; `idf` is that of each entry."""
        return np.sqrt(self.total((self.count * idf) ** 2, rows))


def tabulate(tokens: Int[np.ndarray, " T"], lengths: Int[np.ndarray, " S"]) -> tuple[Ngrams, Table]:
    """Number and count the n-grams of sentences; ids are 0 or more.  Entries are sorted by n-gram, then by sentence.

    Exact for any ids and any number of sentences that memory holds (a key is below ids * n-grams, an int64).
    """
    width = int(tokens.max(initial=0)) + 1
    assert width * max(1, len(tokens)) < 1 << 63
    rows = np.repeat(np.arange(len(lengths)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # ids from here to the sentence's end
    place = np.zeros(len(tokens), np.int64)  # of the n-1 ids that begin here
    keys: list[Int[np.ndarray, " _"]] = []
    parts: list[tuple[Int[np.ndarray, " _"], ...]] = []
    offset = 0
    for n in range(ORDERS):
        begin = np.flatnonzero(left > n)
        key = place[begin] * width + tokens[begin + n]
        order = np.argsort(key, kind="stable")  # keeps the sentences in order within an n-gram
        begin, key = begin[order], key[order]
        other = changes(key)
        number = np.cumsum(other) - 1
        place[begin] = number
        row = rows[begin]
        entry = np.flatnonzero(other | changes(row))
        count = np.diff(entry, append=len(begin))
        parts.append((row[entry], number[entry] + offset, np.full(len(entry), n, np.int8), count))
        keys.append(key[other])
        offset += len(keys[-1])
    row, gram, orders, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Ngrams(tuple(keys), width), Table(row, gram, orders, count)


class Postings:
    """Which references of an image hold an n-gram.

    ngrams, table  of the references; an image's references are neighbours
    lengths        (R,) ids in a reference
    per_image      (I,) references of an image
    first          (I,) its first reference
    start          (U+1,) pair u is entries start[u] .. start[u+1] of the table
    peak           (U+1,) the largest count of a pair's n-gram in one reference; last: 0, for an n-gram they lack
    frequency      (G,) images whose references hold the n-gram
    """

    def __init__(
        self, tokens: Int[np.ndarray, " T"], lengths: Int[np.ndarray, " R"], per_image: Int[np.ndarray, " I"]
    ) -> None:
        self.lengths, self.per_image = lengths, per_image
        self.first = np.cumsum(per_image) - per_image
        self.ngrams, self.table = tabulate(tokens, lengths)
        image = np.repeat(np.arange(len(per_image)), per_image)[self.table.row]
        key = self._key(self.table.gram, image)  # sorted, as entries are
        begin = np.flatnonzero(changes(key))
        self._pairs = key[begin]
        self.start = np.append(begin, len(key))
        self.peak = np.append(np.maximum.reduceat(self.table.count, begin) if len(begin) else begin, 0)
        self.frequency = np.bincount(self.table.gram[begin], minlength=len(self.ngrams))

    def find(self, gram: Int[np.ndarray, " E"], image: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
        """The pair of each n-gram and image, or UNSEEN."""
        pair = np.full(len(gram), UNSEEN)
        known = np.flatnonzero(gram != UNSEEN)  # a search is quick where neighbours want neighbouring keys
        pair[known] = search(self._pairs, self._key(gram[known], image[known]))
        return pair

    def _key(self, gram: Int[np.ndarray, " E"], image: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
        return gram * len(self.per_image) + image


def search(keys: Int[np.ndarray, " G"], wanted: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
    """Where each wanted key stands among the sorted `keys`, or UNSEEN."""
    if not len(keys):
        return np.full(len(wanted), UNSEEN)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, UNSEEN)


def changes(values: Int[np.ndarray, " E"]) -> Bool[np.ndarray, " E"]:
    """Where a value differs from the one before; the first does."""
    other = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=other[1:])
    return other


def ranges(start: Int[np.ndarray, " E"], count: Int[np.ndarray, " E"]) -> Int[np.ndarray, " _"]:
    """start[0], start[0] + 1, ... (count[0] of them), start[1], ..."""
    return np.repeat(start - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))


def sums(
    cell: Int[np.ndarray, " E"], weight: Float[np.ndarray, " E"] | Int[np.ndarray, " E"], rows: int
) -> Float[np.ndarray, "rows 4"]:
    """Sum of the weights that fall in each cell, `cell` being row * ORDERS + order."""
    # bincount of nothing is of integers, whatever the weights
    return np.bincount(cell, weight, minlength=rows * ORDERS).astype(np.float64).reshape(rows, ORDERS)
