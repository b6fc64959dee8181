"""Train a captioner from a recipe.

    limner train RECIPE.yaml [--FIELD VALUE ...]

Every field of the recipe can be changed by its dotted name, for example --stages.0.lr 1e-4 or --seed 3.  --resume
continues an interrupted run exactly.  --seeds 1,2,3 trains a run per seed, in the folders OUT_1, OUT_2 and OUT_3, and
prints their mean.  Several processes: torchrun --nproc_per_node 2 -m limner train RECIPE.yaml

    limner train --fields [GROUP]

prints all fields with their defaults, or those of a group: --fields stages, --fields xlan.
"""

import argparse

from limner.apps.shared.names import names_of


def seed_list(text: str) -> tuple[int, ...]:
    """Argument type: different whole numbers separated by commas.

    >>> seed_list("1,2,3")
    (1, 2, 3)
    """
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers separated by commas, got '{text}'") from None
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"a seed is given twice in '{text}'")
    return seeds


def tracker_list(text: str) -> tuple[str, ...]:
    """Argument type: names of experiment trackers separated by commas.

    >>> tracker_list("wandb, mlflow")
    ('wandb', 'mlflow')
    """
    known = names_of("limner.training.tracking.TRACKERS")
    names = tuple(part.strip() for part in text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"unknown tracker '{unknown[0]}'; known are {', '.join(known)}")
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="YAML file, or the recipe.json of a run")
    parser.add_argument("--out", metavar="DIR", help="run folder (default: runs/NAME_OF_RECIPE)")
    parser.add_argument("--seeds", type=seed_list, metavar="N,...", help="train one run per seed, one after the other")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run, or the rest of --seeds")
    parser.add_argument(
        "--track",
        type=tracker_list,
        default=(),
        metavar="NAME,...",
        help="also log to wandb, mlflow, trackio, tensorboard",
    )
    parser.add_argument("--fields", nargs="?", const="", metavar="GROUP", help="print the fields of recipes, and stop")
