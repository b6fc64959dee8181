"""BLEU-1..4 as coco-caption computes it.  Papineni et al., "BLEU", ACL 2002; the two constants are coco-caption's."""

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.ngrams import ORDERS
from limner.metrics.references import Candidates, References, Score

TINY, SMALL = 1e-15, 1e-9  # keep a precision without a match above 0, and one without an n-gram defined


def bleu(candidates: Candidates, references: References, order: int = 4) -> Score:
    """BLEU of n-grams up to `order` (1..4), in [0, 1].

    The corpus value pools matches and lengths over the images (it is not the mean of the segments).
    Raises ValueError for another order.
    """
    parts = counts(candidates, references, order)
    return Score(float(of_counts(*(part.sum(0) for part in parts))), np.asarray(of_counts(*parts)))


def counts(
    candidates: Candidates, references: References, order: int
) -> tuple[Float[np.ndarray, "I n"], Int[np.ndarray, "I n"], Int[np.ndarray, " I"], Int[np.ndarray, " I"]]:
    """Per image what `of_counts` takes; sums over images give the BLEU of these images together."""
    if not 1 <= order <= ORDERS:
        raise ValueError(f"BLEU-{order} is not defined here; order is 1 to {ORDERS}")
    table, images = candidates.table, len(references.ids)
    clipped = np.minimum(table.count, references.postings.peak[candidates.pair])  # section 2.1
    correct = table.total(clipped, images)
    guess = np.maximum(0, candidates.lengths[:, None] - np.arange(ORDERS))
    closest = _closest(candidates.lengths, references)
    return correct[:, :order], guess[:, :order], candidates.lengths, closest


def of_counts(
    correct: Float[np.ndarray, "... n"],
    guess: Int[np.ndarray, "... n"],
    length: Int[np.ndarray, "..."] | np.integer,
    reference: Int[np.ndarray, "..."] | np.integer,
) -> Float[np.ndarray, "..."] | float:
    """Geometric mean of the n precisions, times the brevity penalty exp(1 - r/c) where c < r (section 2.3)."""
    precision = (correct + TINY) / (guess + SMALL)
    ratio = (length + TINY) / (reference + SMALL)
    # multiplied in order, and by numpy's scalar power for the corpus: the reference tool's value to the last bit
    return precision.cumprod(-1).T[-1] ** (1 / correct.shape[-1]) * np.exp(np.minimum(0, 1 - 1 / ratio))


def _closest(lengths: Int[np.ndarray, " I"], references: References) -> Int[np.ndarray, " I"]:
    """Per image the reference length nearest to the hypothesis'; of two as near, the shorter."""
    reference, beyond = references.lengths, int(references.lengths.max()) + 1
    ranked = np.abs(reference - lengths[references.owner]) * beyond + reference
    return np.minimum.reduceat(ranked, references.postings.first) % beyond
