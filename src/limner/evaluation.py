"""A run's captions for a split of its data, scored; the files are COCO results and plain JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.data.datasets import read_dataset
from limner.decode.generate import generate
from limner.decode.search import Beam
from limner.files import write_json
from limner.inputs import open_inputs
from limner.metrics.references import References
from limner.metrics.report import Report, evaluate, to_json
from limner.models.captioner import FromPixels
from limner.run import Run


@dataclass(frozen=True)
class Evaluation:
    """Captions by id, their scores, and a line for each medium that was left out."""

    captions: dict[str, str]
    report: Report
    problems: tuple[str, ...]


def evaluate_run(run: Run, split: str = "test", decoding: Beam | None = None, limit: int | None = None) -> Evaluation:
    """Caption the media of `split` that have references and can be read, and score them."""
    if run.encoder is None:
        raise ValueError(f"{run.folder} has no encoder, so its inputs cannot be told; convert it again with --encoder")
    dataset = read_dataset(run.recipe.data)
    inputs = open_inputs(run.recipe, run.encoder)
    asked = dataset.split(split)[:limit]
    media, problems = inputs.usable([medium for medium in asked if medium.references])
    problems += [f"{medium.id}: no references" for medium in asked if not medium.references]
    model = run.model if inputs.store else FromPixels(inputs.encoder, run.model)
    options = decoding or run.recipe.decoding
    captions = generate(model.eval(), media, inputs.reader, run.vocabulary, options)
    references = References({medium.id: medium.references for medium in media}, run.vocabulary.tokenizer)
    return Evaluation(captions, evaluate(captions, references), (*dataset.problems, *problems))


def write_evaluation(evaluation: Evaluation, folder: str | Path, about: Mapping[str, Any]) -> None:
    """`captions.json` (COCO results) and `scores.json` (scores, protocol, per-medium rows) into `folder`."""
    folder = Path(folder)
    write_json(folder / "captions.json", coco_results(evaluation.captions))
    write_json(folder / "scores.json", {**about, **to_json(evaluation.report), "problems": evaluation.problems})


def coco_results(captions: Mapping[str, str]) -> list[dict[str, str | int]]:
    """COCO's results format; an id made of digits becomes a number, as COCO's tools expect."""
    return [{"image_id": int(id) if _numeric(id) else id, "caption": text} for id, text in captions.items()]


def _numeric(id: str) -> bool:
    return id.isascii() and id.isdigit() and str(int(id)) == id
