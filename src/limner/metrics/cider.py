"""CIDEr.  Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based image description evaluation", CVPR 2015.

What papers have reported as "CIDEr" since coco-caption is the paper's CIDEr-D (eq. 4), which clips counts and has a
length penalty.  The paper's first definition (eq. 2-3) has neither; hardly anyone reports it, and it is not here.

The document frequencies are counted on the given references, so a score depends on which images are evaluated
together.  With a single image every idf is log(1) = 0, and so is every score.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.ngrams import MAX_ORDER, NgramCounts, Postings, concatenated_ranges, sum_by_cell
from limner.metrics.references import Candidates, References, Score

SIGMA = 6.0  # width of the length penalty, in words (section 5)
SCALE = 10.0


class Hypotheses(NamedTuple):
    """Captions as tf-idf vectors, prepared for a comparison with the references of their media.

    Letters in shapes: H hypotheses, E entries of `counts`.
    """

    counts: NgramCounts
    idf: Float[np.ndarray, " E"]
    pair: Int[np.ndarray, " E"]  # see `Postings.lookup`
    lengths: Int[np.ndarray, " H"]
    medium: Int[np.ndarray, " H"]


def cider(candidates: Candidates, references: References) -> Score:
    """CIDEr as coco-caption reports it, which is the paper's CIDEr-D (eq. 4), in [0, 10]; the corpus value is the mean.

    pycocoevalcap's "CIDEr" and the literature's "CIDEr-D" are this one function.  A CIDEr of "120" is 1.20 here.

    Two images.  "a" occurs in the references of both, so its idf is log(2 / 2) = 0; all other n-grams have log(2 / 1).
    For x, the caption equals the reference: the cosine is 1 for n = 1 and 2, and 0 for n = 3 and 4, because there are
    no such n-grams.  The score is 10 * (1 + 1 + 0 + 0) / 4 = 5.

    >>> references = References({"x": ["a b"], "y": ["a c"]}, "split")
    >>> cider(references.candidates({"x": "a b", "y": "a"}), references).segments.tolist()
    [5.0, 0.0]
    """
    return _score(cider_d(_hypotheses(candidates, references), references.postings, references.tfidf_norms))


def cider_d(
    hypotheses: Hypotheses,
    references: Postings,
    norms: Float[np.ndarray, "R 4"],
    weights: Float[np.ndarray, " R"] | None = None,
) -> Float[np.ndarray, " H"]:
    """CIDEr-D (eq. 4) of each hypothesis against the references of its medium, in [0, 10].

    `norms` are the lengths of the references' tf-idf vectors.  `weights` replace the mean over the references of a
    medium by a weighted sum; those of a medium should sum to 1.
    """
    similarity = _similarity(hypotheses, references, norms)
    # The reference tool measures lengths in bigrams, which is a difference only for empty sentences.
    difference = np.maximum(0, hypotheses.lengths - 1)[similarity.hypothesis]
    difference = difference - np.maximum(0, references.lengths - 1)[similarity.reference]
    value = similarity.cosine * np.exp(-(difference**2) / (2 * SIGMA**2))
    return SCALE * (similarity.mean(value) if weights is None else similarity.weighted_sum(value, weights))


def _hypotheses(candidates: Candidates, references: References) -> Hypotheses:
    idf = references.idf[candidates.counts.ngram]
    return Hypotheses(candidates.counts, idf, candidates.pair, candidates.lengths, np.arange(len(references.ids)))


def _score(segments: Float[np.ndarray, " I"]) -> Score:
    return Score(float(segments.mean()), segments)


class _Similarity(NamedTuple):
    """Every hypothesis compared with every reference of its medium: P comparisons."""

    hypothesis: Int[np.ndarray, " P"]
    reference: Int[np.ndarray, " P"]
    references: Int[np.ndarray, " H"]  # number of references of each hypothesis' medium
    cosine: Float[np.ndarray, " P"]  # of the tf-idf vectors, averaged over n = 1..4

    def mean(self, value: Float[np.ndarray, " P"]) -> Float[np.ndarray, " H"]:
        """The mean over the references of each hypothesis."""
        return np.bincount(self.hypothesis, value, minlength=len(self.references)) / self.references

    def weighted_sum(self, value: Float[np.ndarray, " P"], weights: Float[np.ndarray, " R"]) -> Float[np.ndarray, " H"]:
        """The sum over the references of each hypothesis, each times its weight."""
        return np.bincount(self.hypothesis, value * weights[self.reference], minlength=len(self.references))


def _similarity(hypotheses: Hypotheses, references: Postings, norms: Float[np.ndarray, "R 4"]) -> _Similarity:
    """Compare each hypothesis with the references of its medium.

    A hypothesis' count is clipped to the reference's count, as in eq. 4; this changes the dot product and not the
    norms.  Only an n-gram that a hypothesis shares with a reference of its medium adds to a dot product.
    `entry` and `posting` list all such n-grams, and `comparison` says to which of the P comparisons each one belongs.
    """
    counts, medium, number = hypotheses.counts, hypotheses.medium, len(hypotheses.lengths)
    per_hypothesis, first = references.per_medium[medium], references.first[medium]
    hypothesis, reference = np.repeat(np.arange(number), per_hypothesis), concatenated_ranges(first, per_hypothesis)

    shared = np.flatnonzero(hypotheses.pair >= 0)
    start = references.start[hypotheses.pair[shared]]
    holders = references.start[hypotheses.pair[shared] + 1] - start  # references that contain the n-gram
    entry = np.repeat(shared, holders)  # of the hypotheses' counts
    posting = concatenated_ranges(start, holders)  # of the references' counts
    h, r, row = counts.count[entry], references.counts.count[posting], counts.sentence[entry]
    weight = np.minimum(h, r) * r * hypotheses.idf[entry] ** 2
    comparison = (np.cumsum(per_hypothesis) - per_hypothesis - first)[row] + references.counts.sentence[posting]

    product = sum_by_cell(comparison * MAX_ORDER + counts.order[entry], weight, len(hypothesis))
    length = counts.tfidf_norms(hypotheses.idf, number)[hypothesis] * norms[reference]
    cosine = np.divide(product, length, out=np.zeros_like(product), where=length > 0).mean(1)
    return _Similarity(hypothesis, reference, per_hypothesis, cosine)
