"""The whole line on the micro-world: generate, train from pixels, caption held-out pictures, score, explain

Needs no data and no download.
"""

import argparse
import shutil
import time
from pathlib import Path

from rich.console import Console

from limner.apps.shared.arguments import no_more
from limner.apps.train import Watcher
from limner.runs.recipe import Recipe, build_recipe

RECIPE = {
    "encoder": {"name": "small_cnn"},
    "vocabulary": {"min_count": 1},
    "model": {
        "name": "show_attend_tell",
        "hidden": 256,
        "embed": 128,
        "attention": 128,
        "dropout": 0.0,
        "deep_output": True,
        "initial": "max",
    },
    "stages": [
        {
            "objective": {"name": "xe", "doubly_stochastic": 0.0},
            "epochs": 16,
            "batch_size": 32,
            "lr": 2e-3,
            "encoder_lr": 2e-3,
            "captions_per_medium": 1,
            "schedule": {"name": "one_cycle", "warmup": 0.1},
        }
    ],
    "validation": {"every": 5, "limit": 150},
    "decoding": {"size": 3, "rules": {"max_length": 24, "no_repeat_word": False}},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything the demo makes")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)


def recipe(media: Path, seed: int, epochs: int | None = None) -> Recipe:
    changes = [("seed", str(seed)), ("data.media", str(media)), ("data.name", "shapes")]
    return build_recipe(RECIPE, [*changes, *([("stages.0.epochs", str(epochs))] if epochs else [])])


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    from limner.data.shapes import generate_world
    from limner.explanations.figure import attention_figure
    from limner.inference.pipeline import Pipeline, frames_of
    from limner.metrics.report import microworld_table, report_table
    from limner.runs.evaluation import evaluate_run, write_evaluation
    from limner.runs.run import load_run
    from limner.training.train import train

    console = Console(soft_wrap=True)
    begin = time.monotonic()
    world, folder = options.out / "shapes", options.out / "run"
    console.print(f"1. drawing {options.images} pictures of coloured shapes in {world}")
    generate_world(world, options.images, seed=options.seed, objects=2)
    console.print("2. training Show, Attend and Tell from their pixels")
    if (folder / "run.json").is_file():  # an earlier demo; anything else is left alone
        shutil.rmtree(folder)
    with Watcher(folder) as watcher:
        train(recipe(world, options.seed, options.epochs), folder, callback=watcher)
    console.print("3. captioning the held-out test pictures")
    loaded = load_run(folder)
    evaluation = evaluate_run(loaded, "test")
    write_evaluation(evaluation, folder, {"split": "test"})
    console.print(report_table(evaluation.report))
    console.print(microworld_table(evaluation.report.exact))
    console.print("4. explaining one of them")
    pipeline = Pipeline(loaded)
    id = showcase(evaluation.captions)
    frames = frames_of(world / "images" / f"{id.removeprefix('image-')}.png")
    caption = pipeline.caption(frames)
    figure = attention_figure(frames[0], caption, options.out / "attention.png")
    console.print(f"   {caption.text}")
    console.print(f"[bold]figure: {figure}   run: {folder}   all of it took {time.monotonic() - begin:.0f} s")
    return 0


def showcase(captions: dict[str, str]) -> str:
    """The first picture whose caption says how two objects lie, right or wrong; the first one if none does."""
    related = [id for id, text in captions.items() if {"left", "right", "above", "below"} & set(text.split())]
    return min(related or captions)
