"""`limner average`: the mean of the weights of runs is a run."""

import json
from pathlib import Path

import pytest
import torch

from limner.apps.cli import main
from limner.core.tensors import load_tensors, save_tensors
from limner.inference.pipeline import Pipeline
from limner.models.show_attend_tell import ShowAttendTellConfig
from limner.runs.weight_average import average_weights
from tests.export.worlds import random_run

MODEL = ShowAttendTellConfig(hidden=8, embed=6, attention=4)


def other_weights(run: Path, folder: Path, factor: float) -> Path:
    """A run whose weights are `factor` times those of `run`."""
    folder.mkdir()
    for path in run.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    tensors, _ = load_tensors(run / "model.safetensors")
    save_tensors(folder / "model.safetensors", {name: value * factor for name, value in tensors.items()})
    return folder


def test_the_mean_is_that_of_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """1/4 of w and 3/4 of 3w are 2.5w; the encoder that was trained along is averaged, too."""
    first = random_run(tmp_path / "a", MODEL)
    second = other_weights(first, tmp_path / "b", 3.0)
    assert main(["average", str(first), str(second), "--weights", "1,3", "--out", str(tmp_path / "mean")]) == 0
    assert f"0.25 of {first}, 0.75 of {second}" in capsys.readouterr().out
    before, after = (load_tensors(folder / "model.safetensors")[0] for folder in (first, tmp_path / "mean"))
    assert any(name.startswith("encoder.") for name in after)
    for name, value in after.items():
        torch.testing.assert_close(value, 2.5 * before[name] if value.is_floating_point() else before[name])


def test_the_mean_of_a_run_and_itself_captions_as_the_run(tmp_path: Path):
    run = random_run(tmp_path / "a", MODEL)
    assert main(["average", str(run), str(run), "--out", str(tmp_path / "mean")]) == 0
    picture = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
    expected, got = (Pipeline.load(folder).caption(picture) for folder in (run, tmp_path / "mean"))
    assert (got.text, got.logprob) == (expected.text, expected.logprob)


def test_the_size_of_images_is_that_of_the_first_run(tmp_path: Path):
    first = random_run(tmp_path / "a", MODEL)
    larger = other_weights(first, tmp_path / "b", 1.0)
    for name in ("recipe.json", "run.json"):
        saved = json.loads((larger / name).read_text())
        saved["encoder"].get("preprocessing", saved["encoder"])["size"] = 64
        (larger / name).write_text(json.dumps(saved))
    for runs, size in (((larger, first), 64), ((first, larger), 32)):
        assert main(["average", *map(str, runs), "--out", str(tmp_path / str(size))]) == 0
        encoder = Pipeline.load(tmp_path / str(size)).encoder
        assert encoder.provenance()["preprocessing"]["size"] == size


def test_runs_that_do_not_go_together_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = random_run(tmp_path / "a", MODEL)
    wider = random_run(tmp_path / "wider", ShowAttendTellConfig(hidden=10, embed=6, attention=4))
    words = other_weights(first, tmp_path / "words", 1.0)
    saved = json.loads((words / "vocabulary.json").read_text())
    saved["words"][-1] = "zebra"
    (words / "vocabulary.json").write_text(json.dumps(saved))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    for runs, options, status, message in (
        ([first], [], 1, "an average needs at least two runs"),
        ([first, first], ["--weights", "1"], 1, "2 runs and 1 weights: give one weight per run"),
        ([first, first], ["--weights", "1,-1"], 1, "weights are 1, -1: give positive numbers"),
        ([first, first], ["--weights", "1,nan"], 1, "weights are 1, nan: give positive numbers"),
        ([first, first], ["--weights", "1,much"], 2, "--weights 1,much: give numbers, for example 0.6,0.4"),
        ([first, wider], [], 1, "different models"),
        ([first, words], [], 1, "zebra"),
        ([first, tmp_path / "none"], [], 1, "none"),
    ):
        assert main(["average", *map(str, runs), *options, "--out", str(tmp_path / "mean")]) == status
        assert message in capsys.readouterr().err
        assert not (tmp_path / "mean").exists()
    assert main(["average", str(first), str(first), "--out", str(tmp_path / "full")]) == 1
    assert "is not empty: give a new folder as --out" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note.txt"]


def test_tensors_that_do_not_go_together_are_named():
    one, two = {"w": torch.ones(2)}, {"w": torch.ones(3)}
    with pytest.raises(ValueError, match=r"a and b are different models: w is \(2,\) and \(3,\)"):
        average_weights([one, two], [0.5, 0.5], ["a", "b"])
    with pytest.raises(ValueError, match="a and b are different models: only one of them has v"):
        average_weights([one, {**one, "v": torch.ones(1)}], [0.5, 0.5], ["a", "b"])
