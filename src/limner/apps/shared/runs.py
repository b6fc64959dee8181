"""The run that a command names: a folder, or a packed model, checked; with its data where they lie by now."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from limner.apps.shared.arguments import WrongArguments, no_more, overrides
from limner.runs.package import MANIFEST, resolve_model
from limner.runs.recipe import load_recipe
from limner.runs.run import Run, load_run

INPUTS = ("data", "features", "feature_rows", "frames", "sampling")  # what of a recipe may differ after training
SIDE = "model.side"  # of an SFT captioner, whose captions are asked for: the teacher's or the student's


def open_run(options: argparse.Namespace, rest: Sequence[str]) -> Run:
    """`options.run`, with --encoder and --device, and what else of its recipe is given."""
    return elsewhere(load_run(resolve_model(options.run), options.encoder, options.device), rest)


def is_packed(run: Run) -> bool:
    """Whether it is one that must stay as it was packed."""
    return (run.folder / MANIFEST).is_file()


def elsewhere(run: Run, rest: Sequence[str], inputs: Sequence[str] = INPUTS) -> Run:
    """A run whose data lie elsewhere by now: `--data.media DIR`, `--features STORE` and other fields of its recipe,
    those of `inputs`, that do not change the weights; or whose other SIDE is asked for."""
    if rest and not rest[0].startswith("--"):
        no_more(rest)
    changes = overrides(rest)
    for name, _ in changes:
        if name.split(".")[0] not in inputs and (name != SIDE or not run.model.sides):
            raise WrongArguments(
                f"unknown arguments: --{name} (see --help; of a run's recipe {', '.join(inputs)} may be given anew)"
            )
    if not changes:
        return run
    recipe = load_recipe(run.folder / "recipe.json", changes)
    if run.model.sides:
        run.model.select_side(recipe.model.side)  # type: ignore[attr-defined]
    return replace(run, recipe=replace(recipe, decoding=run.recipe.decoding))  # whose words are those of the run
