"""What training leaves behind: nothing when it fails at once, and a word about a start that no epoch beat."""

import json
from pathlib import Path

import pytest
import torch

from limner.apps.cli import main
from limner.core.tensors import load_tensors
from limner.runs.recipe_file import save_recipe
from limner.runs.run import start_note
from limner.training.train import train
from tests.training.world import Watched, pictures, recipe


def test_a_training_that_cannot_read_its_data_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither the run folder nor `runs` above it, which was made for it; what was there before stays."""
    data = pictures(tmp_path / "data", 4)
    for path in data.glob("v*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of 3 media can be read"):
        train(recipe(data), tmp_path / "runs" / "a")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "b").mkdir(parents=True)
    with pytest.raises(ValueError, match="none of 3 media can be read"):
        train(recipe(data), tmp_path / "runs" / "b")
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "b"]


def test_a_training_that_fails_in_its_first_step_leaves_no_folder(tmp_path: Path):
    """No training image can be read, which is found when the first batch is made."""
    data = pictures(tmp_path / "data", 4)
    for path in data.glob("p*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="read"):
        train(recipe(data), tmp_path / "runs" / "a")
    assert not (tmp_path / "runs").exists()


def test_a_run_that_no_epoch_made_better_says_so(tmp_path: Path, capsys):
    """A rate of 1e-30 changes nothing, so that the second run cannot be better than the first."""
    data = pictures(tmp_path / "data", 4)
    first = train(recipe(data, epochs=1), tmp_path / "first")
    assert start_note(first, recipe(data)) == ""
    again = recipe(data, ("start", str(first)), epochs=2, lr=1e-30, encoder_lr=0.0)
    seen = Watched()
    run = train(again, tmp_path / "again", callback=seen)
    (warning,) = [facts["text"] for facts in seen.of("warning")]
    assert warning.startswith(f"no epoch beat the start: the weights are those of {first}, with CIDEr ")
    assert "the best of 2 validations had" in warning
    save_recipe(again, tmp_path / "again.json")
    assert main(["evaluate", str(run), "--split", "val", "--metrics", "BLEU"]) == 0
    assert warning in capsys.readouterr().err
    assert warning in json.loads((run / "scores.json").read_text())["notes"]


def test_one_better_epoch_is_enough(tmp_path: Path):
    """The log decides: 0.2 at the start; the best epoch of the second stage is better."""
    again = recipe(pictures(tmp_path / "data", 4), ("start", "runs/first"))
    rows = [(0, 0, 0.2), (0, 5, 0.1), (1, 5, 0.3)]
    for last, note in ((2, True), (3, False)):
        text = "".join(
            json.dumps({"stage": a, "step": b, "split": "val", "CIDEr": c}) + "\n" for a, b, c in rows[:last]
        )
        (tmp_path / "log.jsonl").write_text(text)
        assert bool(start_note(tmp_path, again)) == note


def test_a_frozen_encoder_keeps_its_statistics(tmp_path: Path):
    """Not a bit of the encoder changes in a stage without a rate for it, its BatchNorm included; with one it does."""
    data = pictures(tmp_path / "data", 4)
    first = train(recipe(data, epochs=1), tmp_path / "first")
    begun = load_tensors(first / "model.safetensors")[0]
    for rate in (0.0, 0.01):
        run = train(recipe(data, ("start", str(first)), epochs=1, encoder_lr=rate), tmp_path / f"rate{rate}")
        after = load_tensors(run / "last.safetensors")[0]
        same = [torch.equal(after[f"model.{name}"], value) for name, value in begun.items() if "running" in name]
        assert len(same) > 4 and all(same) == (rate == 0)
