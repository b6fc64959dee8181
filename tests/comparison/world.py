"""Runs as `limner evaluate` leaves them, of a data set that is small enough to follow by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from limner.comparison.compared_runs import ComparedRun
from limner.core.types import Medium
from limner.metrics.references import References
from limner.metrics.report import evaluate
from limner.runs.evaluation import Evaluation, write_evaluation
from limner.runs.recipe_file import build_recipe, save_recipe

REFERENCES = {
    "x": ("a red dog runs", "a dog is running on grass", "the red dog"),
    "y": ("two cats sleep", "a pair of cats", "cats lie on a bed"),
    "z": ("a bird in a tree", "the bird sits on a branch", "a small bird"),
    "w": ("a man rides a horse", "a horse and its rider", "a man on a horse"),
}
GOOD = {"x": "a red dog runs", "y": "two cats sleep", "z": "a bird in a tree", "w": "a man rides a horse"}
BAD = {"x": "a red dog runs", "y": "a car", "z": "a bird", "w": "a man rides a horse in a tree"}


def media(references: Mapping[str, Sequence[str]] = REFERENCES) -> dict[str, Medium]:
    return {id: Medium(id, "", "test", tuple(texts)) for id, texts in references.items()}


def compared_run(name: str, captions: Mapping[str, str], **more: Any) -> ComparedRun:
    return ComparedRun(name, Path(name), dict(captions), (), **more)


def data_set(folder: Path) -> Path:
    """A picture and the references of each id, as `captions.jsonl`."""
    folder.mkdir(parents=True)
    rows = []
    for k, (id, texts) in enumerate(REFERENCES.items()):
        Image.fromarray(np.full((20, 30, 3), 60 * k, np.uint8)).save(folder / f"{id}.png")
        rows.append({"file": f"{id}.png", "id": id, "split": "test", "captions": list(texts)})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(folder: Path, data: Path, captions: Mapping[str, str], split: str = "test", beam: int = 1) -> Path:
    """captions.json, scores.json and recipe.json of a run that was evaluated on `data`."""
    references = References({id: REFERENCES[id] for id in captions}, "simple")
    about = {"split": split, "decoding": {"size": beam, "rules": {"max_length": 8}}}
    write_evaluation(Evaluation(dict(captions), evaluate(captions, references), ()), folder, about)
    tree = {"data": {"name": "jsonl", "annotations": str(data / "captions.jsonl"), "media": str(data)}}
    save_recipe(build_recipe(tree), folder / "recipe.json")
    return folder
