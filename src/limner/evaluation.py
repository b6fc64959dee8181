"""A run's captions for a split of its data, scored; the files are COCO results and plain JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.data.datasets import read_dataset
from limner.data.karpathy import coco_id
from limner.data.shapes import read_truth
from limner.decode.generate import generate
from limner.decode.search import Beam
from limner.files import write_json
from limner.inputs import open_inputs, reads_files
from limner.metrics.references import References
from limner.metrics.report import Metric, Report, evaluate, to_json
from limner.run import Run
from limner.types import Medium

CHUNK = 64  # raw media that are kept decoded at a time: each is read to see whether it can be, and then captioned


@dataclass(frozen=True)
class Evaluation:
    """Captions by id, their scores, and a line for each medium of the split that was left out or mended;
    `other_problems` are about the rest of the data set."""

    captions: dict[str, str]
    report: Report
    problems: tuple[str, ...]
    other_problems: tuple[str, ...] = ()


def evaluate_run(
    run: Run,
    split: str = "test",
    decoding: Beam | None = None,
    limit: int | None = None,
    metrics: Mapping[str, Metric] | None = None,
    extra: Mapping[str, Metric] | None = None,
) -> Evaluation:
    """Caption the media of `split` that have references and can be read, and score them: `report.evaluate` of them."""
    if run.encoder is None and not reads_files(run.recipe):
        raise ValueError(f"{run.folder} has no encoder, so its inputs cannot be told; convert it again with --encoder")
    dataset = read_dataset(run.recipe.data)
    asked = dataset.split(split)[:limit]
    ids = {medium.id for medium in asked}
    problems: list[str] = []
    others: list[str] = []
    for line in dataset.problems:
        (problems if line.partition(": ")[0] in ids else others).append(line)
    told = {line.partition(": ")[0] for line in problems}
    problems += [f"{medium.id}: no references" for medium in asked if not medium.references and medium.id not in told]
    scored = [medium for medium in asked if medium.references]
    captions, unread = _captions(run, scored, decoding or run.recipe.decoding)
    if not captions:
        raise ValueError(f"none of {len(asked)} media can be evaluated; the first: {[*unread, *problems][0]}")
    references = References({m.id: m.references for m in scored if m.id in captions})
    training = [text for medium in dataset.media if medium.split == "train" for text in medium.references]
    truth = read_truth(run.recipe.data.media) if run.recipe.data.name == "shapes" else None
    scenes = None if truth is None else {id: truth[id] for id in captions}
    report = evaluate(captions, references, metrics, extra=extra, training=training or None, scenes=scenes)
    return Evaluation(captions, report, (*problems, *unread), tuple(others))


def _captions(run: Run, media: Sequence[Medium], options: Beam) -> tuple[dict[str, str], list[str]]:
    """Captions in the order of the media, and a line for each medium that could not be read."""
    captions: dict[str, str] = {}
    problems: list[str] = []
    inputs = open_inputs(run.recipe, run.encoder)
    if inputs.dim != run.info.feature_dim:
        raise ValueError(
            f"{run.folder} was trained on features of {run.info.feature_dim} channels, {run.recipe.features} has "
            f"{inputs.dim}: give the features it was trained on"
        )
    model = inputs.read_by(run.model).eval()
    size = len(media) if inputs.stored else inputs.together(media, CHUNK)
    for start in range(0, len(media), max(1, size)):
        if not inputs.stored:
            inputs = open_inputs(run.recipe, run.encoder, keep=True)  # forgets the chunk before
        kept, bad = inputs.sort_out(media[start : start + size])
        found = generate(model, kept, inputs.reader, run.vocabulary, options)
        captions |= {medium.id: found[medium.id] for medium in kept}
        problems += bad
    return captions, problems


def write_evaluation(evaluation: Evaluation, folder: str | Path, about: Mapping[str, Any]) -> None:
    """`captions.json` (COCO results) and `scores.json` (scores, protocol, per-medium rows) into `folder`."""
    folder = Path(folder)
    write_json(folder / "captions.json", coco_results(evaluation.captions))
    problems = {"problems": evaluation.problems, "other_problems": evaluation.other_problems}
    write_json(folder / "scores.json", {**about, **to_json(evaluation.report), **problems})


def coco_results(captions: Mapping[str, str]) -> list[dict[str, str | int]]:
    """COCO's results format; an id made of digits becomes a number, as COCO's tools expect."""
    return [{"image_id": coco_id(id), "caption": text} for id, text in captions.items()]
