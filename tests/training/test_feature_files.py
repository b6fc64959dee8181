"""Training and evaluation on feature files of others, without an encoder: the same path, faults counted."""

import gc
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from limner.inference.pipeline import Pipeline
from limner.runs.evaluation import evaluate_run
from limner.runs.inputs import open_inputs
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe
from limner.runs.run import load_run
from limner.training.train import train
from tests.training.world import CAPTIONS, Watched

BAD = {"t3": "not in", "t4": "NaN", "t5": "channels"}


def features(path: Path, ids: list[str], width: int = 6) -> Path:
    with h5py.File(path, "w") as file:
        for k, id in enumerate(ids):
            array = np.random.default_rng(k).normal(size=(3 + k % 5, width)).astype(np.float16)
            if id == "t4":
                array[0, 0] = np.nan
            if id == "t5":
                array = array[:, :-1]
            if id != "t3":
                file.create_dataset(id, data=array)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    train_ids, other = [f"t{k}" for k in range(12)], [f"v{k}" for k in range(4)]
    videos = [{"video_id": id, "split": "train"} for id in train_ids] + [
        {"video_id": id, "split": "validate"} for id in other
    ]
    pairs = [(id, text) for text in CAPTIONS[:2] for id in (*train_ids, *other)]  # nobody's captions are contiguous
    saved = {"videos": videos, "sentences": [{"video_id": id, "caption": text} for id, text in pairs]}
    (tmp_path / "videodatainfo.json").write_text(json.dumps(saved))
    tree = {
        "data": {"name": "msrvtt", "annotations": str(tmp_path)},
        "features": str(features(tmp_path / "a.hdf5", train_ids + other)),
        "frames": 4,
        "vocabulary": {"min_count": 1},
        "model": {"name": "show_attend_tell", "hidden": 8, "embed": 8, "attention": 8, "dropout": 0.0},
        "stages": [{"epochs": 1, "batch_size": 4, "captions_per_medium": 1}],
        "decoding": {"size": 2, "rules": {"max_length": 6}},
    }
    return build_recipe(tree)


def test_a_run_is_trained_and_evaluated_on_feature_files(recipe: Recipe, tmp_path: Path):
    watched = Watched()
    run = load_run(train(recipe, tmp_path / "run", callback=watched))
    (start,) = [facts for facts in watched.of("start") if "training media" in facts]
    assert start["training media"] == 9 and start["validation media"] == 4
    for id, reason in BAD.items():
        (line,) = [line for line in start["problems"] if line.startswith(f"{id}: ")]
        assert reason in line and "a.hdf5" in line
    assert run.encoder is None and run.info.feature_dim == 6 and run.info.encoder == {}
    found = evaluate_run(run, "val")
    assert set(found.captions) == {"v0", "v1", "v2", "v3"} and not found.problems
    with pytest.raises(ValueError, match="was trained on features without a known encoder; it cannot read raw media"):
        Pipeline(run)


def test_evaluation_counts_unreadable_features(recipe: Recipe, tmp_path: Path):
    run = load_run(train(recipe, tmp_path / "run"))
    gc.collect()  # HDF5 does not write what is open elsewhere
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["v2"]
    found = evaluate_run(run, "val")
    assert set(found.captions) == {"v0", "v1", "v3"}
    (line,) = found.problems
    assert line.startswith("v2: not in ")
    gc.collect()
    features(tmp_path / "a.hdf5", [f"v{k}" for k in range(4)], 7)
    with pytest.raises(ValueError, match=r"was trained on features of 6 channels, .*a\.hdf5 has 7: give the features"):
        evaluate_run(run, "val")
    (tmp_path / "a.hdf5").unlink()
    with pytest.raises(ValueError, match=r"features: '.*a\.hdf5' does not exist"):
        evaluate_run(run, "val")


def test_files_with_none_of_the_ids_are_refused(recipe: Recipe, tmp_path: Path):
    features(tmp_path / "a.hdf5", ["x1", "x2"])
    message = r"none of 12 media can be read; the first: t0: not in .*a\.hdf5, which has 2 ids \(x1, x2, \.\.\.\)"
    with pytest.raises(ValueError, match=message):
        train(recipe, tmp_path / "run")


def test_augmentations_need_a_feature_store(recipe: Recipe):
    from dataclasses import replace

    with pytest.raises(
        ValueError, match=r"feature files hold a medium without augmentation: augmentations must be \[full\]"
    ):
        open_inputs(replace(recipe, augmentations=("full", "flip")))


def test_random_frames_repeat_with_the_seed(recipe: Recipe, tmp_path: Path):
    """Two trainings draw the same rows; without chance they end elsewhere."""
    from dataclasses import replace

    from limner.core.tensors import load_tensors
    from limner.data.frames import SamplingConfig

    chance = replace(recipe, frames=2, sampling=SamplingConfig("random"))
    weights = []
    for name, some in (("a", chance), ("b", chance), ("c", replace(chance, sampling=SamplingConfig()))):
        weights.append(load_tensors(train(some, tmp_path / name) / "last.safetensors")[0])
    key = next(name for name in weights[0] if name.startswith("model.") and name.endswith("weight"))
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not np.array_equal(weights[0][key], weights[2][key])


def test_a_recipe_of_several_files_needs_no_media(recipe: Recipe, tmp_path: Path):
    other = features(tmp_path / "b.hdf5", [f"t{k}" for k in range(12)] + [f"v{k}" for k in range(4)], 2)
    tree = {"data": {"name": "msrvtt", "annotations": str(tmp_path)}, "features": [recipe.features, str(other)]}
    tree |= {"sampling": {"policy": "head"}, "feature_rows": {"masked": False, "max_rows": 60}, "frames": 28}
    both = build_recipe(tree)
    assert both.features == (recipe.features, str(other)) and open_inputs(both).dim == 8
    with pytest.raises(ValueError, match=r"data\.media is required"):
        build_recipe({"data": tree["data"]})
    with pytest.raises(ValueError, match="sampling has no field 'polcy'; it has policy, stride"):
        build_recipe(tree, [("sampling.polcy", "tail")])
    with pytest.raises(ValueError, match=r"sampling\.policy"):
        build_recipe(tree, [("sampling.policy", "middle")])
