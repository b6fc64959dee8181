"""A run's captions for a split of its data, scored; the files are COCO results and plain JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limner.core.files import write_json
from limner.core.types import Medium
from limner.data.datasets import read_dataset, read_scenes
from limner.data.karpathy import coco_id
from limner.decode.ensemble import Ensemble, share_words
from limner.decode.generate import Said, generate_several
from limner.decode.options import EQUAL, Averaging, Decoding
from limner.metrics.references import References
from limner.metrics.report import Metric, Report, evaluate, report_to_json
from limner.models import CAPTIONERS
from limner.runs.inputs import feature_paths, open_inputs
from limner.runs.run import Run

CHUNK = 64  # raw media that are kept decoded at a time: each is read to see whether it can be, and then captioned


@dataclass(frozen=True)
class Evaluation:
    """Captions by id, their scores, and a line for each medium of the split that was left out or mended;
    `other_problems` are about the rest of the data set."""

    captions: dict[str, str]
    report: Report
    problems: tuple[str, ...]
    other_problems: tuple[str, ...] = ()
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)  # where more than one caption was asked for
    media: tuple[Medium, ...] = ()  # those that were captioned
    said: Mapping[str, Sequence[Said]] = field(default_factory=dict)  # by id: the caption, and the others if asked for


def evaluate_run(
    run: Run,
    split: str = "test",
    decoding: Decoding | None = None,
    limit: int | None = None,
    metrics: Mapping[str, Metric] | None = None,
    extra: Mapping[str, Metric] | None = None,
    others: Sequence[Run] = (),
    averaging: Averaging = EQUAL,
) -> Evaluation:
    """Caption the media of `split` that have references and can be read, and score them: `report.evaluate` of them.

    `others` make an ensemble of it, each member reading its own features of `run`'s data.  Of several captions
    per medium the first is scored.
    """
    for member in (run, *others):
        if member.encoder is None and not feature_paths(member.recipe):
            raise ValueError(_no_inputs(member))
    share_words([(str(member.folder), member.vocabulary) for member in (run, *others)])
    dataset = read_dataset(run.recipe.data)
    asked = dataset.split(split)[:limit]
    ids = {medium.id for medium in asked}
    problems: list[str] = []
    elsewhere: list[str] = []
    for line in dataset.problems:
        (problems if line.partition(": ")[0] in ids else elsewhere).append(line)
    told = {line.partition(": ")[0] for line in problems}
    problems += [f"{medium.id}: no references" for medium in asked if not medium.references and medium.id not in told]
    scored = [medium for medium in asked if medium.references]
    options = decoding or run.recipe.decoding
    said, unread = _captions((run, *others), scored, options, averaging)
    captions = {id: found[0].text for id, found in said.items()}
    if not captions:
        raise ValueError(f"none of {len(asked)} media can be evaluated; the first: {[*unread, *problems][0]}")
    media = tuple(medium for medium in scored if medium.id in captions)
    references = References({medium.id: medium.references for medium in media})
    training = [text for medium in dataset.media if medium.split == "train" for text in medium.references]
    scenes = read_scenes(run.recipe.data)
    report = evaluate(captions, references, metrics, extra=extra, training=training or None, scenes=scenes)
    several = {id: [each.text for each in found] for id, found in said.items()} if options.n_best > 1 else {}
    return Evaluation(captions, report, (*problems, *unread), tuple(elsewhere), several, media, said)


def _no_inputs(run: Run) -> str:
    """What to do with a converted run that knows neither an encoder nor features."""
    published = CAPTIONERS[run.recipe.model.name].build.reads_media_as_published  # type: ignore[attr-defined]
    again = "; or convert it again with --encoder, and it reads pictures or clips" if published else ""
    return (
        f"{run.folder} has no encoder, so its inputs cannot be told: give stored features like those it was trained on "
        "with --features PATH (HDF5, folders of .npy or .npz; for a detector's regions the store that limner convert "
        f"--from bottom-up FILE.tsv --out STORE makes of a TSV, and --from regions FOLDER of arrays){again}"
    )


def _captions(
    runs: Sequence[Run],
    media: Sequence[Medium],
    options: Decoding,
    averaging: Averaging,
) -> tuple[dict[str, list[Said]], list[str]]:
    """Captions in the order of the media, and a line for each medium that could not be read."""
    captions: dict[str, list[Said]] = {}
    problems: list[str] = []
    inputs = [open_inputs(run.recipe, run.encoder) for run in runs]
    for run, its in zip(runs, inputs, strict=True):
        if its.dim != run.info.feature_dim:
            raise ValueError(
                f"{run.folder} was trained on features of {run.info.feature_dim} channels, {run.recipe.features} has "
                f"{its.dim}: give the features it was trained on"
            )
    members = [its.with_encoder(run.model) for run, its in zip(runs, inputs, strict=True)]
    model = (members[0] if len(members) == 1 else Ensemble(members, averaging)).eval()
    raw = [its for its in inputs if not its.uses_stored_features]
    size = min((its.media_per_batch(media, CHUNK) for its in raw), default=len(media))
    for start in range(0, len(media), max(1, size)):
        if raw:  # forgets the chunk before
            inputs = [open_inputs(run.recipe, run.encoder, keep=True) for run in runs]
        kept: Sequence[Medium] = media[start : start + size]
        for its in inputs:
            kept, bad = its.split_readable(kept)
            problems += bad
        reader = inputs[0].reader if len(inputs) == 1 else tuple(its.reader for its in inputs)
        found = generate_several(model, kept, reader, runs[0].vocabulary, options)
        captions |= {medium.id: found[medium.id] for medium in kept}
    return captions, problems


def write_evaluation(evaluation: Evaluation, folder: str | Path, about: Mapping[str, Any]) -> None:
    """`captions.json` (COCO results) and `scores.json` (scores, protocol, per-medium rows) into `folder`;
    `several.json`, captions by id, where there are several per medium."""
    folder = Path(folder)
    if evaluation.several:
        write_json(folder / "several.json", evaluation.several)
    write_json(folder / "captions.json", coco_results(evaluation.captions))
    problems = {"problems": evaluation.problems, "other_problems": evaluation.other_problems}
    write_json(folder / "scores.json", {**about, **report_to_json(evaluation.report), **problems})


def coco_results(captions: Mapping[str, str]) -> list[dict[str, str | int]]:
    """COCO's results format; an id made of digits becomes a number, as COCO's tools expect."""
    return [{"image_id": coco_id(id), "caption": text} for id, text in captions.items()]
