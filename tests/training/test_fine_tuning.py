"""Training a pretrained encoder along, and training on several processes."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limner.core.tensors import load_tensors
from limner.encoders import Pretrained
from limner.inference.pipeline import Pipeline
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import save_recipe
from limner.runs.run import load_run
from limner.training.train import train
from tests.encoders.test_pretrained import CASES, save
from tests.training.world import log_of, pictures, recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a small random ResNet of three blocks as transformers saves it."""
    root = pictures(tmp_path_factory.mktemp("tuning"), 4, side=32)
    save("resnet", root / "resnet")
    torch.manual_seed(0)
    CASES["resnet"][0]().save_pretrained(root / "resnet")  # with statistics that leave something behind the ReLUs
    return root


def tuned(folder: Path, source: Path, trainable_from: int | None, **stage: object) -> Recipe:
    encoder = {"name": "pretrained", "source": str(source), "trainable_from": trainable_from}
    return recipe(folder, ("encoder", encoder), **{"lr": 0.01, "encoder_lr": 0.001, "clip_norm": None, **stage})


def moves(run: Path, source: Path) -> dict[str, float]:
    """The largest change of each of the encoder's tensors, by name."""
    before = load_tensors(source / "model.safetensors")[0]
    after = load_tensors(run / "last.safetensors")[0]
    return {
        name: (after[f"model.encoder.backbone.{name}"] - value).abs().max().item()
        for name, value in before.items()
        if value.is_floating_point()
    }


def test_exactly_the_chosen_blocks_move_at_their_own_rate(folder: Path, tmp_path: Path):
    """One step of Adam moves a weight by its rate (times g / (|g| + 1e-8)): .001 in the encoder, .01 elsewhere."""
    moved = moves(train(tuned(folder, folder / "resnet", -1), tmp_path / "run"), folder / "resnet")
    chosen = "encoder.stages.1.layers.1."
    for name, change in moved.items():
        if not name.startswith(chosen):
            assert change == 0, name
        elif "running" not in name:
            assert change == pytest.approx(0.001, rel=1e-3), name
        else:
            assert change > 0, name  # BatchNorm's statistics follow the block they belong to
    train(tuned(folder, folder / "resnet", -1, lr=1e-30), tmp_path / "still")
    assert moves(tmp_path / "still", folder / "resnet")[chosen + "layer.0.convolution.weight"] > 0
    a, b = (load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("run", "still"))
    change = (a["model.captioner.head.weight"] - b["model.captioner.head.weight"]).abs().max().item()
    assert change == pytest.approx(0.01, rel=1e-3)


def test_a_tuned_run_needs_nothing_but_itself(folder: Path, tmp_path: Path):
    source = tmp_path / "weights"
    shutil.copytree(folder / "resnet", source)
    run = train(tuned(folder, source, 0, encoder_lr=0.1), tmp_path / "run")
    shutil.rmtree(source)
    loaded = load_run(run)
    stored = load_tensors(run / "model.safetensors")[0]
    assert isinstance(loaded.encoder, Pretrained)
    for name, value in loaded.encoder.state_dict().items():
        assert torch.equal(value, stored[f"encoder.{name}"])
    assert Pipeline(loaded).caption(folder / "p0.png").text


def test_a_frozen_encoder_is_not_copied_and_is_checked(folder: Path, tmp_path: Path):
    source = tmp_path / "weights"
    shutil.copytree(folder / "resnet", source)
    run = train(tuned(folder, source, None), tmp_path / "run")
    assert not any(key.startswith("encoder.") for key in load_tensors(run / "model.safetensors")[0])
    assert not any(moves(run, source).values())
    text = Pipeline.load(run).caption(folder / "p0.png").text
    source.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"encoder.source: .*weights is not a folder.*; give its present path with"):
        load_run(run)
    assert Pipeline.load(run, str(tmp_path / "moved")).caption(folder / "p0.png").text == text
    torch.manual_seed(7)
    save("vit", tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"other is not the one that .* trained with \(weights\): architecture: .*--encoder"
    ):
        load_run(run, str(tmp_path / "other"))


def test_fine_tuning_needs_pixels(folder: Path, tmp_path: Path):
    whole = replace(tuned(folder, folder / "resnet", -1), features="somewhere")
    with pytest.raises(ValueError, match=r"encoder.trainable_from needs raw media: leave `features` empty"):
        train(whole, tmp_path / "run")


@pytest.mark.slow
def test_two_processes_train_one_run(folder: Path, tmp_path: Path):
    save_recipe(recipe(folder, epochs=3, batch_size=3, ema_decay=0.5), tmp_path / "r.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "limner"]
    command += ["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = log_of(tmp_path / "run")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]  # written by one of the two
    assert [row["epoch"] for row in rows if "CIDEr" in row] == [1, 2, 3]
    assert all(0 < loss < 5 for loss in losses)
    names = {path.name for path in (tmp_path / "run").iterdir()} - {"tensorboard"}
    assert names == {
        *("recipe.json", "vocabulary.json", "run.json", "log.jsonl", "model.safetensors", "last.safetensors")
    }
    assert json.loads((tmp_path / "run" / "run.json").read_text())["encoder_trained"]
    assert Pipeline.load(tmp_path / "run").caption(folder / "p0.png").text


def test_frozen_statistics_stay_while_the_weights_of_their_block_learn(folder: Path, tmp_path: Path):
    source = folder / "resnet"
    run = train(tuned(folder, source, 0, epochs=1), tmp_path / "free")
    frozen = tuned(folder, source, 0, epochs=1)
    frozen = replace(frozen, encoder=replace(frozen.encoder, freeze_statistics=True))
    still = train(frozen, tmp_path / "frozen")
    statistics = {name: moved for name, moved in moves(still, source).items() if "running" in name}
    assert statistics
    assert not any(statistics.values())
    assert any(moved for name, moved in moves(still, source).items() if name.endswith("weight"))
    assert any(moved for name, moved in moves(run, source).items() if "running" in name)


def test_a_later_stage_can_freeze_what_an_earlier_one_tuned(folder: Path, tmp_path: Path):
    """The second stage leaves the tuned encoder as it is, computes no gradient for it, and saves it with the run."""
    first = tuned(folder, folder / "resnet", -1, encoder_lr=0.01, ema_decay=0.5)
    second = replace(first.stages[0], encoder_lr=0.0, lr=0.02)
    alone = load_tensors(train(first, tmp_path / "alone") / "model.safetensors")[0]
    both = replace(first, stages=(first.stages[0], second))
    run = train(both, tmp_path / "both")
    stored = load_tensors(run / "model.safetensors")[0]
    checkpoint = load_tensors(run / "last.safetensors")[0]
    name = "encoder.backbone.encoder.stages.1.layers.1.layer.0.convolution.weight"
    assert torch.equal(checkpoint[f"model.{name}"], alone[name])
    assert set(stored) == set(alone) and torch.equal(stored[name], alone[name])
    assert f"average.{name}" not in checkpoint and "average.captioner.head.weight" in checkpoint
