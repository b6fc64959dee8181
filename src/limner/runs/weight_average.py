"""The mean of the weights of several runs, as one run: a model soup (Wortsman et al. 2022, arXiv:2203.05482).

It works for runs that come from the same weights, for example a stage of cross entropy and the self-critical stage that
started from it.  It costs one model at inference, unlike an ensemble.
"""

from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import torch
from torch import Tensor

from limner.core.files import atomic_folder
from limner.core.tensors import save_tensors
from limner.data.store import encoder_identity, provenance_differences
from limner.decode.ensemble import check_same_vocabulary
from limner.runs.recipe_file import load_recipe
from limner.runs.run import Run, create_run, load_run, load_weights


def average_weights(
    tensors: Sequence[dict[str, Tensor]], weights: Sequence[float], names: Sequence[str]
) -> dict[str, Tensor]:
    """Return sum_i w_i * tensor_i of every tensor, computed in float64; tensors of integers are those of the first.

    `weights` sum to 1, and `names` are for the errors.  Raises ValueError when tensors are missing or differ in shape.

    >>> ones, threes = {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}
    >>> average_weights([ones, threes], [0.25, 0.75], ["a", "b"])
    {'w': tensor([2.5000])}
    """
    first = tensors[0]
    for name, other in zip(names[1:], tensors[1:], strict=True):
        if odd := sorted(first.keys() ^ other.keys()):
            raise ValueError(f"{names[0]} and {name} are different models: only one of them has {odd[0]}")
        for key, value in other.items():
            if value.shape != first[key].shape:
                shapes = f"{tuple(first[key].shape)} and {tuple(value.shape)}"
                raise ValueError(f"{names[0]} and {name} are different models: {key} is {shapes}")
    return {
        key: torch.stack([w * it[key].double() for it, w in zip(tensors, weights, strict=True)]).sum(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for key, value in first.items()
    }


def average_runs(folders: Sequence[Path], weights: Sequence[float], out: Path) -> Path:
    """Write the run whose weights are the weighted mean of those of `folders` -> `out`.

    `weights` are positive, one per run; they are divided by their sum.  Recipe, words, encoder and image size are those
    of the first run.  Raises FileExistsError when `out` holds something, ValueError when there are fewer than two runs,
    their number is not that of the weights, a weight is not positive, or the runs are not of one model, one vocabulary
    and one encoder.
    """
    if len(folders) < 2:
        raise ValueError("an average needs at least two runs")
    if len(weights) != len(folders):
        raise ValueError(f"there are {len(folders)} runs and {len(weights)} weights: give one weight per run")
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights are {', '.join(f'{weight:g}' for weight in weights)}: give positive numbers")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise FileExistsError(f"{out} exists and is not empty: give a new folder as --out")
    runs = [load_run(folder) for folder in folders]
    first = runs[0]
    check_same_vocabulary([(str(run.folder), run.vocabulary) for run in runs])
    for run in runs[1:]:
        _check_same_kind(first, run)
    total = sum(weights)
    names = [str(folder) for folder in folders]
    mean = average_weights([load_weights(folder) for folder in folders], [w / total for w in weights], names)
    with atomic_folder(out) as new:
        create_run(new, load_recipe(first.folder / "recipe.json"), first.vocabulary, first.info)
        if (first.folder / "encoder").is_dir():
            copytree(first.folder / "encoder", new / "encoder")
        save_tensors(new / "model.safetensors", mean)
    return out


def _check_same_kind(first: Run, other: Run) -> None:
    """Raise ValueError unless two runs have the same model and encoder.

    Weights inside the runs may differ, and the size of the images: training may end with larger ones.
    """
    both = f"{first.folder} and {other.folder}"
    if other.recipe.model != first.recipe.model:
        raise ValueError(f"{both} have different models: {first.recipe.model}, {other.recipe.model}")
    before, after = _without_size(first.info.encoder), _without_size(other.info.encoder)
    if first.info.encoder_trained and other.info.encoder_trained:  # the hash is that before training
        before, after = {**before, "sha256": ""}, {**after, "sha256": ""}
    if lines := provenance_differences(before, after, str(first.folder)):
        raise ValueError(f"{both} have different encoders: {'; '.join(lines)}")


def _without_size(provenance: dict[str, Any]) -> dict[str, Any]:
    """The identity of an encoder at any size of images."""
    identity = encoder_identity(provenance)
    return {**identity, "preprocessing": {**identity.get("preprocessing", {}), "size": None}}
