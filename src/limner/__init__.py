"""limner: train, run, evaluate and explain image and video captioners.

import limner

captioner = limner.load()                                  # the model inside the package; or a run, a hub id, "hf:..."
print(captioner.caption("photo.jpg").text)
limner.train("recipe.yaml", "runs/mine")
print(limner.evaluate("runs/mine").report.scores["CIDEr"])
limner.explain("photo.jpg", "runs/mine", out="figure.png")
"""

from typing import TYPE_CHECKING

from limner.core.version import __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time each name is imported when it is first used
    from limner.api.compare import compare as compare
    from limner.api.evaluate import evaluate as evaluate
    from limner.api.explain import explain as explain
    from limner.api.score import score as score
    from limner.api.train import train as train
    from limner.core.torch_free import Caption as Caption
    from limner.inference.load import load as load
    from limner.inference.pipeline import Pipeline as Pipeline
    from limner.runs.recipe import Recipe as Recipe
    from limner.runs.recipe_file import load_recipe as load_recipe
    from limner.runs.register import register as register

_MODULES = {
    "Caption": "limner.core.torch_free",
    "Pipeline": "limner.inference.pipeline",
    "Recipe": "limner.runs.recipe",
    "compare": "limner.api.compare",
    "evaluate": "limner.api.evaluate",
    "explain": "limner.api.explain",
    "load": "limner.inference.load",
    "load_recipe": "limner.runs.recipe_file",
    "register": "limner.runs.register",
    "score": "limner.api.score",
    "train": "limner.api.train",
}
__all__ = [
    "Caption",
    "Pipeline",
    "Recipe",
    "__version__",
    "compare",
    "evaluate",
    "explain",
    "load",
    "load_recipe",
    "register",
    "score",
    "train",
]


if not TYPE_CHECKING:  # with `__getattr__` a type checker would accept any name

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used, so that `import limner` loads no PyTorch."""
        if name not in _MODULES:
            raise AttributeError(f"module 'limner' has no attribute {name!r}; it has {', '.join(__all__)}")
        import importlib

        try:
            value = getattr(importlib.import_module(_MODULES[name]), name)
        except ImportError as error:
            from limner.core.distributions import missing_part

            if message := missing_part(error):
                raise ImportError(f"limner.{name}: {message}") from error
            raise
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
