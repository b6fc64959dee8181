"""Are two captioners' corpus scores apart, or is it the choice of items?  The paired bootstrap over the items.

Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004; the p-value is that of Efron and
Tibshirani, "An introduction to the bootstrap", 1993, section 16.4, with the 1 + of Davison and Hinkley, 1997, eq. 4.11.

The items are drawn anew with replacement, the same ones for every side and metric, and a corpus score is computed from
each draw as the metric computes it: BLEU from the summed counts of the drawn items, not as a mean of its segments.
CIDEr's document frequencies stay those of the full set, because they belong to the references and not to the draw.
The spread is that of the items only: another training seed spreads scores further.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.bleu import counts, of_counts
from limner.metrics.meteor import meteor_counts
from limner.metrics.meteor.statistics import score as meteor_score
from limner.metrics.meteor.statistics import summands
from limner.metrics.references import Candidates, References, Score

LEVEL = 0.95
CELLS = 1 << 22  # draws x items that are held at once
NOISE = 1e-12  # two differences closer than this are equal: they differ by the order of a sum


class Pool(NamedTuple):
    """A corpus score as a function of sums over the items: `score` takes one row of sums per draw."""

    counts: Float[np.ndarray, "I k"]
    score: Callable[[Float[np.ndarray, "S k"]], Float[np.ndarray, " S"]]


@dataclass(frozen=True)
class Estimate:
    """A corpus score, or a difference of two, and its percentile interval at `LEVEL`; fractions, not x100."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """Second minus first.  `p` is two-sided, in (0, 1], and not corrected for how many differences are looked at."""

    p: float


def mean_pool(segments: Float[np.ndarray, " I"]) -> Pool:
    """A corpus score that is the mean of the items' scores."""
    items = len(segments)
    return Pool(segments[:, None].astype(np.float64), lambda sums: sums[:, 0] / items)


def bleu_pool(candidates: Candidates, references: References, order: int) -> Pool:
    """Corpus BLEU-`order`: matches, n-grams, words and closest reference lengths are summed first."""
    columns = np.column_stack(counts(candidates, references, order)).astype(np.float64)

    def score(sums: Float[np.ndarray, "S k"]) -> Float[np.ndarray, " S"]:
        whole = sums.astype(np.int64)  # the sums of counts are whole numbers
        parts = whole[:, order : 2 * order], whole[:, 2 * order], whole[:, 2 * order + 1]
        return np.asarray(of_counts(sums[:, :order], *parts))

    return Pool(columns, score)


def pool_of(name: str, score: Score, candidates: Candidates, references: References) -> Pool:
    """How the metric `name` of `report.METRICS` makes its corpus score out of items.

    Known are BLEU, METEOR and every metric whose corpus score is the mean of its segments; raises ValueError for any
    other.
    """
    if name.startswith("BLEU-"):
        pool = bleu_pool(candidates, references, int(name.removeprefix("BLEU-")))
    elif name == "METEOR":
        parts = summands(meteor_counts(candidates, references)).astype(np.float64)
        pool = Pool(parts, lambda sums: np.array([meteor_score(row) for row in sums]))
    else:
        pool = mean_pool(score.segments)
    whole = float(pool.score(pool.counts.sum(0, keepdims=True))[0])
    if abs(whole - score.corpus) > 1e-9:
        raise ValueError(
            f"{name} is {score.corpus}, not the mean of its segments, {whole}: `pool_of` must learn its sums"
        )
    return pool


def bootstrap(pools: Sequence[Pool], draws: int = 1000, seed: int = 0) -> Float[np.ndarray, "P S"]:
    """The corpus score of each pool on `draws` resamples of the items, which are the same for all pools.

    Raises ValueError for fewer than two items: one item drawn again is itself, so nothing would seem to vary.
    """
    counts = np.concatenate([pool.counts for pool in pools], 1)
    if len(counts) < 2:
        raise ValueError(f"a bootstrap draws items anew and needs at least 2, got {len(counts)}")
    widths = np.cumsum([pool.counts.shape[1] for pool in pools])[:-1]
    sums = np.concatenate([times @ counts for times in _multiplicities(len(counts), draws, seed)])
    parts = np.split(sums, widths, axis=1)
    return np.stack([pool.score(part) for pool, part in zip(pools, parts, strict=True)])


def _multiplicities(items: int, draws: int, seed: int) -> Iterator[Float[np.ndarray, "S I"]]:
    """How often each item stands in each draw, in chunks of draws."""
    rng = np.random.default_rng(seed)
    rows = max(1, CELLS // items)
    for start in range(0, draws, rows):
        drawn: Int[np.ndarray, "S I"] = rng.integers(items, size=(min(rows, draws - start), items))
        cells = drawn + items * np.arange(len(drawn))[:, None]
        yield np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def estimate(value: float, samples: Float[np.ndarray, " S"]) -> Estimate:
    """A score and the interval that holds the middle `LEVEL` of its resamples."""
    return Estimate(value, *_interval(samples))


def difference(
    first: float, second: float, firsts: Float[np.ndarray, " S"], seconds: Float[np.ndarray, " S"]
) -> Difference:
    """Second minus first.  p: how often a resampled difference lies as far from the one found as that lies from 0.

    Equal sides give 0 and p = 1; the smallest p is 1 / (draws + 1).
    """
    found = second - first
    samples = seconds - firsts
    extreme = int((np.abs(samples - found) >= abs(found) - NOISE).sum())
    return Difference(found, *_interval(samples), p=(1 + extreme) / (1 + len(samples)))


def _interval(samples: Float[np.ndarray, " S"]) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
