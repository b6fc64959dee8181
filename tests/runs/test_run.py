"""Run folders: what was saved is what is loaded, and damage is named."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from limner.core.tensors import load_state_strictly, load_tensors, save_tensors
from limner.encoders import ResNet3D, ResNet3DConfig, SmallCNN, SmallCNNConfig
from limner.models import build_model
from limner.models.captioner import FromPixels
from limner.models.show_attend_tell import ShowAttendTellConfig
from limner.runs.checkpoint import checkpoint_tensors, load_checkpoint, restore_checkpoint, save_checkpoint
from limner.runs.recipe import Recipe
from limner.runs.run import RunInfo, create_run, load_run, load_run_state_dict, run_state_dict
from limner.text.vocabulary import Vocabulary

RECIPE = Recipe(
    encoder=SmallCNNConfig(size=32, width=8, dim=6), model=ShowAttendTellConfig(hidden=4, embed=3, attention=2), seed=5
)
VOCABULARY = Vocabulary.build(["a dog runs"], 1)


def make(folder: Path) -> FromPixels:
    """A whole run folder with random weights -> its model."""
    torch.manual_seed(0)
    encoder = SmallCNN(RECIPE.encoder)
    model = FromPixels(encoder, build_model(RECIPE.model, len(VOCABULARY), encoder.dim))
    create_run(folder, RECIPE, VOCABULARY, RunInfo(encoder.dim, encoder.provenance(), encoder_trained=True))
    save_tensors(folder / "model.safetensors", run_state_dict(model))
    return model


def edit(folder: Path, **fields: object) -> None:
    saved = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**saved, **fields}))


def test_a_saved_run_is_loaded_unchanged(tmp_path: Path):
    model = make(tmp_path)
    loaded = load_run(tmp_path)
    assert loaded.recipe == RECIPE and loaded.vocabulary == VOCABULARY and loaded.info.feature_dim == 6
    assert loaded.encoder is not None and not loaded.model.training and not loaded.encoder.training
    for ours, theirs in ((model.captioner, loaded.model), (model.encoder, loaded.encoder)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"recipe.json", "vocabulary.json", "run.json", "model.safetensors"}  # and no pickle


def test_the_weight_file_of_an_encoder_is_needed_only_where_the_run_has_no_copy(tmp_path: Path):
    """A 3-D ResNet begun from a .pth file: trained along it is in the run; for stored features it stays in its file."""
    torch.manual_seed(0)
    network = ResNet3D(ResNet3DConfig(depth=10, width=4))
    torch.save(network.state_dict(), tmp_path / "r3d.pth")
    recipe = replace(RECIPE, encoder=ResNet3DConfig(depth=10, width=4, size=32, source=str(tmp_path / "r3d.pth")))
    model = FromPixels(ResNet3D(recipe.encoder), build_model(recipe.model, len(VOCABULARY), network.dim))
    info = RunInfo(network.dim, model.encoder.provenance(), encoder_trained=True)
    for name, tensors in {"whole": run_state_dict(model), "features": model.captioner.state_dict()}.items():
        create_run(tmp_path / name, recipe, VOCABULARY, info)
        save_tensors(tmp_path / name / "model.safetensors", tensors)
    (tmp_path / "r3d.pth").rename(tmp_path / "moved.pth")
    for loaded in (load_run(tmp_path / "whole"), load_run(tmp_path / "features", str(tmp_path / "moved.pth"))):
        assert loaded.encoder is not None
        assert torch.equal(loaded.encoder.conv1.weight, network.conv1.weight)
    with pytest.raises(ValueError, match=r"is not a file.*give its present path with --encoder"):
        load_run(tmp_path / "features")


def test_put_weights_is_the_inverse_of_weights_of(tmp_path: Path):
    model = make(tmp_path)
    torch.manual_seed(1)
    encoder = SmallCNN(RECIPE.encoder)
    other = FromPixels(encoder, build_model(RECIPE.model, len(VOCABULARY), encoder.dim))
    load_run_state_dict(other, run_state_dict(model), "here")
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))
    alone = run_state_dict(model.captioner)
    assert run_state_dict(model).keys() == alone.keys() | {f"encoder.{name}" for name in model.encoder.state_dict()}


def test_loading_is_strict_and_names_the_keys(tmp_path: Path):
    layer = nn.Linear(2, 3)
    good = layer.state_dict()
    load_state_strictly(layer, dict(good), "w")
    for tensors, message in [
        ({"weight": good["weight"]}, r"w does not fit the model: missing \['bias'\]; unknown \[\]; shapes \[\]"),
        ({**good, "extra": good["bias"]}, r"missing \[\]; unknown \['extra'\]"),
        ({**good, "bias": torch.zeros(4)}, r"shapes \['bias \(4,\), expected \(3,\)'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_state_strictly(layer, tensors, "w")
    make(tmp_path)
    save_tensors(tmp_path / "model.safetensors", {"head.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit .*'attend.key.bias'.*head.weight \(2, 2\)"):
        load_run(tmp_path)


def cut(data: bytearray) -> bytearray:
    return data[:-3]


def flip_weight(data: bytearray) -> bytearray:
    data[-5] ^= 0x40
    return data


def flip_header(data: bytearray) -> bytearray:
    data[9] ^= 0x40
    return data


@pytest.mark.parametrize("damage", [cut, flip_weight, flip_header, lambda data: bytearray(), lambda data: data[:20]])
def test_damaged_weights_are_named(tmp_path: Path, damage):
    make(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(bytearray(path.read_bytes())))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_run(tmp_path)


def test_weights_without_a_checksum_are_read(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(load_tensors(tmp_path / "a.safetensors")[0]["a"], torch.ones(2))


def test_all_kinds_of_tensors_survive(tmp_path: Path):
    tensors = {
        "half": torch.randn(3).bfloat16(),
        "one": torch.tensor(4),
        "turned": torch.randn(2, 3).T,
        "none": torch.zeros(0, 2),
        "truth": torch.tensor([True, False]),
        "rng": torch.get_rng_state(),
    }
    save_tensors(tmp_path / "t.safetensors", tensors, {"note": "x"})
    found, metadata = load_tensors(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys() and metadata["note"] == "x"
    for name, value in tensors.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


def test_missing_and_newer_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no run.json"):
        load_run(tmp_path)
    make(tmp_path)
    edit(tmp_path, format=4, something_new=[1])
    with pytest.raises(ValueError, match=r"has run format 4; this limner reads up to 3: update limner"):
        load_run(tmp_path)
    edit(tmp_path, format=3)
    with pytest.raises(ValueError, match=r"run\.json does not describe a run.*something_new"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json does not describe a run: it has no format number"):
        load_run(tmp_path)
    make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing; is this a run folder, and did"):
        load_run(tmp_path)


def test_an_encoder_with_other_weights_is_refused(tmp_path: Path):
    """A run whose encoder was not trained along stores its hash only."""
    model = make(tmp_path)
    save_tensors(tmp_path / "model.safetensors", model.captioner.state_dict())
    message = (
        r"small_cnn is not the one that .* trained with \(limner\): sha256: the run has '[0-9a-f]{64}', this encoder "
    )
    with pytest.raises(ValueError, match=message + r"'[0-9a-f]{64}'; give the right folder or hub id with --encoder"):
        load_run(tmp_path)


def test_an_encoder_that_sees_other_pixels_is_refused(tmp_path: Path):
    """Weights alone do not make the features; where they lie does not matter."""
    make(tmp_path)
    saved = json.loads((tmp_path / "run.json").read_text())["encoder"]
    edit(tmp_path, encoder={**saved, "source": "elsewhere", "sha256": "of the weights it began with"})
    load_run(tmp_path)
    edit(tmp_path, encoder={**saved, "preprocessing": {**saved["preprocessing"], "size": 48}})
    with pytest.raises(ValueError, match=r"preprocessing\.size: the run has 48, this encoder 32; give"):
        load_run(tmp_path)


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(28, "No space left on device")


def half_written(tensors: dict[str, Tensor], path: str, metadata: object) -> None:
    Path(path).write_bytes(b"half of it")
    full_disk()


def rust_is_full(*arguments: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_gives_an_ordinary_error(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(safetensors.torch, "save_file", rust_is_full)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.safetensors") as caught:
        save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (safetensors.torch, "save_file", half_written),
        (safetensors.torch, "save_file", rust_is_full),
        (os, "replace", full_disk),
    ],
)
def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch, where, name: str, fault):
    old, new = {"a": torch.zeros(3)}, {"a": torch.ones(3)}
    save_checkpoint(tmp_path, old, {"step": 4})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fault)
        with pytest.raises(OSError, match=r"could not be written .*No space left.* previous one is intact.* --resume"):
            save_checkpoint(tmp_path, new, {"step": 5})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before  # nothing else lies about
    checkpoint = load_checkpoint(tmp_path)
    assert torch.equal(checkpoint.tensors["a"], old["a"]) and checkpoint.training_state == {"step": 4}
    save_checkpoint(tmp_path, new, {"step": 5})
    assert torch.equal(load_tensors(tmp_path / "last.safetensors")[0]["a"], new["a"])


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_a_packed_training_state_continues_bit_identically(tmp_path: Path, optimizer):
    def step(model: nn.Module, way: torch.optim.Optimizer) -> None:
        way.zero_grad()
        nn.functional.dropout(model(torch.randn(4, 3))).square().sum().backward()
        way.step()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    way = optimizer(model.parameters(), 0.1)
    for _ in range(3):
        step(model, way)
    other = nn.Linear(3, 2)
    continued = optimizer(other.parameters(), 0.1)
    save_tensors(tmp_path / "s.safetensors", checkpoint_tensors(model, way))
    for _ in range(2):
        step(model, way)
    restore_checkpoint(load_tensors(tmp_path / "s.safetensors")[0], other, continued)
    for _ in range(2):
        step(other, continued)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


def test_the_recipe_of_a_run_can_be_trained_again(tmp_path: Path):
    make(tmp_path)
    from limner.runs.recipe_file import load_recipe

    assert load_recipe(tmp_path / "recipe.json", [("seed", "6")]) == replace(RECIPE, seed=6)
