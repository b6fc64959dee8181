"""Encode a data set into a feature store: limner extract RECIPE.yaml

Without a recipe: limner extract --data NAME --media DIR --encoder PATH --out DIR
A rerun continues an interrupted extraction.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limner.apps.arguments import overrides, report_problems
from limner.data.datasets import DATASETS, DataConfig, read_dataset
from limner.data.views import VIEWS
from limner.encoders import PretrainedConfig, build_encoder
from limner.recipe import Recipe, load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="take data, encoder, views and store folder from this recipe")
    parser.add_argument("--data", choices=sorted(DATASETS), help="kind of data set (without a recipe)")
    parser.add_argument("--media", help="folder of pictures or clips")
    parser.add_argument("--annotations", default="", help="caption file")
    parser.add_argument("--encoder", help="transformers backbone: local folder or hub id")
    parser.add_argument("--out", help="feature store folder (default: the recipe's `features`)")
    parser.add_argument(
        "--views", help=f"comma-separated, of {', '.join(VIEWS)}; others than full for training media only"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--frames", type=int, help="frames sampled from a clip")
    parser.add_argument("--device", default="cpu")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    from limner.encoders.extract import extract

    recipe = _recipe(options, rest)
    out = options.out or recipe.features
    if not out:
        raise ValueError("where should the features go? give --out FOLDER, or `features` in the recipe")
    dataset = read_dataset(recipe.data)
    views = tuple(options.views.split(",")) if options.views else recipe.views
    console = Console(soft_wrap=True)
    columns = (TextColumn("extract"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("extract")
        report = extract(
            dataset.media,
            build_encoder(recipe.encoder),
            Path(out),
            views,
            batch_size=options.batch_size,
            device=options.device,
            frames=options.frames or recipe.frames,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"{out}: {report}")
    report_problems([f"{id}: {reason}" for id, reason in report.failures])
    return 3 if report.failures else 0


def _recipe(options: argparse.Namespace, rest: list[str]) -> Recipe:
    if options.recipe:
        if options.data or options.media:
            raise ValueError("give a recipe, or --data and --media, not both")
        recipe = load_recipe(options.recipe, overrides(rest))
    else:
        if not (options.data and options.media and options.encoder):
            raise ValueError("give a recipe, or --data, --media and --encoder")
        recipe = Recipe(data=DataConfig(options.data, options.media, options.annotations))
    if options.encoder:
        recipe = replace(recipe, encoder=PretrainedConfig(source=options.encoder))
    return recipe
