"""CIDEr.  Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based image description evaluation", CVPR 2015.

Two metrics go by this name:
- `cider` is what papers report as "CIDEr" since coco-caption: the paper's CIDEr-D (clipped counts, length penalty).
- `cider_unclipped` is the paper's own first definition (eq. 2-3), which hardly anyone reports.

The document frequencies are those of the references at hand: a score depends on which images are evaluated together,
and with one image every idf, and so every score, is 0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.ngrams import ORDERS, Postings, Table, ranges, sums
from limner.metrics.references import Candidates, References, Score

SIGMA = 6.0  # width of the length penalty, in words (section 5)
SCALE = 10.0


class Sentences(NamedTuple):
    """Hypotheses as tf-idf vectors beside the references of their images."""

    table: Table
    idf: Float[np.ndarray, " E"]  # of each entry
    pair: Int[np.ndarray, " E"]  # see Postings.find
    lengths: Int[np.ndarray, " S"]
    image: Int[np.ndarray, " S"]


def cider(candidates: Candidates, references: References) -> Score:
    """CIDEr as coco-caption reports it, which is CIDEr-D (eq. 4), in [0, 10]; the corpus value is the mean.

    pycocoevalcap's "CIDEr" and the literature's "CIDEr-D" are this one function; CIDEr "120" is 1.20 here.
    """
    return _score(cider_d(_sentences(candidates, references), references.postings, references.norms))


def cider_unclipped(candidates: Candidates, references: References) -> Score:
    """The CIDEr of the paper's eq. 2-3: mean cosine of tf-idf vectors, no clipping, no length penalty; in [0, 10].

    Not what coco-caption prints as "CIDEr".  The paper's x10 belongs to CIDEr-D; it is applied here too, so that both
    are on one scale.  Words are not stemmed.
    """
    compared = _compare(_sentences(candidates, references), references.postings, references.norms, clip=False)
    return _score(SCALE * compared.mean(compared.cosine))


def cider_d(hypotheses: Sentences, references: Postings, norms: Float[np.ndarray, "R 4"]) -> Float[np.ndarray, " S"]:
    """CIDEr-D (eq. 4) of each hypothesis against the references of its image, in [0, 10]; `norms` of the references."""
    compared = _compare(hypotheses, references, norms, clip=True)
    # The reference tool measures length in bigrams, which differs from words for an empty sentence only.
    bigrams = np.maximum(0, hypotheses.lengths - 1)[compared.left]
    bigrams = bigrams - np.maximum(0, references.lengths - 1)[compared.right]
    return SCALE * compared.mean(compared.cosine * np.exp(-(bigrams**2) / (2 * SIGMA**2)))


def _sentences(candidates: Candidates, references: References) -> Sentences:
    idf = references.idf[candidates.table.gram]
    return Sentences(candidates.table, idf, candidates.pair, candidates.lengths, np.arange(len(references.ids)))


def _score(segments: Float[np.ndarray, " I"]) -> Score:
    return Score(float(segments.mean()), segments)


class _Compared(NamedTuple):
    """Every hypothesis with every reference of its image."""

    left: Int[np.ndarray, " P"]  # which hypothesis
    right: Int[np.ndarray, " P"]  # which reference
    many: Int[np.ndarray, " S"]  # references of a hypothesis' image
    cosine: Float[np.ndarray, " P"]  # of the tf-idf vectors, averaged over n = 1..4

    def mean(self, value: Float[np.ndarray, " P"]) -> Float[np.ndarray, " S"]:
        """Over the references."""
        return np.bincount(self.left, value, minlength=len(self.many)) / self.many


def _compare(hypotheses: Sentences, references: Postings, norms: Float[np.ndarray, "R 4"], clip: bool) -> _Compared:
    """`clip` limits a hypothesis' count to the reference's (in the product only, not in the norm), as eq. 4 does."""
    table, image, count = hypotheses.table, hypotheses.image, len(hypotheses.lengths)
    many, first = references.per_image[image], references.first[image]
    left, right = np.repeat(np.arange(count), many), ranges(first, many)

    hit = np.flatnonzero(hypotheses.pair >= 0)
    start = references.start[hypotheses.pair[hit]]
    runs = references.start[hypotheses.pair[hit] + 1] - start
    entry = np.repeat(hit, runs)  # of the hypotheses' table, once for each reference that holds the n-gram
    posting = ranges(start, runs)
    h, r, row = table.count[entry], references.table.count[posting], table.row[entry]
    weight = (np.minimum(h, r) if clip else h) * r * hypotheses.idf[entry] ** 2
    pair = (np.cumsum(many) - many - first)[row] + references.table.row[posting]

    product = sums(pair * ORDERS + table.order[entry], weight, len(left))
    length = table.norms(hypotheses.idf, count)[left] * norms[right]
    cosine = np.divide(product, length, out=np.zeros_like(product), where=length > 0).mean(1)
    return _Compared(left, right, many, cosine)
