"""Scoring of captions: `evaluate` gives a `Report` of every metric, the scores of each medium, and the protocol.

report = evaluate({"7": "a cat"}, References({"7": ["a cat sat"]}))
rich.print(report_table(report))
write_json("scores.json", report_to_json(report))
"""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
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
from limner.text.scripts import caption_notes
from limner.text.tokens import UNPUBLISHED_TOKENIZERS

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
# The metrics that are reported for each medium too
SEGMENT_METRICS = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "SPICE", "CLIPScore", "RefCLIPScore")


@dataclass(frozen=True)
class Report:
    """The scores of one caption per medium, and how they were measured.

    Scores are fractions, not x100: BLEU, METEOR, ROUGE-L and SPICE in [0, 1], CIDEr in [0, 10].

    scores      {name of a metric: corpus score}
    segments    per medium its id, its caption, and its scores of SEGMENT_METRICS
    protocol    tokenizer, number of media and references, versions; two reports are comparable if these are equal
    distinct    distinct captions, after tokenisation
    vocabulary  distinct words in the captions
    length      mean number of words per caption
    novelty     share of captions that are no training caption, in [0, 1]; None without training captions
    exact       for the micro-world the shares of exactly right captions, see `microworld.accuracy`
    notes       what a reader of the scores should know, one line each
    """

    scores: dict[str, float]
    segments: tuple[dict[str, str | float], ...]
    protocol: dict[str, str | int | float]
    distinct: int
    vocabulary: int
    length: float
    novelty: float | None = None
    exact: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleReport:
    """The scores of several captions per medium, and their diversity.

    Both scores are means over media of the scores of single media, so their BLEU is not corpus BLEU.

    diversity  see `metrics.diversity.Diversity`
    mean       {name of a metric: mean over a medium's captions}
    oracle     {name of a metric: score of a medium's best caption}
    protocol   as in `Report`
    notes      as in `Report`
    """

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
    """Score one caption per medium.

    captions    {id: caption}, with the ids of the references
    references  the reference captions
    metrics     {name: metric}; None: all of METRICS that can be computed here, and a note for each of the others
    extra       further metrics, for example SPICE
    training    training captions, for the novelty
    scenes      {id: scene} for media of the micro-world; their captions are checked against the truth

    Raises ValueError when captions and references are not of the same media, and ImportError when a metric of `metrics`
    or `extra` needs a package that is not installed.
    """
    candidates = references.candidates(captions)
    scores, notes = compute_scores(candidates, references, metrics, extra)
    reported = [name for name in SEGMENT_METRICS if name in scores]
    rows: list[dict[str, str | float]] = []
    for i, (id, text) in enumerate(zip(references.ids, candidates.texts, strict=True)):
        rows.append({"id": id, "caption": text} | {name: float(scores[name].segments[i]) for name in reported})
    return Report(
        scores={name: score.corpus for name, score in scores.items()},
        segments=tuple(rows),
        protocol=_protocol(references),
        distinct=len(set(candidates.tokenized)),
        vocabulary=len({word for caption in candidates.tokenized for word in caption.split()}),
        length=float(candidates.lengths.mean()),
        novelty=None if training is None else novelty(candidates.tokenized, training, references.tokenizer),
        exact=accuracy(captions, scenes) if scenes else {},
        notes=(*notes, *_notes(candidates, references)),
    )


def evaluate_samples(
    captions: Mapping[str, Sequence[str]],
    references: References,
    metrics: Mapping[str, Metric] | None = None,
    *,
    extra: Mapping[str, Metric] | None = None,
    training: Sequence[str] | None = None,
) -> SampleReport:
    """Score several captions per medium, the same number for each; arguments and errors as in `evaluate`."""
    measured = diversity(captions, references, training)
    segments: dict[str, list[Float[np.ndarray, " I"]]] = {}
    for k in range(measured.samples):
        candidates = references.candidates({id: texts[k] for id, texts in captions.items()})
        scores, notes = compute_scores(candidates, references, metrics, extra)
        for name, score in scores.items():
            segments.setdefault(name, []).append(score.segments)
    return SampleReport(
        diversity=measured,
        mean={name: float(np.mean(values)) for name, values in segments.items()},
        oracle={name: float(np.max(values, axis=0).mean()) for name, values in segments.items()},
        protocol=_protocol(references),
        notes=(*notes, *_caption_notes(chain.from_iterable(captions.values()), references)),
    )


def compute_scores(
    candidates: Candidates,
    references: References,
    metrics: Mapping[str, Metric] | None = None,
    extra: Mapping[str, Metric] | None = None,
) -> tuple[dict[str, Score], tuple[str, ...]]:
    """{name: score}, and a note for each of METRICS that cannot be computed here; arguments as in `evaluate`.

    A metric that has two names is computed once.
    """
    computed: dict[Metric, Score] = {}
    notes = []
    chosen = (METRICS if metrics is None else dict(metrics)) | dict(extra or {})
    for name, metric in chosen.items():
        try:
            if metric not in computed:
                computed[metric] = metric(candidates, references)
        except ImportError as error:
            if metrics is not None or name not in METRICS:
                raise
            notes.append(f"{name} is left out: {error}")
    return {name: computed[metric] for name, metric in chosen.items() if metric in computed}, tuple(notes)


def select_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """The metrics of METRICS with these names, in upper or lower case; "bleu" stands for BLEU-1 to BLEU-4.

    Raises ValueError for an unknown name, and lists the known ones.

    >>> list(select_metrics(["bleu", "CIDEr"]))
    ['BLEU-1', 'BLEU-2', 'BLEU-3', 'BLEU-4', 'CIDEr']
    """
    wanted: set[str] = set()
    for name in (name.strip().lower() for name in names):
        found = {known for known in METRICS if known.lower() == name}
        found = found or {known for known in METRICS if known.lower().rpartition("-")[0] == name}
        if not found:
            raise UnknownName(f"unknown metric '{name}'; known are {', '.join(METRICS)}")
        wanted |= found
    return {name: metric for name, metric in METRICS.items() if name in wanted}


def report_table(report: Report) -> Table:
    """The scores as a table for the terminal, x100 as papers print them."""
    novel = "" if report.novelty is None else f", {report.novelty:.1%} of the captions not in training"
    table = _score_table(
        report.protocol,
        f"{report.distinct} distinct captions{novel}, {report.vocabulary} words used, {report.length:.1f} words each",
        list(report.scores),
    )
    table.add_row(*(f"{100 * score:.1f}" for score in report.scores.values()))
    return table


def sample_report_table(report: SampleReport) -> Table:
    """Mean and best scores as a table for the terminal, x100."""
    measured = report.diversity
    novel = "" if measured.novelty is None else f", {measured.novelty:.1%} not in training"
    table = _score_table(
        report.protocol,
        f"{measured.samples} captions each: Div-1 {measured.div_1:.3f}, Div-2 {measured.div_2:.3f}, "
        f"mBLEU-4 {measured.mbleu_4:.3f}, self-CIDEr {measured.self_cider:.3f}; {measured.distinct} distinct{novel}, "
        f"{measured.vocabulary} words used",
        ["", *report.mean],
    )
    for name, scores in (("mean", report.mean), ("best", report.oracle)):
        table.add_row(name, *(f"{100 * score:.1f}" for score in scores.values()))
    return table


def microworld_table(exact: Mapping[str, float]) -> Table:
    """`Report.exact` as a table for the terminal: shares of exactly right captions, in percent."""
    table = Table(title="exact truth (share of captions)")
    for name in exact:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.1%}" for value in exact.values()))
    return table


def report_to_json(report: Report | SampleReport) -> dict[str, Any]:
    """The report as JSON values, for `files.write_json`; scores stay fractions."""
    return asdict(report)


def _score_table(protocol: Mapping[str, str | int | float], about: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=f"scores x100, {protocol['images']} media, {protocol['references mean']:.3g} references each",
        caption=f"tokenizer: {protocol['tokenizer']}. {about}",
        min_width=60,  # a table of one metric must be wide enough for the sentence below it
    )
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _notes(candidates: Candidates, references: References) -> list[str]:
    """What a reader of the scores should know about these captions and references."""
    empty = sum(not caption.strip() for caption in candidates.tokenized)
    notes = [f"{empty} {'caption has' if empty == 1 else 'captions have'} no words"] if empty else []
    notes += _caption_notes(candidates.texts, references)
    if len(references.ids) == 1:
        notes.append("with a single medium CIDEr is 0 by definition: every word occurs in all references")
    elif references.per_medium.max() == 1:
        notes.append(
            "each medium has a single reference: the scores are not comparable with published ones, which use several"
        )
    return notes


def _caption_notes(candidates: Iterable[str], references: References) -> list[str]:
    """Notes on captions that the tokenizer of the references does not split into words."""
    return caption_notes(chain(candidates, chain.from_iterable(references.texts)), references.tokenizer)


def _protocol(references: References) -> dict[str, str | int | float]:
    """What must be equal before two reports may be compared.  The keys are those of scores.json, and never change."""
    return {
        "tokenizer": f"{references.tokenizer} (not comparable with scores on PTB tokens)"
        if references.tokenizer in UNPUBLISHED_TOKENIZERS
        else references.tokenizer,
        "images": len(references.ids),
        "references min": int(references.per_medium.min()),
        "references mean": float(references.per_medium.mean()),
        "df source": "references of the evaluated images",
        "scale": "fractions",
        "limner": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
