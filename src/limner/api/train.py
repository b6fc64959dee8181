"""`limner.train`: trains a recipe into a run folder."""

from os import PathLike
from pathlib import Path

from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe
from limner.training.session import TrainingCallback, ignore_events
from limner.training.train import train as train_recipe


def train(
    recipe: Recipe | str | PathLike[str],
    folder: str | PathLike[str] | None = None,
    *,
    resume: bool = False,
    callback: TrainingCallback = ignore_events,
) -> Path:
    """Train a recipe -> the run folder.

    `recipe` is a `Recipe`, or the path of its YAML file.  `folder` is the run folder (None: runs/NAME for a file
    NAME.yaml).  With `resume` an interrupted run continues from its last checkpoint.  `callback` is called with the
    name of an event ("start", "step", "validation", "warning", "end") and a dictionary of facts about it.
    Raises FileExistsError when the folder holds a run and `resume` is False, ValueError for a recipe that cannot be
    trained.

    >>> import limner
    >>> recipe = limner.load_recipe("recipe.yaml", {"stages.0.epochs": 1})
    >>> print(limner.train(recipe, "runs/again"))
    runs/again
    """
    if isinstance(recipe, Recipe):
        if folder is None:
            raise ValueError("a Recipe has no file name that could name the run: give the run folder too")
        return train_recipe(recipe, folder, resume, callback)
    return train_recipe(load_recipe(recipe), folder or Path("runs") / Path(recipe).stem, resume, callback)
