"""Captions and references in, a Report out: every score of `METRICS`, a row per image, and how it was measured.

report = evaluate({"7": "a cat"}, References({"7": ["a cat sat"]}))
rich.print(table(report));  write_json("scores.json", to_json(report))
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Table

from limner.core.registry import Registry, UnknownName
from limner.core.version import __version__
from limner.data.shapes_words import Scene
from limner.metrics.bleu import bleu
from limner.metrics.cider import cider
from limner.metrics.diversity import Diversity, diversity, novelty
from limner.metrics.meteor import meteor
from limner.metrics.microworld import accuracy
from limner.metrics.references import Candidates, References, Score
from limner.metrics.rouge import rouge_l

Metric = Callable[[Candidates, References], Score]

METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "BLEU-1": partial(bleu, order=1),
        "BLEU-2": partial(bleu, order=2),
        "BLEU-3": partial(bleu, order=3),
        "BLEU-4": partial(bleu, order=4),
        "METEOR": meteor,
        "ROUGE-L": rouge_l,
        "CIDEr": cider,
        "CIDEr-D": cider,  # what coco-caption calls CIDEr is CIDEr-D
    },
)
ROW = (
    "CIDEr",
    "BLEU-4",
    "METEOR",
    "ROUGE-L",
    "SPICE",
    "CLIPScore",
    "RefCLIPScore",
)  # of these, an image's row shows all


@dataclass(frozen=True)
class Report:
    """Scores are fractions, not x100: BLEU, METEOR, ROUGE-L and SPICE in [0, 1], CIDEr in [0, 10]."""

    scores: dict[str, float]  # by the names of METRICS, or of the metrics asked for
    segments: tuple[dict[str, str | float], ...]  # one per image: id, caption, and the scores of ROW
    protocol: dict[str, str | int | float]  # what must be equal before two reports may be compared
    distinct: int  # different captions, after tokenisation
    vocabulary: int  # different words in the captions
    length: float  # mean words per caption
    novelty: float | None = None  # share of captions that are no training caption
    exact: dict[str, float] = field(default_factory=dict)  # the micro-world's: see `microworld.accuracy`
    notes: tuple[str, ...] = ()  # what a reader of the scores should know, a line each


@dataclass(frozen=True)
class SampleReport:
    """Several captions per image.  Scores are means over the images of single images' scores, so its BLEU is no corpus
    BLEU: `mean` over an image's captions too, `oracle` of the caption that scores best."""

    diversity: Diversity
    mean: dict[str, float]
    oracle: dict[str, float]
    protocol: dict[str, str | int | float]
    notes: tuple[str, ...] = ()


def evaluate(
    captions: Mapping[str, str],
    references: References,
    metrics: Mapping[str, Metric] | None = None,
    *,
    extra: Mapping[str, Metric] | None = None,
    training: Sequence[str] | None = None,
    scenes: Mapping[str, Scene] | None = None,
) -> Report:
    """Score one caption per image.

    metrics   None: all of METRICS that can be computed here, and a note for each other
    extra     more of them, such as SPICE
    training  training captions, for the novelty
    scenes    what is in the pictures of a micro-world, by id
    Raises ValueError unless captions and references are of the same images, and what a metric that was asked for raises
    when it cannot be computed.
    """
    candidates = references.candidates(captions)
    scores, notes = score(candidates, references, metrics, extra)
    shown = [name for name in ROW if name in scores]
    rows: list[dict[str, str | float]] = []
    for i, (id, text) in enumerate(zip(references.ids, candidates.texts, strict=True)):
        rows.append({"id": id, "caption": text} | {name: float(scores[name].segments[i]) for name in shown})
    return Report(
        scores={name: score.corpus for name, score in scores.items()},
        segments=tuple(rows),
        protocol=_protocol(references),
        distinct=len(set(candidates.lines)),
        vocabulary=len({word for line in candidates.lines for word in line.split()}),
        length=float(candidates.lengths.mean()),
        novelty=None if training is None else novelty(candidates.lines, training, references.tokenizer),
        exact=accuracy(captions, scenes) if scenes else {},
        notes=(*notes, *_warnings(candidates, references)),
    )


def evaluate_samples(
    captions: Mapping[str, Sequence[str]],
    references: References,
    metrics: Mapping[str, Metric] | None = None,
    *,
    extra: Mapping[str, Metric] | None = None,
    training: Sequence[str] | None = None,
) -> SampleReport:
    """Score several captions per image, equally many for each; arguments and errors as in `evaluate`."""
    various = diversity(captions, references, training)
    segments: dict[str, list[Float[np.ndarray, " I"]]] = {}
    for k in range(various.samples):
        candidates = references.candidates({id: texts[k] for id, texts in captions.items()})
        scores, notes = score(candidates, references, metrics, extra)
        for name, found in scores.items():
            segments.setdefault(name, []).append(found.segments)
    return SampleReport(
        diversity=various,
        mean={name: float(np.mean(found)) for name, found in segments.items()},
        oracle={name: float(np.max(found, axis=0).mean()) for name, found in segments.items()},
        protocol=_protocol(references),
        notes=notes,
    )


def score(
    candidates: Candidates,
    references: References,
    metrics: Mapping[str, Metric] | None = None,
    extra: Mapping[str, Metric] | None = None,
) -> tuple[dict[str, Score], tuple[str, ...]]:
    """The scores by name, and a line for each of METRICS that cannot be computed here, see `evaluate`."""
    found: dict[Metric, Score] = {}
    notes = []
    chosen = (METRICS if metrics is None else dict(metrics)) | dict(extra or {})
    for name, metric in chosen.items():
        try:
            if metric not in found:
                found[metric] = metric(candidates, references)
        except ImportError as error:
            if metrics is not None or name not in METRICS:
                raise
            notes.append(f"{name} is left out: {error}")
    return {name: found[metric] for name, metric in chosen.items() if metric in found}, tuple(notes)


def choose(names: Sequence[str]) -> dict[str, Metric]:
    """METRICS of these names, in whatever capitals; BLEU is all four.  Raises ValueError that lists the known names."""
    wanted: set[str] = set()
    for name in (name.strip().lower() for name in names):
        found = {known for known in METRICS if known.lower() == name}
        found = found or {known for known in METRICS if known.lower().rpartition("-")[0] == name}
        if not found:
            raise UnknownName(f"unknown metric '{name}'; known are {', '.join(METRICS)}")
        wanted |= found
    return {name: metric for name, metric in METRICS.items() if name in wanted}


def table(report: Report) -> Table:
    """The scores as a table for the terminal, x100 as papers print them."""
    novel = "" if report.novelty is None else f", {report.novelty:.1%} of the captions not in training"
    shown = _table(
        report.protocol,
        f"{report.distinct} distinct captions{novel}, {report.vocabulary} words used, {report.length:.1f} words each",
        list(report.scores),
    )
    shown.add_row(*(f"{100 * score:.1f}" for score in report.scores.values()))
    return shown


def sample_table(report: SampleReport) -> Table:
    """Mean and best scores as a table for the terminal, x100."""
    various = report.diversity
    novel = "" if various.novelty is None else f", {various.novelty:.1%} not in training"
    shown = _table(
        report.protocol,
        f"{various.samples} captions each: Div-1 {various.div_1:.3f}, Div-2 {various.div_2:.3f}, "
        f"mBLEU-4 {various.mbleu_4:.3f}, self-CIDEr {various.self_cider:.3f}; {various.distinct} distinct{novel}, "
        f"{various.vocabulary} words used",
        ["", *report.mean],
    )
    for name, scores in (("mean", report.mean), ("best", report.oracle)):
        shown.add_row(name, *(f"{100 * score:.1f}" for score in scores.values()))
    return shown


def exact_table(exact: Mapping[str, float]) -> Table:
    """Shares of captions that are exactly right, against the micro-world's truth."""
    shown = Table(title="exact truth (share of captions)")
    for name in exact:
        shown.add_column(name, justify="right")
    shown.add_row(*(f"{value:.1%}" for value in exact.values()))
    return shown


def to_json(report: Report | SampleReport) -> dict[str, Any]:
    """The report as plain JSON values, for `files.write_json`; scores stay fractions."""
    return asdict(report)


def _table(protocol: Mapping[str, str | int | float], about: str, columns: Sequence[str]) -> Table:
    shown = Table(
        title=f"scores x100, {protocol['images']} images, {protocol['references mean']:.3g} references each",
        caption=f"tokenizer: {protocol['tokenizer']}. {about}",
        min_width=60,  # of a single metric too: what is told below it is a sentence
    )
    for name in columns:
        shown.add_column(name, justify="right")
    return shown


def _warnings(candidates: Candidates, references: References) -> list[str]:
    empty = sum(not line.strip() for line in candidates.lines)
    notes = [f"{empty} captions have no words"] if empty else []
    if len(references.ids) == 1:
        notes.append("of a single image CIDEr is 0 by definition: no word is rarer than another")
    elif references.per_image.max() == 1:
        notes.append(
            "there is a single reference for each image: the scores are not comparable with published ones of five"
        )
    return notes


def _protocol(references: References) -> dict[str, str | int | float]:
    return {
        "tokenizer": "simple (not comparable with scores on PTB tokens)"
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
