"""The published RecNet, converted: captioner and reconstructor give the numbers of its golden data."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limner.apps.cli import main
from limner.convert import SYSTEMS
from limner.core.types import BOS, EOS, PAD, Batch, Features
from limner.objectives import GlobalReconstruction, LocalReconstruction, build_objective
from limner.objectives.context import Context
from limner.objectives.reconstruction import CaptionStates, GlobalReconstructor, LocalReconstructor, Reconstruction
from limner.runs.run import Run, load_objective, load_run
from tests.convert.published import Near, goldens
from tests.convert.test_sa_lstm import Sizes, Weights, features_of, random_weights, walked, word_map

convert = SYSTEMS["recnet"]


def objective_of(run: Run) -> Reconstruction:
    """That of the run's recipe, with the run's own weights."""
    config = run.recipe.stages[0].objective
    objective = build_objective(config, Context(hidden=run.recipe.model.hidden, feature_dim=run.info.feature_dim))
    assert isinstance(objective, Reconstruction)
    assert load_objective(objective, run.folder, config.name)
    return objective.eval()


@torch.no_grad()
def rebuilt(run: Run, objective: Reconstruction, features: Features, tokens: Tensor) -> Tensor:
    """As the published code runs it: from the states of all tokens but the last, padding included, zeros in front."""
    _, _, hidden = walked(run.model, features, tokens[:, :-1])
    table = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], 1)
    read = (tokens != PAD) & (tokens != EOS)
    if isinstance(objective.reconstructor, LocalReconstructor):
        return objective.reconstructor(CaptionStates(table, read, read), features.layout.cells)
    assert isinstance(objective.reconstructor, GlobalReconstructor)
    return objective.reconstructor(CaptionStates(table, read, torch.ones_like(read)))  # after the end too


@pytest.mark.data
@pytest.mark.parametrize("kind", ["global", "local"])
@pytest.mark.parametrize("golden", goldens("recnet"), ids=lambda folder: folder.name)
def test_golden_numbers_of_the_original_code(golden: Path, kind: str, tmp_path: Path) -> None:
    if not (golden / f"data_{kind}.npz").is_file():
        pytest.skip(f"no golden data in {golden}")
    data = {key: torch.from_numpy(value) for key, value in np.load(golden / f"data_{kind}.npz").items()}
    (tmp_path / "words.json").write_text(json.dumps(word_map(data["logprobs"].shape[-1])))
    convert(golden / f"model_{kind}.ckpt", tmp_path / "words.json", tmp_path / "run", "", "RGB")
    run, near = load_run(tmp_path / "run"), Near()
    features, tokens = features_of(data["features"]), data["captions"].T
    objective = objective_of(run)
    assert objective.config.name == f"recnet_{kind}"
    near("log-probabilities", walked(run.model, features, tokens[:, :-1])[0], data["logprobs"])
    near("reconstruction", rebuilt(run, objective, features, tokens), data["reconstruction"])
    with torch.no_grad():
        loss = objective(run.model, Batch(tuple(map(str, range(len(tokens)))), features, tokens))
    near("cross entropy", loss.logs["xe"], data["nll_loss"], 2e-6)
    near("reconstruction loss", loss.logs["reconstruction"], data["reconstruction_loss"], 2e-6)
    near("total loss", loss.value, data["total_loss"], 2e-6)
    print({name: f"{value:.1e}" for name, value in near.worst.items()})


def random_reconstructor(sizes: Sizes, local: bool, seed: int = 0) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    D, H, A = sizes.D, sizes.H, sizes.A + 1  # its attention has a width of its own
    shapes: dict[str, tuple[int, ...]] = {
        "rnn.weight_ih_l0": (4 * D, H if local else 2 * H),
        "rnn.weight_hh_l0": (4 * D, D),
        "rnn.bias_ih_l0": (4 * D,),
        "rnn.bias_hh_l0": (4 * D,),
    }
    if local:
        shapes |= {"attention.W.weight": (A, D), "attention.U.weight": (A, H), "attention.w.weight": (1, A)}
        shapes["attention.b"] = (A,)
    return {name: 0.5 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def converted(folder: Path, sizes: Sizes, local: bool, **more: Any) -> tuple[Run, str]:
    folder.mkdir(parents=True, exist_ok=True)
    tree = {"epoch": 1, "decoder": random_weights(sizes, 0), "config": {}}
    tree |= {"reconstructor": random_reconstructor(sizes, local), **more}
    torch.save(tree, folder / "best.ckpt")
    (folder / "words.json").write_text(json.dumps(word_map(sizes.V)))
    summary = convert(folder / "best.ckpt", folder / "words.json", folder / "run", "", "RGB")
    return load_run(folder / "run"), summary


def lstm(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    gates = w["rnn.weight_ih_l0"] @ x + w["rnn.bias_ih_l0"] + w["rnn.weight_hh_l0"] @ h + w["rnn.bias_hh_l0"]
    i, f, g, o = gates.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def original(w: Weights, table: Tensor, read: Tensor, frames: int) -> Tensor:
    """One caption: hidden states (T, H), of which `read` (T,) count -> what the published reconstructor makes."""
    size = w["rnn.weight_hh_l0"].shape[1]
    h, c, found = torch.zeros(size), torch.zeros(size), []
    for t in range(frames if "attention.b" in w else len(table)):
        if "attention.b" in w:
            query = w["attention.W.weight"] @ h + w["attention.b"]
            energy = torch.tanh(query + table @ w["attention.U.weight"].T) @ w["attention.w.weight"][0]
            x = energy.masked_fill(~read, -torch.inf).softmax(0) @ table
        else:
            x = torch.cat([table[t], table[read].mean(0)])
        h, c = lstm(w, x, h, c)
        found.append(h)
    return torch.stack(found)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("sizes", [Sizes(), Sizes(7, 5, 9, 3, 11, "GRU", frames=2), Sizes(9, 4, 3, 6, 13, frames=7)])
def test_the_reconstruction_equals_the_equations(sizes: Sizes, local: bool, tmp_path: Path) -> None:
    run, _ = converted(tmp_path, sizes, local)
    objective = objective_of(run)
    draw = torch.Generator().manual_seed(1)
    grid = torch.randn(3, sizes.frames, sizes.D, generator=draw)
    tokens = torch.tensor([[BOS, 4, 5, EOS, PAD], [BOS, 6, EOS, PAD, PAD], [BOS, 7, 4, 3, EOS]])
    _, _, hidden = walked(run.model, features_of(grid), tokens[:, :-1])
    ours = rebuilt(run, objective, features_of(grid), tokens)
    errors = []
    for row in range(3):
        table = torch.cat([torch.zeros(1, sizes.H), hidden[row]])
        read = (tokens[row] != PAD) & (tokens[row] != EOS)
        theirs = original(random_reconstructor(sizes, local), table, read, sizes.frames)
        torch.testing.assert_close(ours[row], theirs, rtol=1e-5, atol=1e-5)
        goal = grid[row] if local else grid[row].mean(0)
        errors.append(((theirs if local else theirs[tokens[row] != PAD].mean(0)) - goal).square())
    with torch.no_grad():
        loss = objective(run.model, Batch(("a", "b", "c"), features_of(grid), tokens))
    assert loss.logs["reconstruction"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_what_a_checkpoint_tells_of_its_objective(tmp_path: Path) -> None:
    sizes = Sizes(7, 5, 9, 3, 11)
    for local, name in ((False, "global"), (True, "local")):
        run, summary = converted(tmp_path / name, sizes, local)
        assert f"objective: recnet_{name}, its weights are in objective.safetensors" in summary
        expected = LocalReconstruction(attention=4, published=True) if local else GlobalReconstruction(published=True)
        assert run.recipe.stages[0].objective == expected  # weights .1 and .2
    run, _ = converted(tmp_path / "weight", sizes, True, config={"recon_lambda": 0.3})
    assert run.recipe.stages[0].objective.weight == 0.3
    run, _ = converted(
        tmp_path / "odd", sizes, True, config={"recon_lambda": "much", "loader": {"max_caption_len": -1}}
    )
    assert run.recipe.stages[0].objective.weight == 0.1 and run.recipe.decoding.rules.max_length == 31
    run, summary = converted(tmp_path / "first", sizes, True, reconstructor=None)
    assert "objective" not in summary and run.recipe.stages[0].objective.name == "xe"
    assert not (run.folder / "objective.safetensors").exists()
    command = ["convert", "--from", "recnet", str(tmp_path / "first" / "best.ckpt"), "--out", str(tmp_path / "again")]
    assert main([*command, "--word-map", str(tmp_path / "first" / "words.json")]) == 0


def test_misfits_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    sizes = Sizes(7, 5, 9, 3, 11)
    good = random_reconstructor(sizes, True)
    wrong = {
        r"hidden states of 5 and features of 7 channels: missing \['rnn.bias_hh_l0'\]": {
            key: value for key, value in good.items() if key != "rnn.bias_hh_l0"
        },
        r"rnn.weight_ih_l0 \(28, 10\), expected \(28, 5\)": good | {"rnn.weight_ih_l0": torch.ones(28, 10)},
        r"rnn.weight_hh_l0 \(21, 7\), expected \(28, 7\)": good | {"rnn.weight_hh_l0": torch.ones(21, 7)},
        r"missing \['attention.b'\]": {key: value for key, value in good.items() if key != "attention.b"},
        r"unknown \['rnn.weight_ih_l1'\]": good | {"rnn.weight_ih_l1": torch.ones(28, 7)},
    }
    for reason, tensors in wrong.items():
        with pytest.raises(ValueError, match=reason):
            converted(tmp_path, sizes, True, reconstructor=tensors)
    assert not (tmp_path / "run").exists()


def test_an_objective_of_another_kind_is_not_taken_over(tmp_path: Path) -> None:
    run, _ = converted(tmp_path, Sizes(7, 5, 9, 3, 11), True)
    other = build_objective(GlobalReconstruction(), Context(hidden=5, feature_dim=7))
    assert isinstance(other, Reconstruction) and not load_objective(other, run.folder, "recnet_global")
    wide = build_objective(replace(LocalReconstruction(), attention=9), Context(hidden=5, feature_dim=7))
    assert isinstance(wide, Reconstruction)
    with pytest.raises(ValueError, match=r"objective\.safetensors does not fit the model"):
        load_objective(wide, run.folder, "recnet_local")
