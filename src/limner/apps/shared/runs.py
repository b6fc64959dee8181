"""The run that a command names: a run folder or a packed model, with changed data or features where they have moved."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limner.apps.shared.arguments import Override, WrongArguments
from limner.inference.load import is_exported, is_server, is_transformers
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe
from limner.runs.resolve import MANIFEST, resolve_model
from limner.runs.run import Run, load_run

INPUTS = ("data", "features", "feature_rows", "frames", "sampling")  # fields of a recipe that do not change the weights
SIDE = "model.side"  # of a captioner with several sides: which of them writes the captions


def open_run(name: str, options: argparse.Namespace, changes: Sequence[Override] = ()) -> Run:
    """Load the run `name` with --encoder and --device, and apply changes to the inputs in its recipe.

    Raises ValueError or FileNotFoundError when it is no run, WrongArguments for changes that it does not allow.
    """
    if is_server(name):
        raise ValueError(f"{name} is a server: only `limner caption` asks these")
    if is_transformers(name):
        raise ValueError(f"{name} is a model of transformers: only `limner caption` reads these")
    if is_exported(name):
        raise ValueError(f"{name} is an exported model, for `limner caption` only: name the run it was made from")
    return with_inputs(load_run(resolve_model(name), options.encoder, options.device), changes)


def is_packed(run: Run) -> bool:
    """Whether it is a packed model, in which no file may change."""
    return (run.folder / MANIFEST).is_file()


def with_inputs(run: Run, changes: Sequence[Override], inputs: Sequence[str] = INPUTS) -> Run:
    """A run with other data or features: `--data.media DIR`, `--features STORE` and other fields of `inputs`.

    Of a captioner with several sides `model.side` may change as well.  Raises WrongArguments for other fields and for
    values that are not valid.
    """
    for name, _ in changes:
        if name.split(".")[0] not in inputs and (name != SIDE or not run.model.sides):
            raise WrongArguments(
                f"unknown arguments: --{name} (see --help; of a run's recipe, {', '.join(inputs)} and decoding can "
                "be changed)"
            )
    if not changes:
        return run
    try:
        recipe = load_recipe(run.folder / "recipe.json", changes)
    except ValueError as error:
        raise WrongArguments(str(error)) from error
    if run.model.sides:
        config: Any = recipe.model  # of a captioner with sides, and so with a field `side`
        run.model.select_side(config.side)
    return replace(run, recipe=replace(recipe, decoding=run.recipe.decoding))  # bound to the run's vocabulary


def read_recipe(path: str | Path, changes: Sequence[Override]) -> Recipe:
    """`load_recipe`, with WrongArguments when the changes on the command line are at fault, not the file."""
    try:
        return load_recipe(path, changes)
    except ValueError as error:
        if changes and str(error) != _error_of(path):
            raise WrongArguments(str(error)) from error
        raise


def _error_of(path: str | Path) -> str:
    """What is wrong with a recipe as it is in its file; "" when nothing is."""
    try:
        load_recipe(path)
    except ValueError as error:
        return str(error)
    return ""
