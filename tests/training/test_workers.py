"""Worker processes read the batches of a training, and nothing else changes: not one bit of the run."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limner.data.batches import TrainingBatches
from limner.training.train import train
from tests.training.test_resume import long, same
from tests.training.world import Watched, pictures


def test_any_number_of_workers_gives_the_same_run(tmp_path: Path):
    whole = replace(long(pictures(tmp_path / "data", 10)), workers=0)
    (tmp_path / "data" / "p3.png").write_bytes(b"this is no picture")
    watched = Watched()
    train(whole, tmp_path / "thread", callback=watched)
    with pytest.raises(KeyboardInterrupt):  # between the second and third step of the first epoch
        train(replace(whole, workers=2), tmp_path / "workers", callback=Watched(("step", 2)))
    again = Watched()
    train(replace(whole, workers=1), tmp_path / "workers", resume=True, callback=again)
    for name in ("thread", "workers"):  # the one thing that may differ
        recipe = tmp_path / name / "recipe.json"
        recipe.write_text(recipe.read_text().replace('"workers": 1', '"workers": 0'))
    same(tmp_path / "thread", tmp_path / "workers")
    skipped = [[facts["text"] for facts in seen.of("warning") if "p3" in facts["text"]] for seen in (watched, again)]
    assert len(skipped[0]) == 1
    assert skipped[0] == skipped[1]


def test_a_killed_worker_ends_training_with_a_message_and_the_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = long(pictures(tmp_path / "data", 10))
    train(whole, tmp_path / "whole")
    read, parent = TrainingBatches.batch, os.getpid()

    def killed(batches: TrainingBatches, chunk: list[Any]) -> object:
        if os.getpid() != parent and chunk[0][0].medium.id == "p5":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        return read(batches, chunk)

    monkeypatch.setattr(TrainingBatches, "batch", killed)
    with pytest.raises(ChildProcessError, match="set fewer `workers`, or 0"):
        train(replace(whole, workers=2), tmp_path / "run")
    monkeypatch.undo()
    train(whole, tmp_path / "run", resume=True)
    same(tmp_path / "whole", tmp_path / "run")
