"""Encoders of ours with the weights that a run has learnt: to go on from, and to read features that are stored."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limner.apps.cli import main
from limner.core.tensors import save_tensors
from limner.encoders import (
    EfficientNetLiteConfig,
    ResNet3DConfig,
    ResNetConfig,
    SmallCNN3DConfig,
    TinyConfig,
    build_encoder,
)
from limner.encoders.encoder import EncoderConfig
from limner.inference.pipeline import Pipeline
from limner.runs.package import pack
from limner.runs.run import load_run

CONFIGS = (
    SmallCNN3DConfig(size=32, width=8, dim=6),
    TinyConfig(size=32, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), dim=6),
    ResNetConfig(blocks=(1, 1, 1, 1), size=32, kind="basic"),
    ResNet3DConfig(depth=10, width=4, size=32),
    EfficientNetLiteConfig(variant="lite0", size=32, source=""),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_the_weights_are_those_of_the_run(config: EncoderConfig, tmp_path: Path):
    torch.manual_seed(0)
    trained = build_encoder(config)
    tensors = {f"encoder.{name}": value for name, value in trained.state_dict().items()}
    save_tensors(tmp_path / "model.safetensors", {**tensors, "head.weight": torch.ones(2, 2)})
    again = build_encoder(replace(config, source=str(tmp_path)))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in trained.state_dict().items())
    hashes = [encoder.provenance()["sha256"] for encoder in (again, trained, build_encoder(config))]
    assert hashes[0] == hashes[1] != hashes[2]
    with pytest.raises(ValueError, match=r"encoder.source .* does not fit the model"):
        build_encoder(replace(CONFIGS[CONFIGS.index(config) - 1], source=str(tmp_path)))


def test_from_pixels_to_stored_features_and_back(tiny: Path, tmp_path: Path, capsys):
    """A run's cells are stored, another captioner goes on with them, and captions pictures; packed, it stands alone."""
    run, pictures = str(tiny / "run"), sorted((tiny / "world/images").glob("*.png"))[:2]
    assert main(["extract", run, "--out", str(tmp_path / "cells")]) == 0
    asked = ["--features", str(tmp_path / "cells"), "--start", run, "--stages.0.objective.name", "scst"]
    fine = ["train", str(tiny / "tiny.yaml"), *asked, "--encoder.source", run, "--stages.0.epochs", "1"]
    assert main([*fine, "--out", str(tmp_path / "fine")]) == 0
    assert "must be features of that encoder" not in capsys.readouterr().err
    first, second = load_run(run), load_run(tmp_path / "fine")
    assert first.encoder and second.encoder and second.info.encoder == first.encoder.provenance()
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(value, second.encoder.state_dict()[name])
    expected = [Pipeline(second).caption(path) for path in pictures]
    pack(second, tmp_path / "alone")
    second.folder.rename(tmp_path / "fine2")
    alone = Pipeline.from_pretrained(str(tmp_path / "alone"))
    assert alone.run.recipe.encoder.source == ""
    for path, caption in zip(pictures, expected, strict=True):
        again = alone.caption(path)
        assert (again.text, again.logprob) == (caption.text, pytest.approx(caption.logprob, abs=1e-5))


def test_another_encoder_does_not_read_them(tiny: Path, tmp_path: Path, capsys):
    run = str(tiny / "run")
    assert main(["extract", run, "--out", str(tmp_path / "cells")]) == 0
    fine = ["train", str(tiny / "tiny.yaml"), "--features", str(tmp_path / "cells"), "--out", str(tmp_path / "fine")]
    assert main(fine) == 1
    assert "sha256" in capsys.readouterr().err


def test_what_is_no_source(tiny: Path, tmp_path: Path):
    config = SmallCNN3DConfig()
    with pytest.raises(ValueError, match=r"encoder.source: nowhere is not a run; give the folder"):
        build_encoder(replace(config, source="nowhere"))
    save_tensors(tmp_path / "model.safetensors", {"head.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="holds no encoder weights"):
        build_encoder(replace(config, source=str(tmp_path)))
    with pytest.raises(ValueError, match=r"does not fit the model: missing .*unknown"):
        build_encoder(replace(config, source=str(tiny / "run")))
