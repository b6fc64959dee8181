"""Comparison of captioners on the same items: scores with bootstrap intervals, p-values and a human baseline.

All runs are scored with the same references, tokenizer and code.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float

from limner.comparison.compared_runs import ComparedRun, match_to_references
from limner.comparison.protocol import comparison_protocol, comparison_warnings
from limner.core.types import Medium
from limner.data.pairing import summarise_ids
from limner.metrics.references import Candidates, References, Score
from limner.metrics.report import METRICS, compute_scores
from limner.metrics.significance import Difference, Estimate, bootstrap, difference, estimate, metric_statistics
from limner.text.scripts import caption_notes

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class RunScores:
    """The scores of one run, as fractions; `segments` has the score of each item, in the order of `Comparison.ids`."""

    letter: str
    run: ComparedRun
    scores: dict[str, Estimate]
    segments: dict[str, Float[np.ndarray, " I"]]
    distinct: int  # different captions, after tokenisation
    vocabulary: int  # different words in the captions
    length: float  # mean words per caption


@dataclass(frozen=True)
class HumanBaseline:
    """One human against the other references, as fractions.

    `scores` are those of each item's first reference, scored against the rest; `runs` are the scores of the runs
    against the same rest, so the numbers are comparable.  `missing` is the reason when there is no baseline, else "".
    """

    scores: dict[str, float]
    runs: tuple[dict[str, float], ...]
    references: float  # mean number of references that are left per item
    missing: str = ""


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.  `differences[k]` is run k + 1 minus run 0; `protocol` is how all runs were measured."""

    ids: tuple[str, ...]
    items: tuple[Medium, ...]
    runs: tuple[RunScores, ...]
    differences: tuple[dict[str, Difference], ...]
    human: HumanBaseline
    protocol: dict[str, str | int | float]
    warnings: tuple[str, ...]
    left_out: int  # items that only some of the runs have captions for

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.runs[0].scores)


def unique_metrics(names: Iterable[str]) -> list[str]:
    """Names of metrics, without further names of the same metric."""
    first: dict[Any, str] = {}
    for name in names:
        first.setdefault(METRICS[name], name)
    return list(first.values())


def metric_aliases(name: str) -> list[str]:
    """The other names of a metric.

    >>> metric_aliases("CIDEr")
    ['CIDEr-D']
    """
    return [other for other, metric in METRICS.items() if metric is METRICS[name] and other != name]


def compare(
    runs: Sequence[ComparedRun], media: Mapping[str, Medium], tokenizer: str, draws: int = 1000, seed: int = 0
) -> Comparison:
    """Score all runs on the items for which each of them has a caption; the first run is the baseline of differences.

    media      images or clips with references, by id
    draws      bootstrap samples of the items, from which intervals and p-values follow; `seed` is theirs
    Raises ValueError for captions without references, fewer than two runs, or fewer than two common items.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise ValueError(f"a comparison takes 2 to {len(LETTERS)} runs, got {len(runs)}")
    runs = [match_to_references(run, media) for run in runs]
    ids, left_out_notes = common_ids(runs, media)
    references = References({id: media[id].references for id in ids}, tokenizer)
    candidates = [references.candidates({id: run.captions[id] for id in ids}) for run in runs]
    scored = [compute_scores(c, references) for c in candidates]
    names = unique_metrics(scored[0][0])
    results = [{name: scores[name] for name in names} for scores, _ in scored]
    pools = [
        metric_statistics(name, result, c, references)
        for c, scores in zip(candidates, results, strict=True)
        for name, result in scores.items()
    ]
    samples = bootstrap(pools, draws, seed).reshape(len(runs), len(names), draws)
    run_scores = tuple(
        _run_scores(LETTERS[k], run, candidates[k], results[k], samples[k]) for k, run in enumerate(runs)
    )
    differences = tuple(
        {
            name: difference(results[0][name].corpus, results[k][name].corpus, samples[0, m], samples[k, m])
            for m, name in enumerate(names)
        }
        for k in range(1, len(runs))
    )
    protocol = comparison_protocol(references, draws, seed)
    corpus = [{name: result.corpus for name, result in scores.items()} for scores in results]
    warnings = comparison_warnings({it.letter: it.run for it in run_scores}, corpus, protocol)
    texts = chain(*(c.texts for c in candidates), *references.texts)
    return Comparison(
        ids=tuple(ids),
        items=tuple(media[id] for id in ids),
        runs=run_scores,
        differences=differences,
        human=_human_baseline(runs, media, ids, tokenizer, names),
        protocol=protocol,
        warnings=(*left_out_notes, *scored[0][1], *warnings, *caption_notes(texts, tokenizer)),
        left_out=len(set().union(*(run.captions for run in runs))) - len(ids),
    )


def _run_scores(
    letter: str, run: ComparedRun, candidates: Candidates, scores: dict[str, Score], samples: Float[np.ndarray, "M S"]
) -> RunScores:
    samples_of = dict(zip(scores, samples, strict=True))
    return RunScores(
        letter,
        run,
        {name: estimate(result.corpus, samples_of[name]) for name, result in scores.items()},
        {name: result.segments for name, result in scores.items()},
        len(set(candidates.tokenized)),
        len({word for line in candidates.tokenized for word in line.split()}),
        float(candidates.lengths.mean()),
    )


def common_ids(
    runs: Sequence[ComparedRun], media: Mapping[str, Medium], labels: Sequence[str] = LETTERS
) -> tuple[list[str], list[str]]:
    """The ids for which all runs have captions, in the order of `media`, and a note for each run that has more.

    `labels` name the runs in the notes.  Raises ValueError for fewer than two common items.
    """
    common = set.intersection(*(set(run.captions) for run in runs))
    if len(common) < 2:
        counts = ", ".join(f"{run.name} {len(run.captions)}" for run in runs)
        raise ValueError(
            f"{len(common)} items have a caption from every run ({counts} captions), and a comparison needs at least "
            "2; were the runs evaluated on the same split of the same dataset?"
        )
    notes = []
    for letter, run in zip(labels, runs, strict=False):
        if extra := [id for id in run.captions if id not in common]:
            notes.append(f"{letter}: captions that not every run has were left out, {summarise_ids(extra)}")
    return [id for id in media if id in common], notes


def _human_baseline(
    runs: Sequence[ComparedRun], media: Mapping[str, Medium], ids: Sequence[str], tokenizer: str, names: Sequence[str]
) -> HumanBaseline:
    single = sum(len(media[id].references) < 2 for id in ids)
    if single:
        return HumanBaseline({}, (), 0.0, f"{single} of {len(ids)} items have a single reference")
    rest = References({id: media[id].references[1:] for id in ids}, tokenizer)

    def scores(captions: dict[str, str]) -> dict[str, float]:
        results, _ = compute_scores(rest.candidates(captions), rest, {name: METRICS[name] for name in names})
        return {name: results[name].corpus for name in names}

    return HumanBaseline(
        scores({id: media[id].references[0] for id in ids}),
        tuple(scores({id: run.captions[id] for id in ids}) for run in runs),
        float(rest.per_medium.mean()),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers of a comparison as JSON values, those of single items included; scores are fractions."""
    first, *others = comparison.runs
    human = comparison.human
    return {
        "runs": [
            {
                "letter": it.letter,
                "name": it.run.name,
                "path": str(it.run.path),
                "scores": {name: asdict(value) for name, value in it.scores.items()},
                "distinct": it.distinct,
                "vocabulary": it.vocabulary,
                "length": it.length,
            }
            for it in comparison.runs
        ],
        "differences": [
            {
                "of": it.letter,
                "minus": first.letter,
                "scores": {name: asdict(value) for name, value in differences.items()},
            }
            for it, differences in zip(others, comparison.differences, strict=True)
        ],
        "human": {"missing": human.missing}
        if human.missing
        else {
            "references": human.references,
            "scores": human.scores,
            "runs": {it.letter: scores for it, scores in zip(comparison.runs, human.runs, strict=True)},
        },
        "protocol": {**comparison.protocol, "scale": "fractions"},
        "warnings": comparison.warnings,
        "left_out": comparison.left_out,
        "items": [
            {
                "id": id,
                "captions": {it.letter: it.run.captions[id] for it in comparison.runs},
                "scores": {
                    it.letter: {name: float(values[i]) for name, values in it.segments.items()}
                    for it in comparison.runs
                },
            }
            for i, id in enumerate(comparison.ids)
        ],
    }
