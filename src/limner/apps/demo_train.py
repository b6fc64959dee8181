"""`limner demo-train`: generate the micro-world, train on it, caption test images, score and explain."""

import argparse
import shutil
import time
from pathlib import Path

from limner.apps.shared.arguments import refuse_unknown
from limner.apps.shared.console import open_console
from limner.apps.train import Watcher
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe

RECIPE = Path(__file__).parents[3] / "recipes" / "shapes_pictures.yaml"


def demo_recipe(media: Path, seed: int, epochs: int | None = None) -> Recipe:
    """The recipe of the demo for images in the folder `media`.

    Raises FileNotFoundError outside the source tree: an installed package has no recipes.
    """
    if not RECIPE.is_file():
        raise FileNotFoundError(
            f"limner demo-train needs recipes/{RECIPE.name}, which is in the source tree and not in an installed "
            "package: run it in a clone of the repository"
        )
    changes = [("seed", str(seed)), ("data.media", str(media))]
    return load_recipe(RECIPE, [*changes, *([("stages.0.epochs", str(epochs))] if epochs else [])])


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    from limner.data.frames import FrameSampling
    from limner.data.shapes import generate_world
    from limner.explanations.figure import attention_figure
    from limner.inference.pipeline import Pipeline, frames_of
    from limner.metrics.report import microworld_table, report_table
    from limner.runs.evaluation import evaluate_run, write_evaluation
    from limner.runs.run import load_run
    from limner.training.train import train

    console = open_console(soft_wrap=True)
    begin = time.monotonic()
    world, folder = options.out / "shapes", options.out / "run"
    recipe = demo_recipe(world, options.seed, options.epochs)
    console.print(f"1. drawing {options.images} images of coloured shapes in {world}")
    generate_world(world, options.images, seed=options.seed, objects=2)
    console.print("2. training Show, Attend and Tell from their pixels")
    if (folder / "run.json").is_file():  # of an earlier demo; other folders are left alone
        shutil.rmtree(folder)
    with Watcher(folder) as watcher:
        train(recipe, folder, callback=watcher)
    console.print("3. captioning the test images")
    loaded = load_run(folder)
    evaluation = evaluate_run(loaded, "test")
    write_evaluation(evaluation, folder, {"split": "test"})
    console.print(report_table(evaluation.report))
    console.print(microworld_table(evaluation.report.exact))
    console.print("4. explaining one of them")
    pipeline = Pipeline(loaded)
    id = with_relation(evaluation.captions)
    frames = frames_of(world / "images" / f"{id.removeprefix('image-')}.png", FrameSampling(1))
    caption = pipeline.caption(frames)
    figure = attention_figure(frames[0], caption, options.out / "attention.png")
    console.print(f"   {caption.text}")
    console.print(f"[bold]figure: {figure}   run: {folder}   all of it took {time.monotonic() - begin:.0f} s")
    return 0


def with_relation(captions: dict[str, str]) -> str:
    """The first id with a caption about the position of two objects, or the first id if there is none."""
    related = [id for id, text in captions.items() if {"left", "right", "above", "below"} & set(text.split())]
    return min(related or captions)
