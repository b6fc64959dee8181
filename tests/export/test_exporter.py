"""What is exported captions as PyTorch does, or is not written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from limner.apps.cli import main
from limner.encoders import SmallCNN3DConfig
from limner.export import exporter
from limner.export.check import check_export, media_in_folder, microworld_media
from limner.export.exporter import export_onnx
from limner.export.graphs import Graphs
from limner.inference.onnx.model import file_hashes, read_export_manifest
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline
from limner.models.sa_lstm import SaLstmConfig
from limner.models.sft import SftConfig
from limner.models.show_attend_tell import ShowAttendTellConfig
from limner.models.spatial_transformer import SpatialTransformerConfig
from limner.models.spatiotemporal import FirstTokenConfig, SpatioTemporalConfig
from limner.models.up_down import UpDownConfig
from limner.models.xlan import XlanConfig
from limner.runs.package import pack
from limner.runs.resolve import open_package
from limner.runs.run import load_run
from tests.export.worlds import limner, random_run


def test_captions_and_attention_equal_those_of_the_run(tiny: Path, exported: Path):
    pipeline, engine = Pipeline.load(tiny / "run"), OnnxPipeline.load(exported)
    files = sorted((tiny / "world" / "images").iterdir())[:6]
    clip = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), np.uint8)
    for source in (*files, clip):
        theirs, ours = pipeline.caption(source), engine.caption(source)
        assert (ours.text, ours.words, ours.finished) == (theirs.text, theirs.words, theirs.finished)
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-5)
    card = read_export_manifest(exported)
    assert card.decoding == pipeline.decoding.bind(pipeline.vocabulary)
    assert (card.frames, card.layout, card.images, card.clips, card.int8) == (4, (4, 4), True, True, False)
    told = card.source["captions compared with PyTorch"]["float"]
    assert (told["media"], told["identical"]) == (12, 12)
    assert str(tiny) not in (exported / "model.json").read_text()  # not where the run lay


CASES = {
    "show_attend_tell": ShowAttendTellConfig(hidden=24, embed=16, attention=12, project=14, deep_output=True),
    "first_token": FirstTokenConfig(embed=12, hidden=20, layers=2),
    "first_token, aligned": FirstTokenConfig(embed=12, hidden=20, align=(2, 3, 3)),
    "spatio_temporal": SpatioTemporalConfig(hidden=24, embed=16, attention=12),
    "sa_lstm": SaLstmConfig(hidden=24, embed=16, attention=12, layers=2, position_embedding=True),
    "sa_lstm, gru": SaLstmConfig(rnn="gru", hidden=24, embed=16, attention=12),
    "up_down": UpDownConfig(hidden=24, embed=16, attention=12),
    "spatial_transformer": SpatialTransformerConfig(
        encoder_layers=1, decoder_layers=2, dim=16, hidden=20, heads=2, num_grids=16
    ),
    "spatial_transformer, X-linear": SpatialTransformerConfig(
        encoder_layers=1, decoder_layers=2, dim=16, hidden=20, heads=2, num_grids=16, cross_attention="xlinear"
    ),
    "xlan": XlanConfig(layers=1, dim=8, heads=2, mid=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_exportable_captioner_gives_the_same_captions(case: str, tmp_path: Path):
    """Pictures and clips, by the exporter's own comparison and by hand."""
    run = random_run(tmp_path / "run", CASES[case])
    done = limner("export", run)
    assert "24 of 24 captions are PyTorch's" in done.stdout and "for images and videos" in done.stdout
    pipeline, engine = Pipeline.load(run), OnnxPipeline.load(tmp_path / "run.onnx")
    found = check_export(pipeline, engine, microworld_media(images=True, clips=True), pipeline.decoding)
    assert (found.media, found.identical) == (36, 36)
    logprobs = [engine.caption(it).logprob for it in microworld_media(images=True, clips=True)]
    assert found.max_logprob_difference < (max(logprobs) - min(logprobs)) / 5  # it looks at the picture


@pytest.mark.slow
def test_an_encoder_of_clips_is_refused(tmp_path: Path):
    """torch.export takes its `linspace` over time for a constant: the graph would be right for one length only."""
    encoder = SmallCNN3DConfig(size=32, width=8, dim=12)
    run = random_run(tmp_path / "run", SpatioTemporalConfig(hidden=24, embed=16, attention=12), encoder, frames=8)
    done = limner("export", run, code=1)
    assert "other numbers than PyTorch, for images and for clips of 8 frames: nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_what_cannot_be_traced_says_so_and_writes_nothing(tmp_path: Path):
    run = random_run(tmp_path / "run", SftConfig(hidden=8, embed=8, width=8, layers=1, heads=2))
    done = limner("export", run, code=1)
    (line,) = [it for it in done.stderr.splitlines() if it.startswith("limner: ")]
    assert "sft on SmallCNN(width=8) cannot be exported: torch.export cannot trace it" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_a_step_of_several_media_that_cannot_be_traced_is_traced_for_one(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Exports of before have such steps too: a folder is then captioned one medium at a time."""
    real = exporter.build_graphs

    def build(*given: object) -> Graphs:
        if given[-1]:
            raise RuntimeError("no")
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "build_graphs", build)
    export_onnx(load_run(tiny / "run"), tmp_path / "x.onnx")
    engine, pipeline = OnnxPipeline.load(tmp_path / "x.onnx"), Pipeline.load(tiny / "run")
    assert not engine.model.manifest.batched
    found = check_export(pipeline, engine, microworld_media(images=True, clips=True), pipeline.decoding)
    assert found.identical == found.media == 36


@pytest.fixture
def copied(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of tracing, the exporter takes the graphs of the tiny run: other weights are other graphs."""

    def write(graphs: Graphs, encoder_path: str, step_path: str) -> None:
        shutil.copy(exported / "encoder.onnx", encoder_path)
        shutil.copy(exported / "step.onnx", step_path)

    monkeypatch.setattr(exporter, "write_graphs", write)


@pytest.mark.usefixtures("copied")
def test_graphs_of_another_model_are_not_written(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = load_run(tiny / "run")
    with torch.no_grad():
        run.model.head.weight.copy_(run.model.head.weight.flip(1))
    with pytest.raises(ValueError, match="other numbers than PyTorch, for images and for clips"):
        export_onnx(run, tmp_path / "x.onnx")
    monkeypatch.setattr(exporter, "_supported_media", lambda *_: (True, True))  # the captions themselves
    with pytest.raises(ValueError, match=r"PyTorch's caption for \d+ of 24 media, fewer than 99%: nothing was written"):
        export_onnx(run, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("copied")
def test_one_caption_in_a_hundred_may_differ(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """98 of 100 are too few, 99 are enough."""
    run, real = load_run(tiny / "run"), exporter.check_export
    for identical in (98, 99):
        monkeypatch.setattr(
            exporter,
            "check_export",
            lambda *given, same=identical: replace(real(*given), media=100, identical=same, examples=(("a", "b"),)),
        )
        if identical == 98:
            with pytest.raises(ValueError, match=r"98 of 100 media, fewer than 99%: nothing was written \('a' became"):
                export_onnx(run, tmp_path / "x.onnx")
            assert list(tmp_path.iterdir()) == []
        else:
            assert export_onnx(run, tmp_path / "x.onnx").float_check.identical_share == 0.99
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


@pytest.mark.usefixtures("copied")
def test_int8_by_the_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An old export is replaced; a folder of something else is not."""
    (tmp_path / "mine").mkdir()
    assert main(["export", str(tiny / "run"), "--out", str(tmp_path / "mine")]) == 1
    assert "exists and is not an exported model" in capsys.readouterr().err
    out = tmp_path / "small.onnx"
    for arguments in ([], ["--int8"]):
        assert main(["export", str(tiny / "run"), "--out", str(out), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "int8: 2" in shown and "of the float file" in shown
    card = read_export_manifest(out)
    assert card.int8 and card.source["captions compared with PyTorch"]["int8"]["media"] == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "small.onnx"]
    assert OnnxPipeline.load(out).caption(microworld_media(True, False)[0]).text


@pytest.mark.usefixtures("copied")
def test_unreadable_media_are_reported_and_not_counted(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    media = tmp_path / "media"
    media.mkdir()
    for path in sorted((tiny / "world" / "images").iterdir())[:3]:
        shutil.copy(path, media)
    (media / "bad.png").write_bytes(b"no picture")
    (media / "notes.txt").write_text("not a medium")
    assert main(["export", str(tiny / "run"), "--out", str(tmp_path / "x"), "--check", str(media)]) == 0
    shown = capsys.readouterr()
    assert "3 of 3 captions" in shown.out and "bad.png" in shown.err
    (tmp_path / "only").mkdir()
    with pytest.raises(ValueError, match="holds no image and no clip"):
        media_in_folder(tmp_path / "only", 5)
    (tmp_path / "only" / "bad.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 1 media to check with can be read: .*bad\.png"):
        export_onnx(load_run(tiny / "run"), tmp_path / "y", media=media_in_folder(tmp_path / "only", 5))
    assert not (tmp_path / "y").exists()


@pytest.mark.usefixtures("copied")
def test_a_packed_model_can_be_exported(tiny: Path, exported: Path, tmp_path: Path):
    packed = pack(load_run(tiny / "run"), tmp_path / "tiny.limner")
    assert main(["export", str(packed)]) == 0
    assert read_export_manifest(tmp_path / "tiny.limner.onnx").fingerprint == read_export_manifest(exported).fingerprint
    assert open_package(packed) == packed  # nothing was put into it


def test_a_run_without_an_encoder_is_refused(tiny: Path, tmp_path: Path):
    blind = replace(load_run(tiny / "run"), encoder=None)
    with pytest.raises(ValueError, match="has no encoder and could not caption a file"):
        export_onnx(blind, tmp_path / "x")


def test_media_of_a_kind_that_was_not_exported_are_refused(tiny: Path, exported: Path, tmp_path: Path):
    """A model that reads clips only says so of a picture, and goes on."""
    shutil.copytree(exported, tmp_path / "x")
    replace(read_export_manifest(exported), images=False, media="clips", files=file_hashes(exported)).save(
        tmp_path / "x"
    )
    engine = OnnxPipeline.load(tmp_path / "x")
    clip = np.zeros((4, 40, 50, 3), np.uint8)
    (_, failure), (_, caption) = engine.captions([clip[0], clip])
    assert "was exported from a model that reads clips only" in failure.reason  # type: ignore[union-attr]
    assert caption.text == OnnxPipeline.load(exported, clip="mosaic").caption(clip).text != ""  # type: ignore[union-attr]


def test_model_json_holds_format_names_and_files(exported: Path):
    told = json.loads((exported / "model.json").read_text())
    assert (
        told["format"] == 3
        and told["memory"]
        and told["state"]
        and set(told["files"])
        == {
            "encoder.onnx",
            "step.onnx",
            "vocabulary.json",
        }
    )
