"""Floors on the micro-world: trained from pixels, a captioner names what is in pictures it never saw."""

from pathlib import Path

import pytest

from limner.apps.demo_train import RECIPE, demo_recipe
from limner.data.shapes import generate_world, read_truth
from limner.metrics.microworld import accuracy
from limner.runs.evaluation import evaluate_run
from limner.runs.recipe_file import load_recipe
from limner.runs.run import load_run
from limner.training.train import train


def accuracy_after(folder: Path, images: int, objects: int, epochs: int) -> dict[str, float]:
    """Train the demo's recipe on a new world and judge its test captions against the truth."""
    world = folder / "world"
    generate_world(world, images, objects=objects, splits=(0.8, 0.05, 0.15))
    settings = {"data.media": world, "validation.every": 100, "stages.0.epochs": epochs}
    recipe = load_recipe(RECIPE, [(name, str(value)) for name, value in settings.items()])
    evaluation = evaluate_run(load_run(train(recipe, folder / "run")), "test")
    scenes = read_truth(world)
    return accuracy(evaluation.captions, {id: scenes[id] for id in evaluation.captions})


def test_single_shapes_are_named(tmp_path: Path):
    """Chance is 1 in 5 for the shape and 1 in 35 for colour and shape; measured 0.78 and 0.78 after 12 epochs."""
    exact = accuracy_after(tmp_path, images=1200, objects=1, epochs=14)
    assert exact["object"] > 0.5
    assert exact["colour"] > 0.5
    assert exact["hallucination"] < 0.5


@pytest.mark.slow
def test_the_demo_names_two_shapes_and_how_they_lie(tmp_path: Path):
    """The demo as it is shipped, in about 5 CPU minutes."""
    exact = accuracy_after(tmp_path, images=3000, objects=2, epochs=demo_recipe(tmp_path, 0).stages[0].epochs)
    assert exact["object"] > 0.6
    assert exact["colour"] > 0.55
    assert exact["relation"] > 0.3
