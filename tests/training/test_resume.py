"""Interrupted and resumed, a run is the same to the bit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from limner.core.tensors import load_tensors, save_tensors
from limner.runs.checkpoint import save_checkpoint
from limner.runs.recipe import Recipe
from limner.training import session, stage
from limner.training.train import train
from tests.training.world import Watched, log_of, pictures, recipe

STAGE = {
    "batch_size": 2,
    "accumulate": 2,
    "ema_decay": 0.9,
    "epochs": 3,
    "captions_per_medium": 1,
    "schedule": {"name": "plateau", "factor": 0.5, "patience": 1},
    "objective": {"name": "xe", "label_smoothing": 0.1, "doubly_stochastic": 0.5},
}


def long(folder: Path) -> Recipe:
    """10 pairs in twos, accumulated in twos: 3 steps an epoch (2, 2 and 1 batches), checkpoints after every other one.

    Dropout everywhere, so the random state matters; then a second stage with another optimiser and schedule.
    """
    second = {"epochs": 2, "batch_size": 4, "lr": 0.01, "optimizer": "adamw", "schedule": {"name": "cosine"}}
    first = recipe(folder, **STAGE).stages[0]
    whole = recipe(
        folder,
        *[(f"model.{name}", 0.3) for name in ("dropout", "word_dropout", "cell_dropout")],
        ("augmentations", ["full", "flip"]),
        ("checkpoint_steps", 2),
        **STAGE,
    )
    return replace(whole, stages=(first, recipe(folder, **second).stages[0]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe, and the run that nothing disturbed."""
    root = tmp_path_factory.mktemp("resume")
    whole = long(pictures(root / "data", 10))
    return whole, train(whole, root / "whole")


def same(a: Path, b: Path) -> None:
    for name in ("model.safetensors", "last.safetensors"):
        (ours, _), (theirs, _) = load_tensors(a / name), load_tensors(b / name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():  # weights, moments, averaged weights, random state
            assert torch.equal(value, theirs[key]), f"{name}: {key}"
    assert log_of(a) == log_of(b)
    assert (a / "recipe.json").read_text() == (b / "recipe.json").read_text()


def test_a_run_holds_its_files_and_log_rows(world: tuple[Recipe, Path]):
    rows = log_of(world[1])
    assert [row["step"] for row in rows if "loss" in row] == [3, 6, 9, 3, 6]  # the last step of every epoch
    assert [row["epoch"] for row in rows if "CIDEr" in row] == [1, 2, 3, 1, 2]
    tensors, _ = load_tensors(world[1] / "last.safetensors")
    assert {"rng.cpu", "optimizer.0.exp_avg", "optimizer.0.step"} <= tensors.keys()


def test_the_same_recipe_gives_the_same_run(world: tuple[Recipe, Path], tmp_path: Path):
    same(world[1], train(world[0], tmp_path / "again"))


@pytest.mark.parametrize(
    "stop",
    [
        ("step", 1),  # only the start is on disk
        ("step", 3),  # checkpoint in the middle of epoch 0
        ("step", 6),  # in the middle of epoch 1
        ("validation", 2),  # logged, but not in the checkpoint
        ("step", 8),
        ("step", 10),  # the second stage has begun, its first checkpoint has not
        ("step", 13),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(world: tuple[Recipe, Path], tmp_path: Path, stop):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(world[0], folder, callback=Watched(stop))
    train(world[0], folder, resume=True)
    same(world[1], folder)


def test_a_run_killed_repeatedly_ends_equal(world: tuple[Recipe, Path], tmp_path: Path):
    folder, watch = tmp_path / "run", Watched(("step", 4))
    for attempt in range(20):
        watch = Watched(("step", 4))
        try:
            train(world[0], folder, resume=attempt > 0, callback=watch)
        except KeyboardInterrupt:
            continue
        break
    assert 3 < attempt < 20
    same(world[1], folder)


def test_a_half_written_log_line_is_dropped(world: tuple[Recipe, Path], tmp_path: Path):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(world[0], folder, callback=Watched(("step", 6)))
    with open(folder / "log.jsonl", "a") as file:
        file.write('{"stage": 0, "epo')
    train(world[0], folder, resume=True)
    same(world[1], folder)


def test_a_full_disk_after_the_best_weights_of_a_new_stage_can_be_resumed(
    world: tuple[Recipe, Path], tmp_path: Path, monkeypatch
):
    """When stage 1's first checkpoint fails, model.safetensors is its own already: it must not start from that."""
    whole = replace(world[0], checkpoint_steps=1000)
    monkeypatch.setattr(session.Session, "validate", lambda this, number: 100.0 * number + this.state.step)

    def full(folder: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any], scaler: None) -> None:
        if (state["stage"], state["epoch"]) == (1, 1):
            raise OSError(28, "No space left on device")
        save_checkpoint(folder, tensors, state, scaler)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_checkpoint", full)
        with pytest.raises(OSError, match="No space left"):
            train(whole, tmp_path / "run")
    train(whole, tmp_path / "run", resume=True)
    same(train(whole, tmp_path / "whole"), tmp_path / "run")


def test_resuming_a_finished_run_changes_nothing(world: tuple[Recipe, Path]):
    before = {path.name: path.read_bytes() for path in world[1].iterdir() if path.is_file()}
    watch = Watched()
    train(world[0], world[1], resume=True, callback=watch)
    assert not watch.of("step") and not watch.of("validation")
    assert {path.name: path.read_bytes() for path in world[1].iterdir() if path.is_file()} == before


def test_a_run_is_not_overwritten_by_accident(world: tuple[Recipe, Path]):
    with pytest.raises(FileExistsError, match="already holds a run; continue it with --resume or choose another"):
        train(world[0], world[1])


def test_a_run_without_a_resumable_state_is_not_overwritten(world: tuple[Recipe, Path], tmp_path: Path):
    """A converted run, or one whose last.safetensors was deleted."""
    shutil.copytree(world[1], tmp_path / "run")
    (tmp_path / "run" / "last.safetensors").unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(FileExistsError, match="already holds a run"):
        train(world[0], tmp_path / "run")
    with pytest.raises(ValueError, match=r"weights but no checkpoint to resume from: there is no last\.safetensors"):
        train(world[0], tmp_path / "run", resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_its_first_checkpoint_starts_anew(world: tuple[Recipe, Path], tmp_path: Path, resume: bool):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"stage": 0, "epoch": 1, "step": 1, "loss": 9.0}\n')
    watch = Watched()
    train(world[0], tmp_path / "run", resume, watch)
    same(world[1], tmp_path / "run")
    told = [
        facts["text"] for facts in watch.of("warning") if "holds no run to resume: starting a new one" in facts["text"]
    ]
    assert len(told) == resume


def test_the_end_reports_the_best_score_also_of_a_finished_run(world: tuple[Recipe, Path]):
    scores = [row["CIDEr"] for row in log_of(world[1]) if "CIDEr" in row]
    watch = Watched()
    train(world[0], world[1], resume=True, callback=watch)
    (end,) = watch.of("end")
    assert end["best"] == pytest.approx(max(scores), rel=1e-5) and (end["metric"], end["skipped"]) == ("CIDEr", 0)


def test_steps_are_counted_over_all_stages(world: tuple[Recipe, Path], tmp_path: Path):
    watch = Watched(("step", 11))
    with pytest.raises(KeyboardInterrupt):
        train(world[0], tmp_path / "run", callback=watch)
    assert [facts["total_step"] for facts in watch.of("step")] == list(range(1, 12))
    again = Watched()
    train(world[0], tmp_path / "run", resume=True, callback=again)
    assert again.of("start")[-1]["total_step"] == 9  # the second stage had begun, no step of it was saved
    assert [facts["total_step"] for facts in again.of("step")] == [10, 11, 12, 13, 14, 15]
    assert [facts["total_step"] for facts in again.of("validation")] == [12, 15]
    assert {facts["stages"] for facts in again.of("step")} == {2}


class Scaled(Accelerator):
    """fp16's loss scaling on a CPU: doubled after every second step without an overflow."""

    def __init__(self, **options):
        super().__init__(**options)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)

    def unscale_gradients(self, optimizer=None):
        self.scaler.unscale_(optimizer.optimizer)  # raises when it is done twice in a step


def test_the_scale_of_fp16_is_resumed_and_does_not_change_the_numbers(
    world: tuple[Recipe, Path], tmp_path: Path, monkeypatch
):
    """Scales are powers of two, so that the gradients are the same to the bit; both kinds of clip at once."""
    first, second = (replace(stage, clip_value=0.01, clip_norm=0.05) for stage in world[0].stages)
    whole = replace(world[0], stages=(first, second))
    train(whole, tmp_path / "plain")
    monkeypatch.setattr(session, "Accelerator", Scaled)
    train(whole, tmp_path / "scaled")
    with pytest.raises(KeyboardInterrupt):
        train(whole, tmp_path / "killed", callback=Watched(("step", 10)))
    train(whole, tmp_path / "killed", resume=True)
    same(tmp_path / "scaled", tmp_path / "killed")
    for name in ("scaled", "killed"):
        _, metadata = load_tensors(tmp_path / name / "last.safetensors")
        assert json.loads(metadata["scaler"])["scale"] == 1024.0 * 2**7  # after 15 steps
    assert torch.equal(
        *(load_tensors(tmp_path / n / "model.safetensors")[0]["head.weight"] for n in ("plain", "scaled"))
    )


def test_a_state_of_a_newer_limner_is_named(world: tuple[Recipe, Path], tmp_path: Path):
    """A field that this limner does not know, a state that is no state, and none at all."""
    run = tmp_path / "run"
    shutil.copytree(world[1], run)
    tensors, metadata = load_tensors(run / "last.safetensors")
    for position, message in (
        ({**json.loads(metadata["position"]), "mood": 1}, "holds a state that this limner does not know .*mood"),
        ({"stage": "x"}, "holds a state that this limner does not know"),
        ([1], "is no checkpoint of a training: it has no position"),
    ):
        save_tensors(run / "last.safetensors", tensors, {"position": json.dumps(position)})
        with pytest.raises(ValueError, match=message):
            train(world[0], run, resume=True)
    save_tensors(run / "last.safetensors", tensors)
    with pytest.raises(ValueError, match="is no checkpoint of a training"):
        train(world[0], run, resume=True)
