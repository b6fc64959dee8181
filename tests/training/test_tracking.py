"""Experiment trackers: what they get is what log.jsonl has, offline, and one that fails costs no training."""

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

from limner.apps.cli import main
from limner.runs.recipe import Recipe
from limner.training import tracking as module
from limner.training.tracking import IDS, Tracking, check_trackers
from limner.training.train import train
from tests.training.world import log_of, pictures, recipe


@pytest.fixture
def small(tmp_path: Path) -> Recipe:
    return recipe(pictures(tmp_path / "data", 8), epochs=2)


def run(small: Recipe, folder: Path, *names: str, resume: bool = False) -> list[str]:
    """Train with trackers -> the warnings."""
    warnings: list[str] = []
    with Tracking(names, small, folder, warnings.append) as tracking:
        train(small, folder, resume, tracking)
    return warnings


def expected(folder: Path, group: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of the lines of log.jsonl with a split (val), or without one (train)."""
    rows = [row for row in log_of(folder) if row.get("split", "train") == group]
    return [(row["step"], row[name]) for row in rows]


def board_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / "tracked"))
    events.Reload()
    return events


def test_tensorboard_has_losses_scores_and_the_recipe(small: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(small, folder, "tensorboard") == []
    board = board_of(folder)
    for group, name in (("train", "loss"), ("train", "lr"), ("val", "CIDEr"), ("val", "distinct")):
        found = [(event.step, round(event.value, 5)) for event in board.Scalars(f"{group}/{name}")]
        assert found == [(step, round(value, 5)) for step, value in expected(folder, group, name)] and len(found) == 2
    parameters = next((folder / "tensorboard" / "tracked").rglob("hparams.yml")).read_text()
    assert "stages.0.lr: 0.003\n" in parameters and "model.name: show_attend_tell\n" in parameters


def test_wandb_works_offline(small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    assert run(small, folder, "wandb") == []
    wandb.teardown()  # its process writes the last records
    id = json.loads((folder / IDS).read_text())["wandb"]
    (written,) = (folder / "wandb").glob(f"offline-run-*-{id}/run-{id}.wandb")
    content = written.read_bytes()  # records of protobuf, whose texts are as they are
    for text in (b"train/loss", b"val/CIDEr", b"stages.0.lr", b"show_attend_tell"):
        assert text in content
    assert f"{expected(folder, 'val', 'CIDEr')[-1][1]}".encode() in content


def test_mlflow_works_in_a_folder_and_a_resumed_run_continues(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    folder = tmp_path / "run"
    assert run(small, folder, "mlflow") == []
    id = json.loads((folder / IDS).read_text())["mlflow"]
    assert run(small, folder, "mlflow", resume=True) == []  # nothing is left to train
    assert json.loads((folder / IDS).read_text())["mlflow"] == id
    client = mlflow.MlflowClient()
    history = [(row.step, row.value) for row in client.get_metric_history(id, "val/CIDEr")]
    assert history == expected(folder, "val", "CIDEr")
    data = client.get_run(id).data
    assert data.params["stages.0.lr"] == "0.003" and data.tags["mlflow.runName"] == "run"


def test_trackio_works_in_a_folder(small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio", reason="pip install trackio")
    from trackio import sqlite_storage

    for part in (trackio, sqlite_storage):
        if hasattr(part, "TRACKIO_DIR"):
            monkeypatch.setattr(part, "TRACKIO_DIR", tmp_path / "trackio")
    folder = tmp_path / "run"
    assert run(small, folder, "trackio") == []
    id = json.loads((folder / IDS).read_text())["trackio"]
    rows = sqlite_storage.SQLiteStorage.get_logs("limner", f"run-{id}")
    found = [(row["step"], row["val/CIDEr"]) for row in rows if "val/CIDEr" in row]
    assert found == expected(folder, "val", "CIDEr")


class Failing(GeneralTracker):
    """Fails in one of its methods."""

    name, requires_logging_directory, tracker = "failing", False, None

    def __init__(self, where: str, calls: list[str]):
        super().__init__()
        self.where, self.calls = where, calls

    def _reach(self, where: str) -> None:
        self.calls.append(where)
        if where == self.where:
            raise ConnectionError("no network,\n  or no login")

    def start(self) -> None:
        self._reach("start")

    def store_init_configuration(self, values: dict) -> None:
        self._reach("configuration")

    def log(self, values: dict, step: int | None = None, **_: object) -> None:
        self._reach("log")

    def finish(self) -> None:
        self._reach("finish")


@pytest.mark.parametrize("where", ["start", "configuration", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_training_goes_on(
    where: str, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(module, "_make", lambda *_: Failing(where, calls))
    warnings = run(small, tmp_path / "run", "wandb")
    assert warnings == [
        "wandb failed and gets nothing more (no network, or no login); training goes on, and log.jsonl has everything"
    ]
    assert calls.count(where) == 1 and calls[-1] == where
    assert (tmp_path / "run" / "model.safetensors").is_file() and len(expected(tmp_path / "run", "val", "CIDEr")) == 2


def test_a_damaged_list_of_ids_begins_new_runs(small: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / IDS).write_text("{")
    (warning,) = run(small, tmp_path / "run", "tensorboard")
    assert "tracking.json" in warning and warning.endswith(": the trackers begin new runs")


def test_a_missing_package_and_an_unknown_name_are_errors_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="--track mlflow needs mlflow: pip install mlflow-skinny"):
        check_trackers(["mlflow"])
    monkeypatch.undo()
    with pytest.raises(ValueError, match="unknown tracker 'wanda'; known are wandb, mlflow, trackio, tensorboard"):
        check_trackers(["wanda"])
    with pytest.raises(SystemExit) as stopped:
        main(["train", "recipe.yaml", "--track", "wanda"])
    assert stopped.value.code == 2 and "unknown tracker 'wanda'" in capsys.readouterr().err


def test_the_command_tracks(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tracked"
    given = ["train", str(tiny / "tiny.yaml"), "--out", str(out), "--track", "tensorboard", "--stages.0.epochs=1"]
    assert main(given) == 0
    assert [event.step for event in board_of(out).Scalars("val/CIDEr")] == [expected(out, "val", "CIDEr")[0][0]]
