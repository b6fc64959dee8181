"""Train a captioner from a recipe.

    limner train RECIPE.yaml [--FIELD VALUE ...]

Every field of the recipe can be changed by its dotted name, for example --stages.0.lr 1e-4 or --seed 3.  --resume
continues an interrupted run exactly.  Several processes: torchrun --nproc_per_node 2 -m limner train RECIPE.yaml

    limner train --fields [GROUP]

prints all fields with their defaults, or those of a group: --fields stages, --fields xlan.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="YAML file, or the recipe.json of a run")
    parser.add_argument("--out", metavar="DIR", help="run folder (default: runs/NAME_OF_RECIPE)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--fields", nargs="?", const="", metavar="GROUP", help="print the fields of recipes, and stop")
