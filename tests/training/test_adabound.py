"""AdaBound by hand and in a recipe; the other optimisers of the reference systems; runs with them resume to the bit."""

from math import sqrt
from pathlib import Path

import pytest
import torch

from limner.core.tensors import load_tensors
from limner.models import ShowAttendTellConfig, build_model
from limner.runs.recipe import Stage
from limner.training.adabound import AdaBound
from limner.training.loop import make_optimizer
from limner.training.train import train
from tests.training.world import Watched, pictures, recipe


def by_hand(gradients: list[float], lr: float, final: float, gamma: float, decay: float = 0.0) -> list[float]:
    """Algorithm 2 on one number that begins at 1 -> its course."""
    x, m, v, course = 1.0, 0.0, 0.0, []
    for t, gradient in enumerate(gradients, 1):
        g = gradient + decay * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        adam = lr * sqrt(1 - 0.999**t) / (1 - 0.9**t) / (sqrt(v) + 1e-8)
        low, high = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
        x -= min(max(adam, low), high) * m
        course.append(x)
    return course


def course(gradients: list[float], **options: float) -> list[float]:
    x = torch.nn.Parameter(torch.ones(1))
    optimizer, found = AdaBound([x], **options), []  # type: ignore[arg-type]
    for gradient in gradients:
        x.grad = torch.tensor([gradient])
        optimizer.step()
        found.append(x.item())
    return found


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [1e-3, 0.5, 0.9])
def test_one_parameter_by_hand(gamma: float, decay: float) -> None:
    """A wide band, in which Adam's rate holds, and narrow ones that clip it from above and from below."""
    gradients = [0.5, -2.0, 0.01, 1e-4, 3.0, -0.2] * 3
    found = course(gradients, lr=0.01, final_lr=0.1, gamma=gamma, weight_decay=decay)
    assert found == pytest.approx(by_hand(gradients, 0.01, 0.1, gamma, decay), abs=1e-5)


def test_it_begins_as_adam() -> None:
    gradients = [0.5, -2.0, 0.3, 1.0]
    x = torch.nn.Parameter(torch.ones(1))
    adam, expected = torch.optim.Adam([x], lr=0.01), []
    for gradient in gradients:
        x.grad = torch.tensor([gradient])
        adam.step()
        expected.append(x.item())
    assert course(gradients, lr=0.01, final_lr=0.1, gamma=1e-6) == pytest.approx(expected, abs=1e-6)


def test_it_ends_as_gradient_descent_with_momentum() -> None:
    """With gamma t -> infinity both bounds are final_lr: x -= final_lr * m."""
    x, m, expected = 1.0, 0.0, []
    for gradient in (0.5, -2.0, 0.3):
        m = 0.9 * m + 0.1 * gradient
        x -= 0.1 * m
        expected.append(x)
    assert course([0.5, -2.0, 0.3], lr=1e-3, final_lr=0.1, gamma=1e9) == pytest.approx(expected, abs=1e-6)


def test_a_schedule_scales_the_band_too() -> None:
    """Half the rate, half the step, also where the bound decides."""
    moved = []
    for scale in (1.0, 0.5):
        x = torch.nn.Parameter(torch.ones(1))
        optimizer = AdaBound([{"params": [x], "lr": 0.01, "base_lr": 0.01}], final_lr=0.1, gamma=1e9)
        optimizer.param_groups[0]["lr"] = 0.01 * scale
        x.grad = torch.ones(1)
        optimizer.step()
        moved.append(1 - x.item())
    assert moved[0] == pytest.approx(0.01) and moved[1] == pytest.approx(0.005)


def test_a_parameter_without_gradient_does_not_change() -> None:
    x = torch.nn.Parameter(torch.ones(2))
    optimizer = AdaBound([x])
    optimizer.step()
    assert x.tolist() == [1, 1] and not optimizer.state


def test_sgd_by_hand() -> None:
    """Nesterov: the step is gradient + momentum * buffer, the buffer taking the gradient first."""
    model = build_model(ShowAttendTellConfig(hidden=2, embed=2, attention=2), 5, 3)
    stage = Stage(optimizer="sgd", lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.01)
    optimizer = make_optimizer(model, stage)
    weight = next(iter(model.parameters()))
    x = weight.detach().clone()
    for expected_buffer in (1.0, 1.5):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        if expected_buffer == 1.0:
            buffer = 1 + 0.01 * x
            x = x - 0.1 * (buffer + 0.5 * buffer)
        else:
            gradient = 1 + 0.01 * x
            buffer = 0.5 * buffer + gradient
            x = x - 0.1 * (gradient + 0.5 * buffer)
        torch.testing.assert_close(weight.detach(), x)


@pytest.mark.parametrize(
    "stage",
    [
        {"optimizer": "adabound", "final_lr": 0.05, "weight_decay": 1e-4, "schedule": {"name": "poly", "warmup": 0.2}},
        {"optimizer": "sgd", "nesterov": True, "lr": 0.05, "schedule": {"name": "plateau", "patience": 1}},
    ],
)
def test_interrupted_runs_resume_to_the_bit(tmp_path: Path, stage: dict[str, object]) -> None:
    whole = recipe(pictures(tmp_path / "data", 8), ("checkpoint_steps", 1), **{**stage, "epochs": 2, "batch_size": 2})
    train(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(whole, tmp_path / "cut", callback=Watched(("step", 6)))
    train(whole, tmp_path / "cut", resume=True)
    one, other = (load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("whole", "cut"))
    assert one.keys() == other.keys() and any(key.startswith("optimizer.") for key in one)
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
