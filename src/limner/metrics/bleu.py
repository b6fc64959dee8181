"""BLEU-1 to BLEU-4 as coco-caption computes them.

Papineni, Roukos, Ward, Zhu, "BLEU: a method for automatic evaluation of machine translation", ACL 2002.  The names
`correct` and `guess` and the two constants are coco-caption's.
"""

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.ngrams import MAX_ORDER
from limner.metrics.references import Candidates, References, Score

TINY, SMALL = 1e-15, 1e-9  # TINY keeps a precision without matches above 0; SMALL avoids a division by 0


def bleu(candidates: Candidates, references: References, order: int = 4) -> Score:
    """BLEU with n-grams of up to `order` words (1..4), in [0, 1].

    The corpus value is computed from the matches and lengths of all media together; it is not the mean of the segments.
    Raises ValueError for another order.

    "the" occurs once in the reference, so only one of its two occurrences counts: 2 of 3 words match.  The caption is
    one word shorter than the reference, which costs exp(1 - 4 / 3).

    >>> references = References({"x": ["the cat sat on"]}, "split")
    >>> score = bleu(references.candidates({"x": "the the cat"}), references, order=1)
    >>> round(score.corpus, 6), round(float(2 / 3 * np.exp(-1 / 3)), 6)
    (0.477688, 0.477688)
    """
    counts = bleu_counts(candidates, references, order)
    corpus = bleu_from_counts(*(column.sum(0) for column in counts))
    return Score(float(corpus), np.asarray(bleu_from_counts(*counts)))


def bleu_counts(
    candidates: Candidates, references: References, order: int
) -> tuple[Float[np.ndarray, "I n"], Int[np.ndarray, "I n"], Int[np.ndarray, " I"], Int[np.ndarray, " I"]]:
    """The arguments of `bleu_from_counts` for each medium.  Their sums over media give the BLEU of these media."""
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"BLEU-{order} is not defined here; order is 1 to {MAX_ORDER}")
    counts, media = candidates.counts, len(references.ids)
    clipped = np.minimum(counts.count, references.postings.max_count[candidates.pair])  # section 2.1
    correct = counts.sum_by_order(clipped, media)
    guess = np.maximum(0, candidates.lengths[:, None] - np.arange(MAX_ORDER))
    closest = _closest_reference_length(candidates.lengths, references)
    return correct[:, :order], guess[:, :order], candidates.lengths, closest


def bleu_from_counts(
    correct: Float[np.ndarray, "... n"],
    guess: Int[np.ndarray, "... n"],
    length: Int[np.ndarray, "..."] | np.integer,
    reference_length: Int[np.ndarray, "..."] | np.integer,
) -> Float[np.ndarray, "..."] | float:
    """The geometric mean of the n-gram precisions times the brevity penalty (section 2.3).

    correct           n-grams of the candidate that match a reference, per order
    guess             all n-grams of the candidate, per order
    length            c, words of the candidate
    reference_length  r, words of the reference of the closest length; the penalty is exp(1 - r / c) where c < r
    """
    precision = (correct + TINY) / (guess + SMALL)
    ratio = (length + TINY) / (reference_length + SMALL)
    # Multiplied in order, and for the corpus with numpy's scalar power: equal to the reference tool to the last bit
    return precision.cumprod(-1).T[-1] ** (1 / correct.shape[-1]) * np.exp(np.minimum(0, 1 - 1 / ratio))


def _closest_reference_length(lengths: Int[np.ndarray, " I"], references: References) -> Int[np.ndarray, " I"]:
    """Per medium the reference length that is closest to the candidate's; of two equally close ones the shorter.

    A single minimum finds both: each reference is ranked by (distance * limit + length), where the limit is larger than
    every length, and the remainder of the smallest rank is the length.  For 3 words and references of 4 and 2 words the
    limit is 5 and the ranks are 1 * 5 + 4 = 9 and 1 * 5 + 2 = 7: the length is 7 % 5 = 2.
    """
    reference_lengths, limit = references.lengths, int(references.lengths.max()) + 1
    rank = np.abs(reference_lengths - lengths[references.medium_of]) * limit + reference_lengths
    return np.minimum.reduceat(rank, references.postings.first) % limit
