"""BLEU-1..4 as coco-caption computes it.  Papineni et al., "BLEU", ACL 2002; the two constants are coco-caption's."""

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.references import ORDERS, Candidates, References, Score

TINY, SMALL = 1e-15, 1e-9  # keep a precision without a match above 0, and one without an n-gram defined


def bleu(candidates: Candidates, references: References, order: int = 4) -> Score:
    """BLEU of n-grams up to `order` (1..4), in [0, 1].

    The corpus value pools matches and lengths over the images (it is not the mean of the segments).
    Raises ValueError for another order.
    """
    if not 1 <= order <= ORDERS:
        raise ValueError(f"BLEU-{order} is not defined here; order is 1 to {ORDERS}")
    table, images = candidates.table, len(references.ids)
    clipped = np.minimum(table.count, references.peak[candidates.pair])  # section 2.1
    correct = table.total(clipped, images)
    guess = np.maximum(0, candidates.lengths[:, None] - np.arange(ORDERS))
    closest = _closest(candidates.lengths, references)
    segments = _bleu(correct[:, :order], guess[:, :order], candidates.lengths, closest)
    pooled = [x.sum(0, keepdims=True) for x in (correct[:, :order], guess[:, :order], candidates.lengths, closest)]
    return Score(float(_bleu(*pooled)[0]), segments)


def _bleu(
    correct: Float[np.ndarray, "I n"],
    guess: Int[np.ndarray, "I n"],
    length: Int[np.ndarray, " I"],
    reference: Int[np.ndarray, " I"],
) -> Float[np.ndarray, " I"]:
    """Geometric mean of the n precisions, times the brevity penalty exp(1 - r/c) where c < r (section 2.3)."""
    precision = (correct + TINY) / (guess + SMALL)
    ratio = (length + TINY) / (reference + SMALL)
    return precision.prod(1) ** (1 / correct.shape[1]) * np.exp(np.minimum(0, 1 - 1 / ratio))


def _closest(lengths: Int[np.ndarray, " I"], references: References) -> Int[np.ndarray, " I"]:
    """Per image the reference length nearest to the hypothesis'; of two as near, the shorter."""
    options = np.split(references.lengths, np.cumsum(references.per_image)[:-1])
    return np.array(
        [
            min((abs(reference - length), reference) for reference in option.tolist())[1]
            for length, option in zip(lengths.tolist(), options, strict=True)
        ]
    )
