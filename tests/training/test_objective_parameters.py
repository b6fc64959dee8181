"""An objective with parameters of its own: they learn, are resumed and taken over, and are no part of the captioner."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.core.tensors import load_tensors
from limner.core.types import Batch, Loss
from limner.models.captioner import Captioner
from limner.objectives import CrossEntropy, GlobalReconstruction
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe
from limner.runs.run import load_run
from limner.training.train import train
from tests.training.test_resume import same
from tests.training.world import Watched, pictures, recipe

MODEL = {"name": "sa_lstm", "hidden": 12, "embed": 8, "attention": 8, "dropout": 0.3}
RECNET: dict[str, Any] = {"epochs": 2, "batch_size": 4, "lr": 0.01, "optimizer": "amsgrad"}
RECNET |= {"schedule": {"name": "plateau", "factor": 0.5, "patience": 1, "start": 1}}
RECNET |= {"objective": {"name": "recnet_local", "attention": 4, "weight": 1.0}}


def two_stages(folder: Path) -> Recipe:
    """10 pairs: 3 steps an epoch, with a checkpoint inside; words first, then words and a reconstruction."""
    sampling = {"start_epoch": 1, "initial_prob": 0.5}
    first = {"epochs": 2, "batch_size": 4, "objective": {"name": "xe", "sampling": sampling, "entropy": 0.01}}
    settings = ("model", MODEL), ("checkpoint_steps", 2)
    whole = recipe(folder, *settings, **first)
    return replace(whole, stages=(whole.stages[0], recipe(folder, ("model", MODEL), **RECNET).stages[0]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    root = tmp_path_factory.mktemp("objective")
    whole = two_stages(pictures(root / "data", 10))
    return whole, train(whole, root / "whole")


def objective_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("objective."): value for key, value in tensors.items() if key.startswith("objective.")}


@pytest.mark.parametrize("stop", [("step", 3), ("step", 5), ("step", 7), ("step", 9), ("validation", 3), ("step", 12)])
def test_interrupted_and_resumed_equals_uninterrupted(world: tuple[Recipe, Path], tmp_path: Path, stop):
    """In the first stage, before the second's first checkpoint, and in the second: also the reconstructor's weights
    and moments, and the coins of scheduled sampling."""
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(world[0], folder, callback=Watched(stop))
    train(world[0], folder, resume=True)
    same(world[1], folder)
    tensors, _ = load_tensors(folder / "last.safetensors")
    assert {"objective.reconstructor.lstm.weight_ih", "optimizer.0.max_exp_avg_sq"} <= tensors.keys()


def test_the_captioner_is_saved_without_the_objectives_parameters(world: tuple[Recipe, Path]):
    tensors, _ = load_tensors(world[1] / "model.safetensors")
    run = load_run(world[1])
    assert run.encoder is not None
    own = {*run.model.state_dict(), *(f"encoder.{key}" for key in run.encoder.state_dict())}
    assert tensors.keys() == own


def test_a_stage_without_objective_parameters_saves_none(world: tuple[Recipe, Path], tmp_path: Path):
    alone = replace(world[0], stages=world[0].stages[:1])
    folder = train(alone, tmp_path / "run")
    assert not (folder / "objective.safetensors").exists()
    assert not objective_of(load_tensors(folder / "last.safetensors")[0])


def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every validation is better than the last one."""
    from limner.training.session import Session

    monkeypatch.setattr(Session, "validate", lambda session, stage: 100.0 * stage + session.state.epoch, raising=True)


def test_objective_parameters_learn_and_are_saved_beside_the_best_weights(
    world: tuple[Recipe, Path], tmp_path: Path, monkeypatch
):
    scored(monkeypatch)
    seen: list[dict[str, Any]] = []

    def watch(event: str, facts: dict[str, Any]) -> None:
        if event == "step" and "reconstruction" in facts:
            seen.append(facts)

    longer = replace(world[0], stages=(replace(world[0].stages[1], epochs=20, encoder_lr=0.0),))  # the goal stays
    folder = train(longer, tmp_path / "run", callback=watch)
    errors = [facts["reconstruction"] for facts in seen]
    assert len(errors) == 60 and sum(errors[-6:]) < 0.8 * sum(errors[:6])
    kept, metadata = load_tensors(folder / "objective.safetensors")
    assert metadata["name"] == "recnet_local"
    last = objective_of(load_tensors(folder / "last.safetensors")[0])
    assert kept.keys() == last.keys() and all(torch.equal(kept[key], last[key]) for key in kept)


def test_the_next_stage_and_run_continue_with_the_objective_parameters(
    world: tuple[Recipe, Path], tmp_path: Path, monkeypatch
):
    """A rate of almost 0 shows what they began with; another objective begins anew."""
    scored(monkeypatch)
    recnet = replace(world[0].stages[1], epochs=1)
    still = replace(recnet, lr=1e-30, encoder_lr=0.0)
    folder = train(replace(world[0], stages=(recnet,)), tmp_path / "one")
    learnt, _ = load_tensors(folder / "objective.safetensors")
    both = train(replace(world[0], stages=(recnet, still)), tmp_path / "two")
    again = train(replace(world[0], stages=(still,), start=str(folder)), tmp_path / "next")
    for run in (both, again):
        begun, _ = load_tensors(run / "objective.safetensors")
        assert all(torch.equal(begun[key], value) for key, value in learnt.items())
    other = replace(still, objective=GlobalReconstruction())
    anew = train(replace(world[0], stages=(other,), start=str(folder)), tmp_path / "other")
    assert load_tensors(anew / "objective.safetensors")[1]["name"] == "recnet_global"


def test_amsgrad_is_adam_with_the_largest_second_moment(world: tuple[Recipe, Path]):
    """Reddi et al. 2018, arXiv:1904.09237, in the optimiser's own state."""
    tensors, _ = load_tensors(world[1] / "last.safetensors")
    pairs = [(value, tensors[key.replace("max_exp", "exp")]) for key, value in tensors.items() if "max_exp" in key]
    assert len(pairs) > 10 and all((most >= now).all() for most, now in pairs)
    assert any((most > now).any() for most, now in pairs)


def test_objectives_get_the_number_of_the_epoch(world: tuple[Recipe, Path], tmp_path: Path, monkeypatch):
    seen: list[int] = []
    call = CrossEntropy.__call__

    def told(objective: CrossEntropy, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        seen.append(epoch)
        return call(objective, model, batch, epoch)

    monkeypatch.setattr(CrossEntropy, "__call__", told)
    train(replace(world[0], stages=world[0].stages[:1]), tmp_path / "run")
    assert seen == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("objective.sampling.initial_prob", "1.5"),
        ("objective.sampling.increase_prob", "-0.1"),
        ("objective.sampling.increase_every", "0"),
        ("objective.sampling.start_epoch", "-1"),
        ("objective.entropy", ".nan"),
        ("objective.attention_entropy", ".inf"),
        ("schedule.start", "-1"),
    ],
)
def test_invalid_numbers_are_named(name: str, value: str):
    with pytest.raises(ValueError, match=rf"stages\.0\.{name}: .* got "):
        build_recipe({"data": {"media": "x"}}, [(f"stages.0.{name}", value)])


def test_misspelt_fields_of_an_objective_give_helpful_errors():
    def built(objective: dict[str, Any]) -> None:
        build_recipe({"data": {"media": "x"}, "stages": [{"objective": objective}]})

    with pytest.raises(ValueError, match=r"objective\.name is 'recnet'; known are xe, recnet_global, recnet_local"):
        built({"name": "recnet"})
    with pytest.raises(ValueError, match=r"stages\.0\.objective\.xe has no field 'smoothing'; it has name, label_smoo"):
        built({"name": "recnet_global", "xe": {"smoothing": 0.1}})
    with pytest.raises(ValueError, match=r"stages\.0\.objective\.weight: .* got -1"):
        built({"name": "recnet_local", "weight": -1})
    with pytest.raises(
        ValueError, match=r"stages\.0\.objective\.sampling\.word: .*'drawn' or 'likeliest', got 'argmax'"
    ):
        built({"name": "xe", "sampling": {"word": "argmax"}})
