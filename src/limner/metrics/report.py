"""Captions and references in, a Report out: every score of `METRICS`, a row per image, and how it was measured.

report = evaluate({"7": "a cat"}, References({"7": ["a cat sat"]}))
rich.print(table(report));  write_json("scores.json", to_json(report))
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table

from limner.metrics.bleu import bleu
from limner.metrics.cider import cider
from limner.metrics.references import Candidates, References, Score
from limner.metrics.rouge import rouge_l
from limner.version import __version__

METRICS: dict[str, Callable[[Candidates, References], Score]] = {
    "BLEU-1": partial(bleu, order=1),
    "BLEU-2": partial(bleu, order=2),
    "BLEU-3": partial(bleu, order=3),
    "BLEU-4": partial(bleu, order=4),
    "ROUGE-L": rouge_l,
    "CIDEr": cider,
    "CIDEr-D": cider,  # what coco-caption calls CIDEr is CIDEr-D
}
ROW = ("CIDEr", "BLEU-4", "ROUGE-L")  # the scores each image's row shows


@dataclass(frozen=True)
class Report:
    """Scores are fractions, not x100: BLEU and ROUGE-L in [0, 1], CIDEr in [0, 10]."""

    scores: dict[str, float]  # by the names of METRICS
    segments: tuple[dict[str, str | float], ...]  # one per image: id, caption, and the scores of ROW
    protocol: dict[str, str | int | float]  # what must be equal before two reports may be compared
    distinct: int  # different captions, after tokenisation
    vocabulary: int  # different words in the captions
    length: float  # mean words per caption


def evaluate(captions: Mapping[str, str], references: References) -> Report:
    """Score one caption per image.  Raises ValueError unless captions and references are of the same images."""
    candidates = references.candidates(captions)
    results = {metric: metric(candidates, references) for metric in dict.fromkeys(METRICS.values())}
    scores = {name: results[metric] for name, metric in METRICS.items()}
    rows: list[dict[str, str | float]] = []
    for i, (id, text) in enumerate(zip(references.ids, candidates.texts, strict=True)):
        rows.append({"id": id, "caption": text} | {name: float(scores[name].segments[i]) for name in ROW})
    return Report(
        scores={name: score.corpus for name, score in scores.items()},
        segments=tuple(rows),
        protocol=_protocol(references),
        distinct=len(set(candidates.lines)),
        vocabulary=len({word for line in candidates.lines for word in line.split()}),
        length=float(candidates.lengths.mean()),
    )


def table(report: Report) -> Table:
    """The scores as a table for the terminal, x100 as papers print them."""
    protocol = report.protocol
    shown = Table(
        title=f"scores x100, {protocol['images']} images, {protocol['references mean']:.3g} references each",
        caption=f"tokenizer: {protocol['tokenizer']}. {report.distinct} distinct captions, "
        f"{report.vocabulary} words used, {report.length:.1f} words each",
    )
    for name in report.scores:
        shown.add_column(name, justify="right")
    shown.add_row(*(f"{100 * score:.1f}" for score in report.scores.values()))
    return shown


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, for `files.write_json`; scores stay fractions."""
    return asdict(report)


def _protocol(references: References) -> dict[str, str | int | float]:
    return {
        "tokenizer": "simple (stand-in: not comparable with PTB scores)"
        if references.tokenizer == "simple"
        else references.tokenizer,
        "images": len(references.ids),
        "references min": int(references.per_image.min()),
        "references mean": float(references.per_image.mean()),
        "df source": "references of the evaluated images",
        "scale": "fractions",
        "limner": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
