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
from limner.profiling.figure import pareto_figure
from limner.profiling.measure import Profile, count, jpeg, pareto, profile, weights
from limner.run import load_run


def test_operations_by_hand():
    """Two per multiply-add: a product of (2, 3) and (3, 4); a 3 x 3 convolution 5 -> 7 over 4 x 4 places; an LSTM of
    6 from 5 channels over 3 steps, four gates that read input and state."""
    assert count(lambda: nn.Linear(3, 4)(torch.ones(2, 3))) == 2 * 2 * 3 * 4
    assert count(lambda: nn.Conv2d(5, 7, 3, padding=1)(torch.ones(1, 5, 4, 4))) == 2 * 16 * 7 * 5 * 9
    assert count(lambda: nn.LSTM(5, 6)(torch.ones(3, 1, 5))) == 2 * 3 * 4 * 6 * (5 + 6)


def cost(name: str, milliseconds: float, cider: float | None, parameters: int = 1_000_000) -> Profile:
    about = {"device": "cpu", "threads": 1, "beam": 1, "cells": 4, "words": 3}
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
    with pytest.raises(ValueError, match="no run has a CIDEr to draw: limner evaluate RUN leaves"):
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
    assert Image.open(io.BytesIO(jpeg())).size == (640, 480)


def test_a_run_on_features_begins_with_cells(tiny: Path):
    run = replace(load_run(tiny / "run"), encoder=None)
    found = profile(run, repeats=1, batch=2, memory=False)
    assert set(found.latency) == set(found.operations) == {"caption"} and found.parameters["encoder"] == 0
    assert found.about["cells"] == run.recipe.frames


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
    outs = ["--out", str(tmp_path / "p.json"), "--picture", str(tmp_path / "p.png")]
    assert main(["profile", *given, *outs]) == 0
    shown = capsys.readouterr().out
    assert "captions per second" in shown and "0.250" in shown and "scored" in shown
    numbers = json.loads((tmp_path / "p.json").read_text())
    assert [row["cider"] for row in numbers] == [None, 0.25] and numbers[0]["about"]["beam"] == 2
    assert (tmp_path / "p.png").is_file()
    assert main(["profile", str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_only_what_captioning_needs_is_counted(tmp_path: Path):
    for name in ("model.safetensors", "last.safetensors", "log.jsonl", "encoder/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert {path.name for path in weights(tmp_path)} == {"model.safetensors", "config.json"}
