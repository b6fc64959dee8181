"""Paired bootstrap over the media: is the difference of two captioners' corpus scores more than chance?

Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004.  The p-value is that of Efron
and Tibshirani, "An introduction to the bootstrap", 1993, section 16.4, with the added 1 of Davison and Hinkley, 1997,
eq. 4.11.

A draw takes as many media as there are, with replacement; the same media for every captioner and metric.  From each
draw the corpus score is computed as the metric computes it: BLEU from the summed counts of the drawn media, not as the
mean of their scores.  CIDEr's document frequencies stay those of all media, because they belong to the references and
not to the draw.  The intervals show the variation over media only; another training seed varies scores further.

An example with three media, on which the second captioner scores 1, 1 and -1 more than the first.  The difference is
1/3.  All 27 draws of three media can be listed: their mean difference is 1 in 8 draws, 1/3 in 12, -1/3 in 6 and -1 in
1.  The p-value asks how often a draw lies as far from 1/3 as 1/3 lies from 0.  Only the 12 draws of 1/3 are closer, so
p is 15 / 27 (with the added 1: 16 / 28).

>>> draws = np.repeat([1, 1 / 3, -1 / 3, -1], [8, 12, 6, 1])
>>> result = difference(first=0.0, second=1 / 3, first_draws=np.zeros(27), second_draws=draws)
>>> round(result.value, 3), round(result.p, 3)
(0.333, 0.571)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.bleu import bleu_counts, bleu_from_counts
from limner.metrics.meteor import meteor_counts
from limner.metrics.meteor.statistics import corpus_summands, score_from_counts
from limner.metrics.references import Candidates, References, Score

LEVEL = 0.95
MAX_CELLS = 1 << 22  # draws x media that are in memory at once
TOLERANCE = 1e-12  # two differences closer than this are equal: only the order of a sum differs


class CorpusStatistics(NamedTuple):
    """The sufficient statistics of a corpus score: counts per medium, and the score as a function of their sums.

    counts  (I, k) k numbers per medium
    score   (S, k) sums of S draws -> the corpus score of each
    """

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
    """Second minus first.  `p` is two-sided, in (0, 1], and not corrected for multiple comparisons."""

    p: float


def mean_statistics(segments: Float[np.ndarray, " I"]) -> CorpusStatistics:
    """The statistics of a corpus score that is the mean of the media's scores."""
    media = len(segments)
    return CorpusStatistics(segments[:, None].astype(np.float64), lambda sums: sums[:, 0] / media)


def bleu_statistics(candidates: Candidates, references: References, order: int) -> CorpusStatistics:
    """The statistics of corpus BLEU-`order`: matches, n-grams, words and closest reference lengths."""
    columns = np.column_stack(bleu_counts(candidates, references, order)).astype(np.float64)

    def score(sums: Float[np.ndarray, "S k"]) -> Float[np.ndarray, " S"]:
        integers = sums.astype(np.int64)  # exact: these sums are integers
        counts = integers[:, order : 2 * order], integers[:, 2 * order], integers[:, 2 * order + 1]
        return np.asarray(bleu_from_counts(sums[:, :order], *counts))

    return CorpusStatistics(columns, score)


def metric_statistics(name: str, score: Score, candidates: Candidates, references: References) -> CorpusStatistics:
    """The statistics of a metric of `report.METRICS`, given by its name and its score of these captions.

    It can be BLEU, METEOR, or a metric that has the mean of its segments as corpus score.  Raises ValueError for any
    other metric.
    """
    if name.startswith("BLEU-"):
        statistics = bleu_statistics(candidates, references, int(name.removeprefix("BLEU-")))
    elif name == "METEOR":
        counts = corpus_summands(meteor_counts(candidates, references)).astype(np.float64)
        statistics = CorpusStatistics(counts, lambda sums: np.array([score_from_counts(row) for row in sums]))
    else:
        statistics = mean_statistics(score.segments)
    corpus = float(statistics.score(statistics.counts.sum(0, keepdims=True))[0])
    if abs(corpus - score.corpus) > 1e-9:
        raise ValueError(
            f"{name} is {score.corpus}, not the mean of its segments, {corpus}: a bootstrap needs its statistics, add "
            "them to `metric_statistics`"
        )
    return statistics


def bootstrap(statistics: Sequence[CorpusStatistics], draws: int = 1000, seed: int = 0) -> Float[np.ndarray, "P S"]:
    """The corpus score of each of P statistics on `draws` draws of media, which are the same for all of them.

    Raises ValueError for fewer than two media: every draw of a single medium is that medium, and nothing would vary.
    """
    counts = np.concatenate([one.counts for one in statistics], 1)
    if len(counts) < 2:
        raise ValueError(f"a bootstrap draws media with replacement and needs at least 2, got {len(counts)}")
    widths = np.cumsum([one.counts.shape[1] for one in statistics])[:-1]
    sums = np.concatenate([times @ counts for times in _multiplicities(len(counts), draws, seed)])
    columns = np.split(sums, widths, axis=1)
    return np.stack([one.score(column) for one, column in zip(statistics, columns, strict=True)])


def _multiplicities(media: int, draws: int, seed: int) -> Iterator[Float[np.ndarray, "S I"]]:
    """How often each medium occurs in each draw; a few draws at a time."""
    rng = np.random.default_rng(seed)
    rows = max(1, MAX_CELLS // media)
    for start in range(0, draws, rows):
        drawn: Int[np.ndarray, "S I"] = rng.integers(media, size=(min(rows, draws - start), media))
        cells = drawn + media * np.arange(len(drawn))[:, None]
        yield np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def estimate(value: float, draws: Float[np.ndarray, " S"]) -> Estimate:
    """A score, and the interval that holds the middle `LEVEL` of its draws."""
    return Estimate(value, *_interval(draws))


def difference(
    first: float, second: float, first_draws: Float[np.ndarray, " S"], second_draws: Float[np.ndarray, " S"]
) -> Difference:
    """Second minus first, with its interval and p-value.

    p is the share of draws in which the difference lies as far from the observed one as the observed one lies from 0.
    Equal scores give 0 and p = 1; the smallest possible p is 1 / (draws + 1).
    """
    observed = second - first
    draws = second_draws - first_draws
    extreme = int((np.abs(draws - observed) >= abs(observed) - TOLERANCE).sum())
    return Difference(observed, *_interval(draws), p=(1 + extreme) / (1 + len(draws)))


def _interval(draws: Float[np.ndarray, " S"]) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
