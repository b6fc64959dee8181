"""`evaluate_run`: captions a split of a run's data set and scores the captions; writes COCO results and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from limner.core.files import write_json
from limner.core.types import Medium
from limner.data.datasets import read_dataset, read_scenes
from limner.data.image_ids import coco_id, medium_name
from limner.data.mixture import first_of_each
from limner.decode.clip_options import ClipMethod
from limner.decode.ensemble import Ensemble, check_same_vocabulary
from limner.decode.generate import GeneratedCaption, generate_several
from limner.decode.options import EQUAL_WEIGHTS, Averaging, Decoding
from limner.metrics.by_data_set import evaluate_each, references_by_data_set, scenes_of
from limner.metrics.references import References
from limner.metrics.report import Metric, Report, evaluate, report_to_json
from limner.models import CAPTIONERS
from limner.runs.clip_search import search_clips
from limner.runs.inputs import feature_paths, open_inputs
from limner.runs.run import Run, start_note
from limner.runs.trained_media import clip_method_of
from limner.text.tokens import scoring_tokenizer

CHUNK = 64  # raw media that are held in memory at a time: each is read once to check it, and once to caption it


@dataclass(frozen=True)
class Evaluation:
    """Captions and scores of a split."""

    captions: dict[str, str]  # id -> the best caption
    report: Report
    problems: tuple[str, ...]  # a line for each medium of the split that was left out or partly read
    other_problems: tuple[str, ...] = ()  # lines about the rest of the data set
    n_best: Mapping[str, Sequence[str]] = field(default_factory=dict)  # id -> all captions; empty when n_best is 1
    media: tuple[Medium, ...] = ()  # the media that were captioned
    generated: Mapping[str, Sequence[GeneratedCaption]] = field(
        default_factory=dict
    )  # id -> captions with log-probabilities
    by_data_set: Mapping[str, Report] = field(default_factory=dict)  # label -> its report; empty for one data set


def evaluate_run(
    run: Run,
    split: str = "test",
    decoding: Decoding | None = None,
    limit: int | None = None,
    metrics: Mapping[str, Metric] | None = None,
    extra: Mapping[str, Metric] | None = None,
    others: Sequence[Run] = (),
    averaging: Averaging = EQUAL_WEIGHTS,
    tokenizer: str = "",
    data_set: str = "",
    clip: str | None = None,
) -> Evaluation:
    """Caption the media of `split` that have references and can be read, and score the captions.

    `decoding` None is the recipe's; `limit` takes the first media only (of each data set); `metrics` None are all, and
    `extra` metrics are added to them.  `others` form an ensemble with `run`; each member reads its own features of
    `run`'s data.  The first of several captions per medium is scored.  `tokenizer` is that of the scores; "" is
    `scoring_tokenizer` of the run.  Of several data sets all are evaluated, each and together, or the one with the
    label `data_set`.  `clip` is how a captioner of images reads clips (see `limner.decode.clip_options`; None: by
    consensus of frames).
    Raises ValueError when a run has neither an encoder nor features, vocabularies differ, features have other channels
    than in training, there is no such data set, or no medium can be captioned.
    """
    for member in (run, *others):
        if member.encoder is None and not feature_paths(member.recipe):
            raise ValueError(_no_inputs(member))
    tokenizer = tokenizer or scoring_tokenizer(run.vocabulary.tokenizer)
    check_same_vocabulary([(str(member.folder), member.vocabulary) for member in (run, *others)])
    dataset = read_dataset(run.recipe.data)
    evaluated = dataset.part(data_set) if data_set else dataset
    selected = first_of_each(evaluated.split(split), limit)
    ids = {medium.id for medium in selected}
    problems: list[str] = []
    other_problems: list[str] = []
    for line in dataset.problems:
        (problems if line.partition(": ")[0] in ids else other_problems).append(line)
    reported = {line.partition(": ")[0] for line in problems}
    without = [medium.id for medium in selected if not medium.references]
    problems += [f"{id}: no references" for id in without if id not in reported]
    scored = [medium for medium in selected if medium.references]
    options = decoding or run.recipe.decoding
    method = clip_method_of((run, *others), clip)
    generated, unreadable, notes = _generate((run, *others), scored, options, averaging, method)
    captions = {id: alternatives[0].text for id, alternatives in generated.items()}
    if not captions:
        raise ValueError(f"none of {len(selected)} media can be evaluated; the first: {[*unreadable, *problems][0]}")
    media = tuple(medium for medium in scored if medium.id in captions)
    training = [text for medium in dataset.media if medium.split == "train" for text in medium.references]
    report, each = _reports(captions, media, run, tokenizer, metrics, extra, training or None)
    absent = [label for label in evaluated.labels if label not in {medium.part for medium in media}]
    notes += [f"no media of the data set '{label}' were evaluated" for label in absent]
    notes += [note] if (note := start_note(run.folder, run.recipe)) else []
    report = replace(report, notes=(*dataset.notes, *notes, *report.notes))
    texts = {id: [it.text for it in alternatives] for id, alternatives in generated.items()}
    n_best = texts if options.n_best > 1 else {}
    return Evaluation(captions, report, (*problems, *unreadable), tuple(other_problems), n_best, media, generated, each)


def _reports(
    captions: Mapping[str, str],
    media: Sequence[Medium],
    run: Run,
    tokenizer: str,
    metrics: Mapping[str, Metric] | None,
    extra: Mapping[str, Metric] | None,
    training: Sequence[str] | None,
) -> tuple[Report, dict[str, Report]]:
    """Return the report of all `media`, and that of each of several data sets by its label."""
    scenes = read_scenes(run.recipe.data)
    references = References({medium.id: medium.references for medium in media}, tokenizer)
    known = scenes_of(references.ids, scenes)
    report = evaluate(captions, references, metrics, extra=extra, training=training, scenes=known)
    by_label = references_by_data_set(media, tokenizer)
    return report, evaluate_each(captions, by_label, metrics, extra=extra, training=training, scenes=scenes)


def _no_inputs(run: Run) -> str:
    """Return the error message for a converted run that has neither an encoder nor features."""
    published = CAPTIONERS[run.recipe.model.name].build.reads_media_as_published  # type: ignore[attr-defined]
    again = "; or convert it again with --encoder, then it reads images or clips" if published else ""
    return (
        f"{run.folder} has no encoder, so it cannot read images or clips: give stored features like those it was "
        "trained on with --features PATH (HDF5, folders of .npy or .npz; for a detector's regions the store that "
        "limner convert --from bottom-up FILE.tsv --out STORE makes of a TSV, and --from regions FOLDER of arrays)"
        f"{again}"
    )


def _generate(
    runs: Sequence[Run],
    media: Sequence[Medium],
    options: Decoding,
    averaging: Averaging,
    clip: ClipMethod,
) -> tuple[dict[str, list[GeneratedCaption]], list[str], list[str]]:
    """Return captions by id, in the order of the media.

    The second result has a line for each medium that could not be read, the third one for each that was read although
    something is wrong with it.
    """
    captions: dict[str, list[GeneratedCaption]] = {}
    problems: list[str] = []
    notes: dict[str, str] = {}
    inputs = [open_inputs(run.recipe, run.encoder) for run in runs]
    for run, source in zip(runs, inputs, strict=True):
        if source.dim != run.info.feature_dim:
            raise ValueError(
                f"{run.folder} was trained on features of {run.info.feature_dim} channels, {run.recipe.features} has "
                f"{source.dim}: give the features it was trained on"
            )
    members = [source.with_encoder(run.model) for run, source in zip(runs, inputs, strict=True)]
    model = (members[0] if len(members) == 1 else Ensemble(members, averaging)).eval()
    find = partial(search_clips, method=clip)
    raw = [source for source in inputs if not source.uses_stored_features]
    size = min((source.media_per_batch(media, CHUNK) for source in raw), default=len(media))
    for start in range(0, len(media), max(1, size)):
        if raw:  # new readers: drops the cached media of the previous chunk
            inputs = [open_inputs(run.recipe, run.encoder, keep=True) for run in runs]
        readable: Sequence[Medium] = media[start : start + size]
        for source in inputs:
            readable, unreadable = source.split_readable(readable)
            problems += unreadable
            notes |= source.notes
        reader = inputs[0].reader if len(inputs) == 1 else tuple(source.reader for source in inputs)
        chunk = generate_several(model, readable, reader, runs[0].vocabulary, options, find=find)
        captions |= {medium.id: chunk[medium.id] for medium in readable}
    return captions, problems, list(notes.values())


def write_evaluation(evaluation: Evaluation, folder: str | Path, about: Mapping[str, Any]) -> None:
    """Write `captions.json` (COCO results) and `scores.json` (scores, protocol, rows per medium) into `folder`.

    With several captions per medium, `several.json` has all of them by id.  `about` is added to `scores.json`.  With
    several data sets, `scores.json` has the scores of each under `data_sets`, and ids stay LABEL/ID in all files.
    """
    folder = Path(folder)
    if evaluation.n_best:
        write_json(folder / "several.json", evaluation.n_best)
    each = {label: report_to_json(report) for label, report in evaluation.by_data_set.items()}
    for part in each.values():
        del part["segments"]  # those of all data sets have the captions
    with_labels = [{"image_id": id, "caption": text} for id, text in evaluation.captions.items()]
    write_json(folder / "captions.json", with_labels if each else coco_results(evaluation.captions))
    about = {**about, "data_sets": each} if each else about
    problems = {"problems": evaluation.problems, "other_problems": evaluation.other_problems}
    write_json(folder / "scores.json", {**about, **report_to_json(evaluation.report), **problems})


def coco_results(captions: Mapping[str, str]) -> list[dict[str, str | int]]:
    """Return captions in COCO's results format; an id with COCO's number becomes that number, as COCO's tools expect.

    Such an id is the number or a file name (val2017/000000397133.jpg).  When two ids have the same number, all stay.

    >>> coco_results({"val2017/000000397133.jpg": "a child", "dogs/1.v2.jpg": "a dog"})
    [{'image_id': 397133, 'caption': 'a child'}, {'image_id': 'dogs/1.v2.jpg', 'caption': 'a dog'}]
    """
    numbers = {id: coco_id(medium_name(id)) for id in captions}
    ids = {id: number if isinstance(number, int) else id for id, number in numbers.items()}
    if len(set(ids.values())) < len(ids):
        ids = {id: coco_id(id) for id in captions}
    return [{"image_id": ids[id], "caption": text} for id, text in captions.items()]
