"""BLEU of one caption: the n-grams that match, their clipped counts, and the brevity penalty."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from limner.metrics.bleu import bleu_from_counts
from limner.metrics.ngrams import MAX_ORDER

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class NgramMatch:
    """One n-gram of the caption.

    count      how often the caption has it
    reference  how often the reference has it that has it most often
    clipped    the smaller of the two, which counts as correct
    """

    ngram: Ngram
    count: int
    reference: int
    clipped: int


@dataclass(frozen=True)
class BleuOrder:
    """The n-grams of one order n: `correct` of `total` match, their ratio is `precision`; `score` is BLEU-n."""

    n: int
    matches: tuple[NgramMatch, ...]
    correct: int
    total: int
    precision: float
    score: float


@dataclass(frozen=True)
class BleuBreakdown:
    """BLEU-1 to BLEU-4 of one caption: geometric means of the precisions, times the brevity penalty.

    length             words of the caption
    reference_lengths  words of each reference
    closest            the reference length that is closest to that of the caption; of two the shorter
    brevity_penalty    exp(1 - closest / length) for a caption shorter than that, else 1; 0 without words
    """

    orders: tuple[BleuOrder, ...]
    length: int
    reference_lengths: tuple[int, ...]
    closest: int
    brevity_penalty: float


def count_words(words: Sequence[str], n: int) -> Counter[Ngram]:
    """The n-grams of a sentence, in the order in which they first occur.

    >>> count_words("the cat the cat".split(), 2)
    Counter({('the', 'cat'): 2, ('cat', 'the'): 1})
    """
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def break_down_bleu(words: Sequence[str], references: Sequence[Sequence[str]]) -> BleuBreakdown:
    """BLEU of one caption, given as its words; equal to `metrics.bleu.bleu` of this caption alone.

    "the" occurs once in the reference, so only one of its two occurrences counts.

    >>> found = break_down_bleu("the the cat".split(), ["the cat sat on".split()])
    >>> [(" ".join(it.ngram), it.count, it.reference, it.clipped) for it in found.orders[0].matches]
    [('the', 2, 1, 1), ('cat', 1, 1, 1)]
    >>> round(found.brevity_penalty, 6), round(float(np.exp(1 - 4 / 3)), 6), round(found.orders[0].score, 6)
    (0.716531, 0.716531, 0.477688)
    """
    lengths = tuple(map(len, references))
    closest = min(lengths, key=lambda length: (abs(length - len(words)), length))
    matches = [_matches(words, references, n) for n in range(1, MAX_ORDER + 1)]
    correct = np.array([sum(match.clipped for match in found) for found in matches], dtype=np.float64)
    total = np.maximum(0, len(words) - np.arange(MAX_ORDER))
    orders = []
    for n in range(1, MAX_ORDER + 1):
        # a row of one caption, as `bleu` passes all captions: so that numbers are equal to the last bit
        row = (correct[None, :n], total[None, :n], np.array([len(words)]), np.array([closest]))
        score = float(np.asarray(bleu_from_counts(*row))[0])
        precision = float(correct[n - 1] / total[n - 1]) if total[n - 1] else 0.0
        orders.append(BleuOrder(n, matches[n - 1], int(correct[n - 1]), int(total[n - 1]), precision, score))
    penalty = float(np.exp(min(0.0, 1 - closest / len(words)))) if words else 0.0
    return BleuBreakdown(tuple(orders), len(words), lengths, closest, penalty)


def _matches(words: Sequence[str], references: Sequence[Sequence[str]], n: int) -> tuple[NgramMatch, ...]:
    counted = [count_words(reference, n) for reference in references]
    rows = []
    for ngram, count in count_words(words, n).items():
        most = max(reference[ngram] for reference in counted)
        rows.append(NgramMatch(ngram, count, most, min(count, most)))
    return tuple(rows)
