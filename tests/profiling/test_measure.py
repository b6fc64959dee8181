"""What runs cost: operations by hand, the front that no run beats, a run from a file on, one from cells on."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from limner.apps.cli import main
from limner.apps.profile import table
from limner.core.tensors import save_tensors
from limner.core.types import BOS, Features, Layout
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from limner.encoders.folded import FoldedConvolution
from limner.inference.pipeline import Pipeline
from limner.models import build_model
from limner.models.packed_linear import SmallBatchLinear
from limner.models.sft import Sft, SftConfig
from limner.profiling import measure
from limner.profiling.figure import pareto_figure
from limner.profiling.measure import Profile, count_flops, noise_clip, noise_jpeg, pareto, profile, run_files
from limner.runs.recipe_file import build_recipe
from limner.runs.run import RunInfo, create_run, load_run
from limner.text.vocabulary import SPECIALS, Vocabulary


def test_operations_by_hand():
    """Two per multiply-add: a product of (2, 3) and (3, 4); a 3 x 3 convolution 5 -> 7 over 4 x 4 places; an LSTM of
    6 from 5 channels over 3 steps, four gates that read input and state."""
    assert count_flops(lambda: nn.Linear(3, 4)(torch.ones(2, 3))) == 2 * 2 * 3 * 4
    assert count_flops(lambda: nn.Conv2d(5, 7, 3, padding=1)(torch.ones(1, 5, 4, 4))) == 2 * 16 * 7 * 5 * 9
    maps = torch.ones(1, 6, 4, 4)
    for groups in (1, 2):  # with BatchNorm inside, and with maps that are added
        folded = FoldedConvolution(nn.Conv2d(6, 8, 3, padding=1, groups=groups), nn.BatchNorm2d(8))
        with torch.no_grad():
            assert count_flops(lambda folded=folded: folded(maps)) == 2 * 16 * 8 * 6 // groups * 9
            assert (
                count_flops(lambda folded=folded: folded(maps, torch.ones(1, 8, 4, 4))) == 2 * 16 * 8 * 6 // groups * 9
            )
    assert count_flops(lambda: nn.LSTM(5, 6)(torch.ones(3, 1, 5))) == 2 * 3 * 4 * 6 * (5 + 6)


def test_operations_of_kernels_that_torch_does_not_count():
    """Of a linear layer laid out for few rows; of attention, where a mask saves nothing, as when it is taken apart; of
    an LSTM of two layers and directions, whose second layer reads both directions of the first."""
    few = SmallBatchLinear(512, 1024)
    assert count_flops(lambda: few(torch.randn(1, 512))) == 2 * 512 * 1024 == 1_048_576
    assert count_flops(lambda: few(torch.randn(3, 512))) == 3 * 1_048_576
    B, H, Q, K, d = 2, 8, 3, 5, 16
    query, key, value = torch.randn(B, H, Q, d), torch.randn(B, H, K, d), torch.randn(B, H, K, d)
    mask = torch.ones(B, 1, 1, K, dtype=torch.bool)

    def attend() -> object:
        return nn.functional.scaled_dot_product_attention(query, key, value, mask)

    assert count_flops(attend) == 4 * B * H * Q * K * d
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        assert count_flops(attend) == 4 * B * H * Q * K * d
    lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    assert count_flops(lambda: lstm(torch.ones(2, 3, 5))) == 2 * (2 * 3) * 2 * (24 * (5 + 6) + 24 * (12 + 6))


def cost(name: str, milliseconds: float, cider: float | None, parameters: int = 1_000_000) -> Profile:
    about = {"device": "cpu", "threads": 1, "beam": 1, "cells": 4, "words": 3, "medium": "640 x 480 JPEG"}
    return Profile(
        name, {"encoder": 0, "captioner": parameters}, 0, {}, {"caption": milliseconds}, 1, 1, None, cider, about
    )


FRONT = [
    cost("a", 1, 0.3),
    cost("b", 2, 0.2),
    cost("c", 3, 0.5),
    cost("d", 3, 0.4),
    cost("e", 9, 0.5),
    cost("f", 1, None),
]


def test_the_front_is_what_nothing_beats():
    assert [p.name for p, _ in pareto(FRONT)] == ["a", "c"]
    assert [p.name for p, _ in pareto([cost("x", 1, 0.3), cost("y", 1, 0.3)])] == ["x", "y"]  # neither is better


def test_the_picture(tmp_path: Path):
    out = pareto_figure(FRONT, tmp_path / "p.png")
    assert Image.open(out).size == (980, 630)
    svg = pareto_figure([cost("only $5", 3, 0.1)], tmp_path / "p.svg")
    assert svg.stat().st_size > 1000
    with pytest.raises(ValueError, match="no run has a CIDEr to draw: first run limner evaluate RUN"):
        pareto_figure([cost("f", 1, None)], tmp_path / "q.png")


def test_a_run_from_file_to_sentence(tiny: Path):
    run = load_run(tiny / "run")
    found = profile(run, repeats=1, batch=2, memory=False)
    assert found.parameters == {
        "encoder": sum(p.numel() for p in run.encoder.parameters()),
        "captioner": sum(p.numel() for p in run.model.parameters()),
    }
    assert set(found.latency) == {"read", "encode", "caption"} and min(found.latency.values()) > 0
    assert found.total == pytest.approx(sum(found.latency.values())) and found.rate > 0 and found.memory is None
    assert found.operations["encode"] > 0 and found.operations["caption"] > 0
    assert found.size >= (tiny / "run" / "model.safetensors").stat().st_size
    assert Image.open(io.BytesIO(noise_jpeg())).size == (640, 480)


def test_a_run_on_features_begins_with_cells(tiny: Path):
    run = replace(load_run(tiny / "run"), encoder=None)
    found = profile(run, repeats=1, batch=2, memory=False)
    assert set(found.latency) == set(found.operations) == {"caption"} and found.parameters["encoder"] == 0
    assert found.about["cells"] == run.recipe.frames


def test_a_run_on_features_reads_no_medium(tiny: Path, tmp_path: Path, capsys):
    sft_run(tmp_path / "run")
    assert main(["profile", str(tmp_path / "run"), "--no-memory", "--media", "x.mp4"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "captions stored features and has no encoder" in told and "leave out --media" in told


def sft_run(folder: Path, **config: object) -> Path:
    """Random weights, on features of an unknown encoder."""
    words = Vocabulary((*SPECIALS, "a", "dog", "runs"), "simple", 1)
    small = {"name": "sft", "hidden": 16, "embed": 12, "width": 8, "heads": 2, "max_objects": 3, "layers": 2}
    recipe = build_recipe({"features": "f.hdf5", "frames": 5, "data": {"media": "."}, "model": {**small, **config}})
    torch.manual_seed(0)
    save_tensors(folder / "model.safetensors", build_model(recipe.model, len(words), 10).state_dict())
    create_run(folder, recipe, words, RunInfo(10, {}))
    return folder


@pytest.mark.parametrize("shared", ["all", "head", "nothing"])
@pytest.mark.parametrize("path", ["student", "teacher"])
def test_parameters_of_a_side_are_those_that_its_captions_depend_on(shared: str, path: str):
    """Those that the logits have a gradient for; the semantics are computed along, and read in training only."""
    config = SftConfig(side=path, shared=shared, hidden=16, embed=12, width=8, heads=2)  # type: ignore[arg-type]
    model = Sft(config, 7, 10).eval()
    features = Features(torch.randn(2, 5, 10), torch.ones(2, 5, dtype=torch.bool), Layout(5, 1, 1))
    model(features, torch.tensor([[BOS, 5, 6], [BOS, 4, 5]])).logsumexp(-1).sum().backward()
    counted = {id(parameter) for parameter in model.caption_parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in counted}
    needed = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    part = "teacher" if path == "teacher" and shared != "all" else "network"
    assert names - needed == {f"{part}.semantics.weight", f"{part}.semantics.bias"} and needed <= names


def test_a_side_is_measured_for_itself(tmp_path: Path):
    """The two share a head, which both are charged for; the teacher's module costs it operations."""
    run = sft_run(tmp_path / "run")
    (run / "scores.json").write_text('{"scores": {"CIDEr": 0.25}}')
    found = {}
    for side in ("student", "teacher"):
        out = tmp_path / f"{side}.json"
        command = ["profile", str(run), "--repeats", "1", "--batch-size", "1", "--no-memory", "--out", str(out)]
        assert main([*command, "--model.side", side, *(["--frames", "6"] if side == "teacher" else [])]) == 0
        (found[side],) = json.loads(out.read_text())
    model = load_run(run).model
    assert isinstance(model, Sft)
    whole, head = (sum(p.numel() for p in module.parameters()) for module in (model, model.head))
    student, teacher = (found[side]["parameters"]["captioner"] for side in ("student", "teacher"))
    assert student < teacher < whole and student + teacher == whole + head
    assert found["teacher"]["about"]["cells"] == 6 and found["teacher"]["about"]["medium"] == "6 random cells"
    assert [found[side]["cider"] for side in ("student", "teacher")] == [0.25, None]  # the recipe's is the student
    assert found["teacher"]["operations"]["caption"] > found["student"]["operations"]["caption"]


def test_what_of_a_recipe_cannot_be_given(tiny: Path, capsys):
    for name in ("--model.side", "--features"):  # of a run that is no SFT; and nothing would read them
        assert main(["profile", str(tiny / "run"), "--no-memory", name, "teacher"]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert (
            f"unknown arguments: {name} (see --help; of a run's recipe, frames, sampling and decoding can be changed)"
            in told
        )


def test_a_run_of_clips_is_measured_on_a_clip(tiny: Path, tmp_path: Path):
    """Its four frames are four times the cells of a picture."""
    run = load_run(tiny / "run")
    still = profile(run, repeats=1, batch=1, memory=False)
    moving = profile(replace(run, info=replace(run.info, media="clips")), repeats=1, batch=1, memory=False)
    assert run.recipe.frames == 4 and moving.about["cells"] == 4 * still.about["cells"]
    assert moving.operations["encode"] == 4 * still.operations["encode"]
    assert (still.about["medium"], moving.about["medium"]) == ("640 x 480 JPEG", "clip, 4 frames")
    frames = read_medium(str(noise_clip(tmp_path / "c.mp4")), FrameSampling(5))
    assert frames.shape == (5, 240, 320, 3) and (frames[0] != frames[1]).mean() > 0.5


def test_memory_is_that_of_what_was_asked_for(tiny: Path, tmp_path: Path, monkeypatch):
    """The new process gets recipe, medium, search and the place of the encoder, and uses them."""
    run, asked = load_run(tiny / "run"), []
    monkeypatch.setattr(measure, "peak_memory", lambda *given: asked.append(given) or 7.0)
    (tmp_path / "p.jpg").write_bytes(noise_jpeg())
    picture, search = str(tmp_path / "p.jpg"), replace(run.recipe.decoding, size=3)
    found = profile(run, picture, search, repeats=1, batch=1, encoder="there")
    assert found.memory == 7.0 and asked == [(run, picture, search, "there")] and found.about["medium"] == "p.jpg"
    seen = []
    monkeypatch.setattr(Pipeline, "caption", lambda self, *given: seen.append((self.frames, *given)))
    changed = replace(run.recipe, frames=9)
    assert measure._peak_of_process(str(run.folder), "", changed, picture, search) > 1
    assert seen == [(9, picture, search)]
    side = sft_run(tmp_path / "sft")
    config, sides = replace(load_run(side).recipe.model, side="teacher"), []
    monkeypatch.setattr(measure, "beam", lambda model, *_: sides.append(model.config.side))
    measure._peak_of_process(str(side), "", replace(load_run(side).recipe, model=config), b"", None)
    assert sides == ["teacher"]
    assert "of a new process on the CPU" in str(table([found]).caption)


@pytest.mark.slow
def test_memory_of_a_new_process(tiny: Path):
    assert 100 < profile(load_run(tiny / "run"), repeats=1, batch=1).memory < 2000


def test_the_command(tiny: Path, tmp_path: Path, capsys):
    shutil.copytree(tiny / "run", tmp_path / "scored")
    (tmp_path / "scored" / "scores.json").write_text('{"scores": {"CIDEr": 0.25}}')
    given = [
        str(tiny / "run"),
        str(tmp_path / "scored"),
        "--repeats",
        "1",
        "--batch-size",
        "2",
        "--no-memory",
        "--beam",
        "2",
    ]
    outs = ["--out", str(tmp_path / "p.json"), "--figure", str(tmp_path / "p.png")]
    assert main(["profile", *given, *outs]) == 0
    shown = capsys.readouterr().out
    assert "captions per second" in shown and "25.0" in shown and "scored" in shown
    numbers = json.loads((tmp_path / "p.json").read_text())
    assert [row["cider"] for row in numbers] == [None, 0.25] and numbers[0]["about"]["beam"] == 2
    assert (tmp_path / "p.png").is_file()
    assert main(["profile", str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_only_what_captioning_needs_is_counted(tmp_path: Path):
    for name in ("model.safetensors", "last.safetensors", "log.jsonl", "encoder/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert {path.name for path in run_files(tmp_path)} == {"model.safetensors", "config.json"}
