"""`limner.train`: a recipe in, a run folder out."""

from os import PathLike
from pathlib import Path

from limner.runs.recipe import Recipe, load_recipe
from limner.training.session import TrainingCallback, ignore_events
from limner.training.train import train as train_recipe


def train(
    recipe: Recipe | str | PathLike[str],
    folder: str | PathLike[str] | None = None,
    *,
    resume: bool = False,
    watch: TrainingCallback = ignore_events,
) -> Path:
    """Train a recipe -> the run folder.

    `recipe` is a `Recipe`, or the path of its YAML file.  `folder` is the run folder (None: runs/NAME for a file
    NAME.yaml).  With `resume` an interrupted run goes on from its last checkpoint.  `watch` is called with the name of
    an event ("start", "step", "validation", "warning", "end") and a dictionary of facts about it.
    Raises FileExistsError when the folder holds a run and `resume` is False, ValueError for a recipe that cannot be
    trained.

    >>> import limner
    >>> recipe = limner.load_recipe("recipe.yaml", {"stages.0.epochs": 1})
    >>> print(limner.train(recipe, "runs/again"))
    runs/again
    """
    if isinstance(recipe, Recipe):
        if folder is None:
            raise ValueError("a recipe that was built in Python has no file name: give the run folder as well")
        return train_recipe(recipe, folder, resume, watch)
    return train_recipe(load_recipe(recipe), folder or Path("runs") / Path(recipe).stem, resume, watch)
