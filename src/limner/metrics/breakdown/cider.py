"""CIDEr of one caption: idf weights, dot products and cosines per order and reference, and the length penalty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

from limner.metrics.breakdown.bleu import Ngram, count_words
from limner.metrics.cider import SCALE, SIGMA
from limner.metrics.ngrams import MAX_ORDER
from limner.metrics.references import References


@dataclass(frozen=True)
class WeightedNgram:
    """An n-gram of the caption.

    count  how often the caption has it
    media  how many media have it in a reference
    idf    log of (number of all media / media); media that no reference names count as 1
    """

    ngram: Ngram
    count: int
    media: int
    idf: float


@dataclass(frozen=True)
class SharedNgram:
    """An n-gram that the caption shares with one reference: `product` = min(count, reference) * reference * idf^2."""

    ngram: Ngram
    count: int
    reference: int
    idf: float
    product: float


@dataclass(frozen=True)
class Cosine:
    """The cosine of order n: the sum of the products, divided by the lengths of both tf-idf vectors; 0 for length 0."""

    n: int
    shared: tuple[SharedNgram, ...]
    dot: float
    norm: float
    reference_norm: float
    cosine: float


@dataclass(frozen=True)
class CiderReference:
    """One reference: the mean of the four cosines, times the length penalty.

    The penalty is exp(-difference^2 / 72), where `difference` is the number of words that the caption is longer.
    """

    words: tuple[str, ...]
    cosines: tuple[Cosine, ...]
    difference: int
    length_penalty: float
    value: float


@dataclass(frozen=True)
class CiderBreakdown:
    """CIDEr: 10 times the mean of the references' values.  `media` is the number of all media that were counted."""

    media: int
    weights: tuple[WeightedNgram, ...]
    references: tuple[CiderReference, ...]
    score: float


def break_down_cider(words: Sequence[str], references: Sequence[Sequence[str]], counted: References) -> CiderBreakdown:
    """CIDEr of one caption, given as its words, with the document frequencies of `counted`; equal to `metrics.cider`.

    The example of `metrics.cider.cider`: for x the caption is the reference, and there are no 3-grams and 4-grams.

    >>> counted = References({"x": ["a b"], "y": ["a c"]}, "split")
    >>> found = break_down_cider(["a", "b"], [["a", "b"]], counted)
    >>> [(it.ngram, it.media, round(it.idf, 3)) for it in found.weights]
    [(('a',), 2, 0.0), (('b',), 1, 0.693), (('a', 'b'), 1, 0.693)]
    >>> [round(it.cosine, 6) for it in found.references[0].cosines], round(found.score, 6)
    ([1.0, 1.0, 0.0, 0.0], 5.0)
    """
    counts = [count_words(words, n) for n in range(1, MAX_ORDER + 1)]
    reference_counts = [[count_words(reference, n) for n in range(1, MAX_ORDER + 1)] for reference in references]
    ngrams = list(dict.fromkeys(ngram for each in (counts, *reference_counts) for order in each for ngram in order))
    media = dict(zip(ngrams, counted.document_frequency(ngrams).tolist(), strict=True))
    idf = {ngram: log(len(counted.ids)) - log(max(1, media[ngram])) for ngram in ngrams}
    each = []
    for reference, theirs in zip(references, reference_counts, strict=True):
        cosines = tuple(_cosine(n, counts[n - 1], theirs[n - 1], idf) for n in range(1, MAX_ORDER + 1))
        difference = max(0, len(words) - 1) - max(0, len(reference) - 1)
        penalty = exp(-(difference**2) / (2 * SIGMA**2))
        value = sum(it.cosine for it in cosines) / MAX_ORDER * penalty
        each.append(CiderReference(tuple(reference), cosines, difference, penalty, value))
    weights = [
        WeightedNgram(ngram, count, media[ngram], idf[ngram]) for order in counts for ngram, count in order.items()
    ]
    score = SCALE * sum(it.value for it in each) / len(each)
    return CiderBreakdown(len(counted.ids), tuple(weights), tuple(each), score)


def _cosine(n: int, counts: Mapping[Ngram, int], theirs: Mapping[Ngram, int], idf: Mapping[Ngram, float]) -> Cosine:
    shared = tuple(
        SharedNgram(
            ngram, count, theirs[ngram], idf[ngram], min(count, theirs[ngram]) * theirs[ngram] * idf[ngram] ** 2
        )
        for ngram, count in counts.items()
        if ngram in theirs
    )
    norm, reference_norm = (
        sqrt(sum((count * idf[ngram]) ** 2 for ngram, count in side.items())) for side in (counts, theirs)
    )
    dot = sum(it.product for it in shared)
    length = norm * reference_norm
    return Cosine(n, shared, dot, norm, reference_norm, dot / length if length > 0 else 0.0)
