"""Packed models: they caption as the run does, and nothing that was changed or could run is read."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limner.apps.cli import main
from limner.core.tensors import load_tensors, save_tensors
from limner.encoders import (
    ClipFramesConfig,
    DetectorConfig,
    Encoder,
    EncoderConfig,
    Pretrained,
    PretrainedConfig,
    build_encoder,
)
from limner.inference.pipeline import Pipeline
from limner.models import build_model
from limner.models.captioner import FromPixels
from limner.models.show_attend_tell import ShowAttendTellConfig
from limner.runs import package as packed
from limner.runs.package import pack, push_to_hub
from limner.runs.recipe import Recipe
from limner.runs.resolve import open_package
from limner.runs.run import RunInfo, create_run, load_run, run_state_dict
from limner.text.vocabulary import Vocabulary
from tests.encoders.test_detector import save as save_detector
from tests.encoders.test_pretrained import save as save_backbone


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return pack(load_run(tiny / "run"), tmp_path / "tiny.limner")


def test_a_packed_model_captions_as_the_run_does(tiny: Path, model: Path):
    picture = tiny / "world" / "images" / "000001.png"
    expected = Pipeline.load(tiny / "run").caption(picture)
    found = Pipeline.from_pretrained(model).caption(picture)
    assert (found.text, found.logprob) == (expected.text, expected.logprob)
    names = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    assert names == {"README.md", "manifest.json", "model.safetensors", "recipe.json", "run.json", "vocabulary.json"}
    assert str(tiny) not in (model / "recipe.json").read_text()  # not where the data lay
    assert "library_name: limner" in (model / "README.md").read_text()


def save_run(folder: Path, encoder: Encoder, trained: bool = False) -> None:
    """A random captioner on this encoder."""
    recipe = Recipe(encoder=encoder.config, model=ShowAttendTellConfig(hidden=4, embed=3, attention=2))
    words = Vocabulary.build(["a dog runs"], 1)
    torch.manual_seed(0)
    whole = FromPixels(encoder, build_model(recipe.model, len(words), encoder.dim))
    create_run(folder, recipe, words, RunInfo(encoder.dim, encoder.provenance(), trained))
    save_tensors(folder / "model.safetensors", run_state_dict(whole))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (DetectorConfig(regions=4, size=64), "detector"),
        (ClipFramesConfig(), "CLIPVisionModelWithProjection"),
        (PretrainedConfig(), "CLIPVisionModel"),
    ],
)
def test_a_pretrained_encoder_is_packed_and_its_folder_is_not_needed(config: EncoderConfig, named: str, tmp_path: Path):
    """CLIP is saved as the hub has it, text and all."""
    source = tmp_path / "source"
    save_detector("detr", source) if isinstance(config, DetectorConfig) else save_backbone("clip", source)
    save_run(tmp_path / "run", build_encoder(replace(config, source=str(source))))
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = Pipeline.load(tmp_path / "run").caption(picture)
    pack(load_run(tmp_path / "run"), tmp_path / "m")
    source.rename(tmp_path / "gone")
    found = Pipeline.from_pretrained(tmp_path / "m").caption(picture)
    assert (found.text, found.logprob) == (expected.text, pytest.approx(expected.logprob, abs=1e-5))
    inside = load_run(open_package(tmp_path / "m"))
    assert inside.recipe.encoder == replace(config, source="encoder") and inside.info.encoder["source"] == "encoder"
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "m").rglob("*.json"))
    assert f"on the encoder `{named}`" in (tmp_path / "m" / "README.md").read_text()
    with pytest.raises(ValueError, match="give its present path with --encoder"):
        load_run(tmp_path / "run")
    moved = load_run(tmp_path / "run", str(tmp_path / "gone")).encoder  # the run itself can follow it
    assert moved is not None and moved.config.source == str(tmp_path / "gone")


def test_a_run_that_kept_a_detectors_weights_can_be_packed(tmp_path: Path):
    """As earlier versions did, which took them for its own; now they are in the folder alone."""
    save_detector("detr", tmp_path / "source")
    encoder = build_encoder(DetectorConfig(source=str(tmp_path / "source"), regions=4, size=64))
    save_run(tmp_path / "run", encoder)
    weights = tmp_path / "run" / "model.safetensors"
    tensors, _ = load_tensors(weights)
    assert not any(name.startswith("encoder.") for name in tensors)
    save_tensors(weights, tensors | {f"encoder.{name}": value for name, value in encoder.state_dict().items()})
    pack(load_run(tmp_path / "run"), tmp_path / "m")
    packed_tensors, _ = load_tensors(tmp_path / "m" / "model.safetensors")
    assert packed_tensors.keys() == tensors.keys()


def test_a_fine_tuned_encoder_is_packed_with_its_trained_weights(tmp_path: Path):
    save_backbone("resnet", tmp_path / "backbone")
    encoder = Pretrained(PretrainedConfig(source=str(tmp_path / "backbone"), trainable_from=0))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.01)
    save_run(tmp_path / "run", encoder, trained=True)
    pack(load_run(tmp_path / "run"), tmp_path / "m")
    (tmp_path / "backbone").rename(tmp_path / "gone")
    found = load_run(open_package(tmp_path / "m"))
    assert isinstance(found.encoder, nn.Module)
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(found.encoder.backbone.state_dict()[name], value), name
    with open(tmp_path / "m" / "encoder" / "config.json", "a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match=r"encoder/config\.json is not the file that was packed: its hash differs"):
        open_package(tmp_path / "m")


def test_half_precision_halves_the_size(tiny: Path, model: Path, tmp_path: Path):
    run = load_run(tiny / "run")
    folder = pack(run, tmp_path / "half.limner", half=True)
    full, half = (path.joinpath("model.safetensors").stat().st_size for path in (model, folder))
    assert 0.5 < half / full < 0.6  # biases and statistics stay
    found = load_run(open_package(folder))
    for name, weight in run.model.state_dict().items():
        assert found.model.state_dict()[name].dtype == weight.dtype
        rounded = weight.half().float() if weight.dim() > 1 else weight
        assert torch.equal(found.model.state_dict()[name], rounded), name
    with torch.no_grad():
        run.model.head.weight[3, 2] = 70000
    with pytest.raises(ValueError, match=r"head\.weight reaches 70000, more than float16 can hold"):
        pack(run, tmp_path / "half.limner", half=True)
    assert load_run(open_package(folder)) is not None  # what was there is still whole


def test_a_flipped_byte_is_named(model: Path):
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors is not the file that was packed: its hash differs"):
        open_package(model)


def test_files_that_could_run_are_refused_before_anything_is_read(model: Path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    (model / "model.safetensors").unlink()  # would be named too, were the folder read
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: a packed model holds .*could execute code"):
        open_package(model)
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "pytorch_model.bin").unlink()
    for name in ("../run.py", "modeling.py"):
        told = {**manifest, "files": {**manifest["files"], name: {"sha256": "", "bytes": 0}}}
        (model / "manifest.json").write_text(json.dumps(told))
        with pytest.raises(ValueError, match="could execute code"):
            open_package(model)


def test_missing_unknown_and_newer_files_are_named(tiny: Path, model: Path):
    (model / "more.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds more\.json, not listed in its manifest\.json"):
        open_package(model)
    (model / "more.json").rename(model.parent / "more.json")
    (model / "vocabulary.json").rename(model.parent / "vocabulary.json")
    with pytest.raises(ValueError, match=r"vocabulary\.json is missing"):
        open_package(model)
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps({**manifest, "format": 2, "version": "9.1"}))
    with pytest.raises(
        ValueError, match=r"has pack format 2, of limner 9\.1; this limner reads up to 1: update limner"
    ):
        open_package(model)
    (model / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe a packed model"):
        open_package(model)
    with pytest.raises(ValueError, match=r"is no packed model: it has no manifest\.json"):
        open_package(tiny / "run")


def test_runs_without_an_encoder_and_existing_folders_are_refused(tiny: Path, tmp_path: Path):
    run = load_run(tiny / "run")
    with pytest.raises(ValueError, match="has no encoder and could not caption a file"):
        pack(replace(run, encoder=None), tmp_path / "m")
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileExistsError, match="exists and is no packed model"):
        pack(run, tmp_path / "photos")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]  # nothing half-written


def test_packing_again_replaces_the_package_completely_or_not_at_all(tiny: Path, model: Path, monkeypatch):
    before = (model / "manifest.json").read_text()
    monkeypatch.setattr(packed, "sha256", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        pack(load_run(tiny / "run"), model)
    assert (model / "manifest.json").read_text() == before and len(list(model.parent.iterdir())) == 1
    monkeypatch.undo()
    pack(load_run(tiny / "run"), model, "# My card\n")
    assert (open_package(model) / "README.md").read_text() == "# My card\n"


def test_packages_are_fetched_from_the_hub(tiny: Path, model: Path, tmp_path: Path, monkeypatch):
    import huggingface_hub

    def offline(id: str, **_: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"a/b is no folder here.*offline, give a run folder.* transformers is hf:a/b"):
        open_package("a/b")
    with pytest.raises(ValueError, match="no hub id of the form owner/name"):
        open_package("nowhere")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda id, **_: str(model))
    assert open_package("a/b") == model
    (tmp_path / "blip").mkdir()
    (tmp_path / "blip" / "config.json").touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda id, **_: str(tmp_path / "blip"))
    with pytest.raises(ValueError, match=r"no manifest\.json; .*is it a model of transformers\? then write hf:a/b"):
        open_package("a/b")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda id, **_: str(model))
    calls = []

    class Api:
        def create_repo(self, repo: str, **options: object) -> None:
            calls.append((repo, options))

        def upload_folder(self, **options: object) -> str:
            calls.append(options["folder_path"])
            return "https://hub/a/b"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push_to_hub(model, "a/b", private=True) == "https://hub/a/b"
    assert calls == [("a/b", {"private": True, "exist_ok": True}), model]


def test_the_pack_command_writes_and_verifies(tiny: Path, tmp_path: Path, capsys):
    out = str(tmp_path / "m.limner")
    assert main(["pack", str(tiny / "run"), "--out", out]) == 0
    assert f"wrote {out}: 0." in capsys.readouterr().out
    assert main(["pack", out, "--verify"]) == 0
    assert "every file is as it was packed" in capsys.readouterr().out
    assert main(["pack", str(tiny / "run")]) == 2
    assert "where should the model go?" in capsys.readouterr().err
    assert main(["caption", str(tiny / "world" / "images" / "000001.png"), "--model", out]) == 0


def test_a_model_card_is_inert(tiny: Path, tmp_path: Path):
    """Names of a run from a stranger hold HTML, Markdown and new lines; a score is no number."""
    run = load_run(tiny / "run")
    hostile = tmp_path / "<script>alert(1) [x](javascript:y)\n# title"
    hostile.mkdir()
    scores = {"scores": {"BLEU|<b>": 0.5, "x": None}, "protocol": {"`a`": "<img src=x>"}}
    (hostile / "scores.json").write_text(json.dumps(scores))
    card = (pack(replace(run, folder=hostile), tmp_path / "m") / "README.md").read_text()
    assert "<script>" not in card and "<b>" not in card and "<img" not in card and "](javascript" not in card
    assert "\n# &lt;script&gt;alert\\(1\\) \\[x\\]\\(javascript:y\\) \\# title\n" in card
    assert "| BLEU\\|&lt;b&gt; | 0.500 |" in card and "| x |" not in card
