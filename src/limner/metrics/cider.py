"""CIDEr.  Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based image description evaluation", CVPR 2015.

Two metrics go by this name:
- `cider` is what papers report as "CIDEr" since coco-caption: the paper's CIDEr-D (clipped counts, length penalty).
- `cider_unclipped` is the paper's own first definition (eq. 2-3), which hardly anyone reports.

The document frequencies are those of the references at hand: a score depends on which images are evaluated together,
and with one image every idf, and so every score, is 0.
"""

import numpy as np
from jaxtyping import Float

from limner.metrics.references import ORDERS, Candidates, References, Score, sums

SIGMA = 6.0  # width of the length penalty, in words (section 5)
SCALE = 10.0


def cider(candidates: Candidates, references: References) -> Score:
    """CIDEr as coco-caption reports it, which is CIDEr-D (eq. 4), in [0, 10]; the corpus value is the mean.

    pycocoevalcap's "CIDEr" and the literature's "CIDEr-D" are this one function; CIDEr "120" is 1.20 here.
    """
    cosine = _similarity(candidates, references, clip=True)
    # The reference tool measures length in bigrams, which differs from words for an empty sentence only.
    bigrams = np.maximum(0, candidates.lengths - 1)[references.owner] - np.maximum(0, references.lengths - 1)
    return _score(cosine * np.exp(-(bigrams**2) / (2 * SIGMA**2)), references)


def cider_unclipped(candidates: Candidates, references: References) -> Score:
    """The CIDEr of the paper's eq. 2-3: mean cosine of tf-idf vectors, no clipping, no length penalty; in [0, 10].

    Not what coco-caption prints as "CIDEr".  The paper's x10 belongs to CIDEr-D; it is applied here too, so that both
    are on one scale.  Words are not stemmed.
    """
    return _score(_similarity(candidates, references, clip=False), references)


def _score(similarity: Float[np.ndarray, " R"], references: References) -> Score:
    """Mean over an image's references, then over the images."""
    segments = SCALE * np.bincount(references.owner, similarity) / references.per_image
    return Score(float(segments.mean()), segments)


def _similarity(candidates: Candidates, references: References, clip: bool) -> Float[np.ndarray, " R"]:
    """Cosine of the tf-idf vectors of each reference and its image's hypothesis, averaged over n = 1..4.

    `clip` limits a hypothesis' count to the reference's (in the product only, not in the norm), as eq. 4 does.
    """
    table, hit = candidates.table, np.flatnonzero(candidates.pair >= 0)
    pair = candidates.pair[hit]
    runs = references.start[pair + 1] - references.start[pair]
    entry = np.repeat(hit, runs)  # of the hypotheses' table, once for each reference that holds the n-gram
    offset = np.arange(len(entry)) - np.repeat(np.cumsum(runs) - runs, runs)
    posting = references.posting[np.repeat(references.start[pair], runs) + offset]
    h, r = table.count[entry], references.table.count[posting]
    weight = (np.minimum(h, r) if clip else h) * r * references.idf[table.gram[entry]] ** 2

    rows = len(references.owner)
    product = sums(references.table.row[posting] * ORDERS + table.order[entry], weight, rows)
    norms = table.norms(references.idf, len(references.ids))[references.owner] * references.norms
    return np.divide(product, norms, out=np.zeros_like(product), where=norms > 0).mean(1)
