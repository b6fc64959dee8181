"""Comparison of systems that were trained several times: means over seeds, their spread, and intervals over both.

A system is a group of runs that differ in their seed.  Its score is the mean of the corpus scores of its runs.  A draw
of the bootstrap takes media with replacement, the same for all runs, and for each group n - 1 of its n runs with
replacement.  With n - 1 the variance over draws of the mean is that of a mean of n runs, s^2 / n; with n draws it would
be too small by (n - 1) / n, a third for three seeds (Rao and Wu, "Resampling inference with complex survey data",
JASA 1988).  A group of one run has no spread, and its interval is about the media only.

An example: three runs that score 0, 0 and 3 on every medium.  Their mean is 1, and s^2 = 3.  A draw takes two of them:
the mean of two is 0 in 4 of 9 draws, 1.5 in 4 and 3 in 1, and its variance is 1 = s^2 / 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float

from limner.comparison.compare import LETTERS, common_ids, unique_metrics
from limner.comparison.compared_runs import ComparedRun, match_to_references
from limner.comparison.protocol import comparison_protocol, comparison_warnings
from limner.core.types import Medium
from limner.metrics.references import References
from limner.metrics.report import compute_scores
from limner.metrics.significance import Difference, Estimate, bootstrap, difference, estimate, metric_statistics
from limner.text.scripts import caption_notes


@dataclass(frozen=True)
class SeedGroup:
    """The scores of one system, as fractions: of each of its runs, their mean, and their standard deviation.

    `spread` is the sample standard deviation (n - 1) over the runs; nan for a single run.
    """

    letter: str
    runs: tuple[ComparedRun, ...]
    scores: dict[str, tuple[float, ...]]
    means: dict[str, Estimate]
    spread: dict[str, float]


@dataclass(frozen=True)
class SeedComparison:
    """The result of `compare_seeds`.  `differences[k]` is the mean of group k + 1 minus that of group 0."""

    ids: tuple[str, ...]
    groups: tuple[SeedGroup, ...]
    differences: tuple[dict[str, Difference], ...]
    protocol: dict[str, str | int | float]
    warnings: tuple[str, ...]
    left_out: int  # items that only some of the runs have captions for

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.groups[0].means)


def compare_seeds(
    groups: Sequence[Sequence[ComparedRun]],
    media: Mapping[str, Medium],
    tokenizer: str,
    draws: int = 1000,
    seed: int = 0,
) -> SeedComparison:
    """Score all runs of all groups on the items for which each run has a caption; the first group is the baseline.

    Arguments as of `limner.comparison.compare.compare`; `seed` is that of the draws.
    Raises ValueError for fewer than two groups, an empty group, captions without references, or fewer than two items.
    """
    if not 2 <= len(groups) <= len(LETTERS) or not all(groups):
        raise ValueError(f"expected 2 to {len(LETTERS)} groups of runs, got {[len(group) for group in groups]} runs")
    labels = [f"{letter}{n}" for letter, group in zip(LETTERS, groups, strict=False) for n in range(1, len(group) + 1)]
    runs = [match_to_references(run, media) for run in chain(*groups)]
    ids, left_out_notes = common_ids(runs, media, labels)
    references = References({id: media[id].references for id in ids}, tokenizer)
    candidates = [references.candidates({id: run.captions[id] for id in ids}) for run in runs]
    scored = [compute_scores(c, references) for c in candidates]
    names = unique_metrics(scored[0][0])
    statistics = [
        metric_statistics(name, scores[name], c, references)
        for c, (scores, _) in zip(candidates, scored, strict=True)
        for name in names
    ]
    samples = bootstrap(statistics, draws, seed).reshape(len(runs), len(names), draws)
    corpus = [{name: scores[name].corpus for name in names} for scores, _ in scored]
    ends = np.cumsum([len(group) for group in groups])
    rng = np.random.default_rng([seed, 1])  # not the stream that draws the media
    drawn = [mean_of_drawn_runs(part, rng) for part in np.split(samples, ends[:-1])]
    found = tuple(
        _seed_group(letter, runs[end - len(group) : end], corpus[end - len(group) : end], group_draws)
        for letter, group, end, group_draws in zip(LETTERS, groups, ends.tolist(), drawn, strict=False)
    )
    first = found[0].means
    differences = tuple(
        {
            name: difference(first[name].value, group.means[name].value, drawn[0][m], drawn[k][m])
            for m, name in enumerate(names)
        }
        for k, group in enumerate(found[1:], 1)
    )
    protocol = comparison_protocol(references, draws, seed)
    warnings = comparison_warnings(dict(zip(labels, runs, strict=True)), corpus, protocol)
    alone = [f"{it.letter} is a single run: its interval says nothing about seeds" for it in found if len(it.runs) == 1]
    texts = chain(*(c.texts for c in candidates), *references.texts)
    notes = (*left_out_notes, *scored[0][1], *warnings, *alone, *caption_notes(texts, tokenizer))
    left_out = len(set().union(*(run.captions for run in runs))) - len(ids)
    return SeedComparison(tuple(ids), found, differences, protocol, notes, left_out)


def mean_of_drawn_runs(samples: Float[np.ndarray, "R M S"], rng: np.random.Generator) -> Float[np.ndarray, "M S"]:
    """The mean over n - 1 of the n = R runs, drawn with replacement anew for each of S draws of media.

    `samples` are the scores of R runs in M metrics on S draws of media.
    """
    count, _, draws = samples.shape
    chosen = rng.integers(count, size=(draws, max(1, count - 1)))
    times = np.stack([np.bincount(row, minlength=count) for row in chosen], 1) / chosen.shape[1]  # (R, S)
    return np.einsum("rs,rms->ms", times, samples)


def _seed_group(
    letter: str,
    runs: Sequence[ComparedRun],
    corpus: Sequence[Mapping[str, float]],
    draws: Float[np.ndarray, "M S"],
) -> SeedGroup:
    scores = {name: tuple(each[name] for each in corpus) for name in corpus[0]}
    means = {
        name: estimate(float(np.mean(values)), sample)
        for (name, values), sample in zip(scores.items(), draws, strict=True)
    }
    spread = {name: float(np.std(values, ddof=1)) if len(values) > 1 else np.nan for name, values in scores.items()}
    return SeedGroup(letter, tuple(runs), scores, means, spread)


def seeds_to_json(comparison: SeedComparison) -> dict[str, Any]:
    """All numbers of a comparison as JSON values; scores are fractions, and `spread` is None for a single run."""
    first, *others = comparison.groups
    return {
        "groups": [
            {
                "letter": it.letter,
                "runs": [{"name": run.name, "path": str(run.path)} for run in it.runs],
                "scores": {
                    name: {
                        **asdict(mean),
                        "spread": it.spread[name] if len(it.runs) > 1 else None,
                        "runs": list(it.scores[name]),
                    }
                    for name, mean in it.means.items()
                },
            }
            for it in comparison.groups
        ],
        "differences": [
            {"of": it.letter, "minus": first.letter, "scores": {name: asdict(value) for name, value in row.items()}}
            for it, row in zip(others, comparison.differences, strict=True)
        ],
        "protocol": {**comparison.protocol, "scale": "fractions"},
        "warnings": comparison.warnings,
        "left_out": comparison.left_out,
    }
