"""The model inside the package, `limner-tiny`: the default of `limner.load()` and `limner caption`."""

from pathlib import Path

MODEL = Path(__file__).parent / "limner-tiny.limner"
RECIPE = "recipes/limner_tiny.yaml"


def model() -> Path:
    """Return the folder of the packed model.  Raises FileNotFoundError when this build of limner has none."""
    if not (MODEL / "manifest.json").is_file():
        raise FileNotFoundError(
            f"no model is inside this build of limner (there is no {MODEL}): name one with --model RUN, or make it in "
            f"the source tree with `limner train {RECIPE}` and `limner pack RUN --out src/limner/shipped/{MODEL.name}`"
        )
    return MODEL
