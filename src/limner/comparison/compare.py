"""Captioners measured alike: the same references, tokens and code for all sides, intervals, p-values, a human line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from limner.comparison.protocol import doubts, protocol
from limner.comparison.sides import Side, matched
from limner.core.types import Medium
from limner.data.pairing import summarise_ids
from limner.metrics.references import Candidates, References, Score
from limner.metrics.report import METRICS, compute_scores
from limner.metrics.significance import Difference, Estimate, bootstrap, difference, estimate, metric_statistics

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Measured:
    """A side's scores by metric, as fractions; `segments` are in the order of the items."""

    letter: str
    side: Side
    scores: dict[str, Estimate]
    segments: dict[str, Float[np.ndarray, " I"]]
    distinct: int  # different captions, after tokenisation
    vocabulary: int  # different words in the captions
    length: float  # mean words per caption


@dataclass(frozen=True)
class Human:
    """One human against the others: each item's first reference scored against the rest, and the sides against the
    same rest, so that like stands beside like.  `missing` says why there is none."""

    human: dict[str, float]
    sides: tuple[dict[str, float], ...]
    references: float  # mean number of references that are left
    missing: str = ""


@dataclass(frozen=True)
class Comparison:
    """`differences[k]` is side k + 1 minus side 0.  `protocol` is how all were measured here."""

    ids: tuple[str, ...]
    items: tuple[Medium, ...]
    sides: tuple[Measured, ...]
    differences: tuple[dict[str, Difference], ...]
    human: Human
    protocol: dict[str, str | int | float]
    warnings: tuple[str, ...]
    left_out: int  # items that only some of the sides caption

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.sides[0].scores)


def unique(names: Iterable[str]) -> list[str]:
    """Names of METRICS without second names of the same function."""
    first: dict[Any, str] = {}
    for name in names:
        first.setdefault(METRICS[name], name)
    return list(first.values())


def aliases(name: str) -> list[str]:
    """The other names of a metric: CIDEr is also called CIDEr-D."""
    return [other for other, metric in METRICS.items() if metric is METRICS[name] and other != name]


def compare(
    sides: Sequence[Side], media: Mapping[str, Medium], tokenizer: str, draws: int = 1000, seed: int = 0
) -> Comparison:
    """Score all sides on the items that each of them captions; the first side is the baseline of the differences.

    Raises ValueError for captions without references, fewer than two sides, or fewer than two items that all have.
    """
    if not 2 <= len(sides) <= len(LETTERS):
        raise ValueError(f"a comparison takes 2 to {len(LETTERS)} runs, got {len(sides)}")
    sides = [matched(side, media) for side in sides]
    ids, alone = _common(sides, media)
    references = References({id: media[id].references for id in ids}, tokenizer)
    candidates = [references.candidates({id: side.captions[id] for id in ids}) for side in sides]
    scored = [compute_scores(c, references) for c in candidates]
    names = unique(scored[0][0])
    results = [{name: scores[name] for name in names} for scores, _ in scored]
    pools = [
        metric_statistics(name, found, c, references)
        for c, scores in zip(candidates, results, strict=True)
        for name, found in scores.items()
    ]
    samples = bootstrap(pools, draws, seed).reshape(len(sides), len(names), draws)
    measured = tuple(_measured(LETTERS[k], side, candidates[k], results[k], samples[k]) for k, side in enumerate(sides))
    differences = tuple(
        {
            name: difference(results[0][name].corpus, results[k][name].corpus, samples[0, m], samples[k, m])
            for m, name in enumerate(names)
        }
        for k in range(1, len(sides))
    )
    here = protocol(references, draws, seed)
    corpus = [{name: found.corpus for name, found in scores.items()} for scores in results]
    return Comparison(
        ids=tuple(ids),
        items=tuple(media[id] for id in ids),
        sides=measured,
        differences=differences,
        human=_human(sides, media, ids, tokenizer, names),
        protocol=here,
        warnings=(*alone, *scored[0][1], *doubts({m.letter: m.side for m in measured}, corpus, here)),
        left_out=len(set().union(*(side.captions for side in sides))) - len(ids),
    )


def _measured(
    letter: str, side: Side, candidates: Candidates, scores: dict[str, Score], samples: Float[np.ndarray, "M S"]
) -> Measured:
    drawn = dict(zip(scores, samples, strict=True))
    return Measured(
        letter,
        side,
        {name: estimate(found.corpus, drawn[name]) for name, found in scores.items()},
        {name: found.segments for name, found in scores.items()},
        len(set(candidates.tokenized)),
        len({word for line in candidates.tokenized for word in line.split()}),
        float(candidates.lengths.mean()),
    )


def _common(sides: Sequence[Side], media: Mapping[str, Medium]) -> tuple[list[str], list[str]]:
    """The ids that all sides caption, in the order of the media, and a line for each side that has more."""
    shared = set.intersection(*(set(side.captions) for side in sides))
    if len(shared) < 2:
        counts = ", ".join(f"{side.name} {len(side.captions)}" for side in sides)
        raise ValueError(
            f"{len(shared)} items have a caption from every run ({counts} captions), and a comparison needs at least "
            "2; were the runs evaluated on the same split of the same data set?"
        )
    lines = []
    for letter, side in zip(LETTERS, sides, strict=False):
        if alone := [id for id in side.captions if id not in shared]:
            lines.append(f"{letter}: captions that not every run has were left out, {summarise_ids(alone)}")
    return [id for id in media if id in shared], lines


def _human(
    sides: Sequence[Side], media: Mapping[str, Medium], ids: Sequence[str], tokenizer: str, names: Sequence[str]
) -> Human:
    single = sum(len(media[id].references) < 2 for id in ids)
    if single:
        return Human({}, (), 0.0, f"{single} of {len(ids)} items have a single reference")
    rest = References({id: media[id].references[1:] for id in ids}, tokenizer)

    def scores(captions: dict[str, str]) -> dict[str, float]:
        found, _ = compute_scores(rest.candidates(captions), rest, {name: METRICS[name] for name in names})
        return {name: found[name].corpus for name in names}

    return Human(
        scores({id: media[id].references[0] for id in ids}),
        tuple(scores({id: side.captions[id] for id in ids}) for side in sides),
        float(rest.per_medium.mean()),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers as plain JSON values, those of the items too; scores are fractions."""
    first, *others = comparison.sides
    human = comparison.human
    return {
        "runs": [
            {
                "letter": m.letter,
                "name": m.side.name,
                "path": str(m.side.path),
                "scores": {name: asdict(found) for name, found in m.scores.items()},
                "distinct": m.distinct,
                "vocabulary": m.vocabulary,
                "length": m.length,
            }
            for m in comparison.sides
        ],
        "differences": [
            {"of": m.letter, "minus": first.letter, "scores": {name: asdict(d) for name, d in found.items()}}
            for m, found in zip(others, comparison.differences, strict=True)
        ],
        "human": {"missing": human.missing}
        if human.missing
        else {
            "references": human.references,
            "scores": human.human,
            "runs": {m.letter: scores for m, scores in zip(comparison.sides, human.sides, strict=True)},
        },
        "protocol": {**comparison.protocol, "scale": "fractions"},
        "warnings": comparison.warnings,
        "left_out": comparison.left_out,
        "items": [
            {
                "id": id,
                "captions": {m.letter: m.side.captions[id] for m in comparison.sides},
                "scores": {
                    m.letter: {name: float(values[i]) for name, values in m.segments.items()} for m in comparison.sides
                },
            }
            for i, id in enumerate(comparison.ids)
        ],
    }
