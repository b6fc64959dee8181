"""Every optimiser of a recipe by its first two updates, worked out by hand, with the settings a stage gives."""

from math import sqrt
from pathlib import Path

import pytest
import torch

from limner.runs.recipe import Stage
from limner.training.loop import make_optimizer
from limner.training.train import train
from tests.decode.tables import Table
from tests.training.world import log_of, pictures, recipe


def course(stage: Stage, gradients: tuple[float, ...] = (2.0, -1.0)) -> list[float]:
    """One weight, beginning at 1."""
    model = Table(torch.ones(1, 1, 1, 1))
    optimizer = make_optimizer(model, stage)
    found = []
    for gradient in gradients:
        model.tables.grad = torch.full_like(model.tables, gradient)
        optimizer.step()
        found.append(model.tables.item())
    return found


def test_rmsprop_by_hand():
    """v = beta2 v + (1 - beta2) g^2; x -= lr g / (sqrt(v) + eps)."""
    stage = Stage(optimizer="rmsprop", lr=0.1, betas=(0.9, 0.75), eps=0.5)
    first = 1 - 0.1 * 2 / (sqrt(0.25 * 4) + 0.5)
    second = first + 0.1 / (sqrt(0.75 + 0.25) + 0.5)
    assert course(stage) == pytest.approx([first, second], rel=1e-6)


def test_adagrad_by_hand():
    """v = sum of g^2; x -= lr g / (sqrt(v) + eps)."""
    first = 1 - 0.1 * 2 / 2
    assert course(Stage(optimizer="adagrad", lr=0.1)) == pytest.approx([first, first + 0.1 / sqrt(5)], rel=1e-6)


def test_adam_uses_its_betas_and_eps():
    """With both decays 0 and eps 1: x -= lr g / (|g| + 1)."""
    for name in ("adam", "adamw", "amsgrad"):
        found = course(Stage(optimizer=name, lr=0.1, betas=(0.0, 0.0), eps=1.0), (2.0,))
        assert found == pytest.approx([1 - 0.1 * 2 / 3], rel=1e-6)


def test_weight_decay_is_part_of_the_gradient():
    first = course(Stage(optimizer="adagrad", lr=0.1, weight_decay=0.5), (0.0,))
    assert first == pytest.approx([1 - 0.1], rel=1e-5)  # g = .5 x, and .5 / sqrt(.25) = 1


def test_the_learning_rate_steps_by_epochs(tmp_path: Path):
    schedule = {"name": "step", "factor": 0.5, "every": 2, "start": 1}
    stage = {"epochs": 6, "lr": 0.01, "optimizer": "adagrad", "schedule": schedule}
    run = train(recipe(pictures(tmp_path / "data", 4), **stage), tmp_path / "run")
    assert [row["lr"] for row in log_of(run) if "lr" in row] == [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025]
