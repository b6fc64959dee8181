"""`limner extract`: features of a trained encoder, never of a random one."""

from pathlib import Path

import pytest
import torch

from limner.apps.cli import main
from limner.core.types import Layout, Pixels
from limner.data import datasets, shapes
from limner.data.dataset import Dataset
from limner.data.frames import FrameSampling
from limner.data.store import FeatureStore, StoreWriter
from limner.encoders import ResNet3D, ResNet3DConfig
from limner.inference.pipeline import Pipeline, frames_of
from limner.runs.run import load_run


def test_a_run_lends_its_own_encoder(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    """The stored cells are those of the trained network, to float16; problems of the data set are shown."""
    monkeypatch.setitem(
        datasets.DATASETS,
        "shapes",
        lambda config: Dataset(tuple(shapes.load_world(config.media)[:6]), ("line 4: no file",)),
    )
    assert main(["extract", str(tiny / "run"), "--out", str(tmp_path / "f"), "--batch-size", "4"]) == 0
    shown = capsys.readouterr()
    assert "6 entries written, 0 already there, 0 media failed" in shown.out
    assert shown.err == "1 problem in the data:\n  line 4: no file\n"
    store, pipeline = FeatureStore(tmp_path / "f"), Pipeline(load_run(tiny / "run"))
    store.require_encoder(pipeline.encoder.provenance())
    for medium in shapes.load_world(tiny / "world")[:6]:
        cells = pipeline.encode(Pixels(pipeline.encoder.preprocess(frames_of(medium, FrameSampling(4)))[None]))
        torch.testing.assert_close(store.get(medium.id)[0].float(), cells.grid[0], rtol=1e-3, atol=1e-3)


def test_weights_of_a_3d_resnet(tmp_path: Path, capsys):
    """Their file alone says which network it is; a window begins at every frame."""
    shapes.generate_world(tmp_path / "world", 0, 2, size=32)
    torch.manual_seed(0)
    network = ResNet3D(ResNet3DConfig(depth=10, width=4))
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "r3d.pth")
    given = ["extract", "--data", "shapes", "--media", str(tmp_path / "world"), "--encoder", str(tmp_path / "r3d.pth")]
    assert main([*given, "--out", str(tmp_path / "maps"), "--frames", "5"]) == 0
    features, layout = FeatureStore(tmp_path / "maps").get("video-000001")[:2]
    assert layout == Layout(1, 7, 7) and features.shape == (49, 32)
    assert main([*given, "--out", str(tmp_path / "windows"), "--frames", "5", "--window", "4"]) == 0
    features, layout = FeatureStore(tmp_path / "windows").get("video-000001")[:2]
    assert layout == Layout(5, 1, 1) and features.shape == (5, 32)
    assert main([*given[:-1], "some/vit", "--out", "f", "--window", "4"]) == 2
    assert "--window 4 is for 3-D ResNets; the encoder is pretrained" in capsys.readouterr().err


def test_a_store_is_verified(tmp_path: Path, capsys):
    writer = StoreWriter(tmp_path, {"encoder": "e"})
    writer.add("7", "full", torch.ones(4, 3), Layout(1, 2, 2))
    writer.finish()
    assert main(["extract", "--verify", "--out", str(tmp_path)]) == 0
    assert "1 entries, every shard is as it was written" in capsys.readouterr().out
    shard = tmp_path / "shard-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert main(["extract", "--verify", "--out", str(tmp_path)]) == 1
    assert f"changed since extraction: {shard}; delete them and" in capsys.readouterr().err
    assert main(["extract", "--verify"]) == 2
    assert "which store should be verified?" in capsys.readouterr().err


def test_what_cannot_be_extracted(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe, run = str(tiny / "tiny.yaml"), str(tiny / "run")
    resnet = tmp_path / "resnet.yaml"
    resnet.write_text("data: {media: x}\nencoder: {name: resnet}\n")
    given = ["--data", "shapes", "--media", "x", "--encoder", "e", "--out", "f"]
    advice = "has no trained weights of its own: train it from pixels, without extract"
    for arguments, message, status in [
        ([recipe, "--out", "f"], f"small_cnn {advice}", 1),
        ([str(resnet), "--out", "f"], f"resnet {advice}", 1),
        ([run], "where should the features go?", 2),
        ([*given[:-3], run, "--out", "f"], f"{run} is a run; its encoder: limner extract {run} --data.name", 1),
        ([run, "--out", "f", "--encoder.dim", "16"], "the encoder is that of", 2),
        ([run, "--out", "f", "--window", "4"], "--window changes the encoder, which is that of", 2),
        ([".", "--out", "f"], "is not a run folder", 1),
        ([run, *given], "give a recipe or run, or --data, --media and --annotations, not both", 2),
        ([*given, "--bean=3"], "unknown arguments: --bean=3", 2),
        (["--out", "f"], "give a recipe or run, or --data, --media and --encoder", 2),
    ]:
        assert main(["extract", *arguments]) == status, arguments
        assert message in capsys.readouterr().err, arguments
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("name", ["captions", "csv", "jsonl", "coco", "flickr8k"])
def test_captions_that_are_not_there(name: str):
    for given in ("", "nowhere/x"):
        with pytest.raises(FileNotFoundError, match=f"data.annotations: nothing at '{given}', expected a caption file"):
            datasets.read_dataset(datasets.DataConfig(name, "m", given))
