"""Parts of a captioner that learn slower than the others, or not at all."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.core.tensors import load_tensors
from limner.runs.recipe import Recipe, Stage
from limner.runs.recipe_file import build_recipe, save_recipe
from limner.training.loop import make_optimizer
from limner.training.parameter_groups import frozen_parameters, high_lr_warnings, matched_lr_scales
from limner.training.train import train
from tests.models.captioners import small
from tests.training.test_resume import same
from tests.training.world import Watched, pictures, recipe

OPTIMIZERS = ("adam", "adamw", "amsgrad", "sgd", "adabound", "rmsprop", "adagrad")
RATES = {"lstm": 0.0, "attend": 0.0, "attend.key": 0.5, "embed": 0.5}  # of attend the key alone learns
STILL = ("lstm.", "attend.query.", "attend.score.")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The captioner's, as the last checkpoint has them."""
    tensors, _ = load_tensors(folder / "last.safetensors")
    begin = "model.captioner."
    return {name.removeprefix(begin): value for name, value in tensors.items() if name.startswith(begin)}


def begun(whole: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    """The weights that training begins with."""
    with pytest.raises(KeyboardInterrupt):
        train(whole, folder, callback=Watched(("step", 1)))
    return weights(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("lr_scale") / "data", 6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_parts_stay_bit_identical_and_the_others_move(data: Path, tmp_path: Path, optimizer: str):
    """Two epochs with weight decay, which would shrink what has no gradient; and no moments of what is frozen."""
    whole = recipe(data, epochs=2, optimizer=optimizer, weight_decay=0.1, lr_scale=RATES)
    before, after = begun(whole, tmp_path / "begun"), weights(train(whole, tmp_path / "run"))
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith(STILL), name
    tensors, _ = load_tensors(tmp_path / "run" / "last.safetensors")
    kept = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    theirs = [name for name in tensors if name.startswith("model.encoder.") and name.endswith(("weight", "bias"))]
    assert len(kept) == len([name for name in before if not name.startswith(STILL)]) + len(theirs)


@pytest.mark.parametrize(("optimizer", "lr"), [*((name, 0.3) for name in OPTIMIZERS), ("adabound", 1e6)])
def test_half_the_rate_is_half_the_step(optimizer: str, lr: float):
    """From weights 0, so that the weight is the step; a power of two rounds nothing.  A rate of 1e6 is cut by adabound
    to its band, which is half as high too."""
    found = []
    for rates in ({}, {"embed": 0.5, "head.bias": 0.0}):
        model = small("show_attend_tell")
        stage = Stage(optimizer=optimizer, lr=lr, momentum=0.0, lr_scale=rates)
        optimiser = make_optimizer(model, stage)
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.data.zero_()
            parameter.grad = torch.randn_like(parameter)
        optimiser.step()
        found.append(dict(model.named_parameters()))
        assert optimiser.param_groups[0]["lr"] == lr
    whole, half = found
    assert (whole["embed.weight"] != 0).all()
    for name, value in whole.items():
        assert torch.equal(half[name], value * {"embed.weight": 0.5, "head.bias": 0.0}.get(name, 1.0)), name


def test_the_longest_matching_module_name_decides():
    model = small("spatial_transformer", encoder_layers=11)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {"cell_layers.1": 0.0, "cell_layers.1.attend.key.weight": 2.0}
    found = {named[id(parameter)]: factor for parameter, factor in matched_lr_scales(model, rates)}
    assert {name for name in found if not name.startswith("cell_layers.1.")} == set()
    assert {name for name, factor in found.items() if factor} == {"cell_layers.1.attend.key.weight"}
    assert len(found) == sum(name.startswith("cell_layers.1.") for name in named.values()) > 5


def test_requires_grad_is_restored_after_a_stage():
    model = small("sa_lstm")
    model.attend.requires_grad_(False)  # whoever froze it before

    def stopped() -> None:
        with frozen_parameters(model, Stage(lr_scale={"embed": 0.0, "attend": 0.0, "head": 0.5})):
            assert not model.embed.weight.requires_grad and model.head.weight.requires_grad
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert model.embed.weight.requires_grad and not model.attend.query.weight.requires_grad


def two_stages(data: Path, **second: Any) -> Recipe:
    """The second stage begins with another part frozen; a checkpoint after every other step."""
    settings: dict[str, Any] = {"batch_size": 2, "ema_decay": 0.9}
    first = recipe(data, ("checkpoint_steps", 2), epochs=2, lr_scale={"embed": 0.0, "lstm": 0.5}, **settings)
    return replace(first, stages=(*first.stages, *recipe(data, epochs=2, **settings, **second).stages))


def test_what_one_stage_freezes_the_next_one_trains(data: Path, tmp_path: Path):
    whole = two_stages(data, lr_scale={"head": 0.0})
    before = begun(whole, tmp_path / "begun")
    first = weights(train(replace(whole, stages=whole.stages[:1]), tmp_path / "first"))
    after = weights(train(whole, tmp_path / "run"))
    assert torch.equal(first["embed.weight"], before["embed.weight"])
    assert not torch.equal(after["embed.weight"], before["embed.weight"])


def test_interrupted_and_resumed_equals_uninterrupted(data: Path, tmp_path: Path):
    """Inside the first stage and the second."""
    whole = two_stages(data, lr_scale={"head": 0.0, "attend": 2.0})
    train(whole, tmp_path / "whole")
    for step in (3, 9):
        folder = tmp_path / f"stopped{step}"
        with pytest.raises(KeyboardInterrupt):
            train(whole, folder, callback=Watched(("step", step)))
        train(whole, folder, resume=True)
        same(tmp_path / "whole", folder)


def test_an_unknown_part_is_refused_before_any_stage(data: Path, tmp_path: Path):
    whole = two_stages(data, lr_scale={"embedding": 0.0})
    parts = "embed, attend, init_h, init_c, gate, lstm, head"
    told = rf"stages\.1\.lr_scale: no parameter of the captioner is called 'embedding'; its parts are {parts}$"
    with pytest.raises(ValueError, match=told):
        train(whole, tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()
    for slip in ("", "emb", "encoder"):  # no parts of names, and an encoder has `encoder_lr`
        with pytest.raises(ValueError, match=f"is called '{slip}'"):
            matched_lr_scales(small("show_attend_tell"), {slip: 0.0})


def test_invalid_rates_are_refused(data: Path):
    with pytest.raises(ValueError, match=r"stages\.0\.lr_scale\.embed: .* got -1"):
        build_recipe({"data": {"media": "x"}}, [("stages.0.lr_scale.embed", "-1")])
    model = small("show_attend_tell")
    every = dict.fromkeys((name.split(".")[0] for name, _ in model.named_parameters()), 0.0)
    with pytest.raises(ValueError, match="leaves no parameter to train: give some part a factor above 0"):
        make_optimizer(model, Stage(lr_scale=every))


def stages(*told: dict[str, Any]) -> tuple[Stage, ...]:
    return build_recipe({"data": {"media": "x"}, "stages": list(told)}).stages


def test_a_rate_too_high_for_self_critical_training_is_warned_about_once(data: Path, tmp_path: Path):
    scst = {"objective": {"name": "scst", "sample": {"count": 2, "rules": {"max_length": 4}}}}
    assert not high_lr_warnings(stages({"lr": 0.01}, {**scst, "lr": 5e-4}, {**scst, "lr": 0.1, "optimizer": "sgd"}))
    (text,) = high_lr_warnings(stages({}, {**scst, "lr": 0.001, "optimizer": "amsgrad"}))
    assert text.startswith("stages.1.lr is 0.001: with amsgrad the objective scst usually takes at most 0.0001")
    watched = Watched()
    train(recipe(data, lr=0.002, epochs=2, captions_per_medium=1, **scst), tmp_path / "run", callback=watched)
    assert sum("stages.0.lr is 0.002" in facts["text"] for facts in watched.of("warning")) == 1


@pytest.mark.slow
def test_two_processes_do_not_wait_for_frozen_parts(data: Path, tmp_path: Path):
    """Three steps in the first stage, three in the second, in which something else is frozen."""
    whole = two_stages(data, lr_scale={"head": 0.0})
    save_recipe(whole, tmp_path / "r.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "limner"]
    command += ["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    before, after = begun(whole, tmp_path / "begun"), weights(tmp_path / "run")
    assert not torch.equal(before["embed.weight"], after["embed.weight"])
