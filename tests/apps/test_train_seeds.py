"""limner train --seeds: a run per seed, a table of their mean, and what is left after an interruption."""

import json
import re
from pathlib import Path
from statistics import mean, stdev

import pytest

from limner.apps import train as command
from limner.apps.cli import main
from limner.core.tensors import load_tensors
from tests.training.world import pictures

RECIPE = """
data: {{name: jsonl, annotations: {data}/captions.jsonl, media: {data}}}
encoder: {{name: small_cnn, size: 16, width: 8, dim: 8}}
vocabulary: {{min_count: 1}}
model: {{name: show_attend_tell, hidden: 16, embed: 8, attention: 8}}
stages: [{{epochs: 2, batch_size: 4, lr: 0.003, encoder_lr: 0.003}}]
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE.format(data=pictures(tmp_path / "data", 4)))
    return str(tmp_path / "small.yaml")


def best(folder: Path) -> float:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return 100 * max(row["CIDEr"] for row in rows if "CIDEr" in row)


def test_a_run_per_seed_equals_the_runs_alone(recipe: str, tmp_path: Path, capsys):
    assert main(["train", recipe, "--seeds", "1,2", "--validation.every", "1"]) == 0
    folders = [tmp_path / "runs" / f"small_{seed}" for seed in (1, 2)]
    assert [json.loads((folder / "recipe.json").read_text())["seed"] for folder in folders] == [1, 2]
    scores = [best(folder) for folder in folders]
    shown = capsys.readouterr().out
    assert f"{mean(scores):.1f} ± {stdev(scores):.1f}" in shown and re.search(rf"2 .*small_2 .*{scores[1]:.1f}", shown)
    assert main(["train", recipe, "--seed", "2", "--out", "alone"]) == 0
    alone, second = (load_tensors(folder / "model.safetensors")[0] for folder in (tmp_path / "alone", folders[1]))
    assert all((alone[name] == value).all() for name, value in second.items())


def test_resume_trains_what_is_left(recipe: str, tmp_path: Path, monkeypatch, capsys):
    trained = []
    step = command.Watcher._step

    def interrupt(watcher: command.Watcher, facts: dict) -> None:
        step(watcher, facts)
        trained.append(str(watcher.folder))
        if len(trained) == 4:  # the first run has two steps, and this is the second step of the second run
            raise KeyboardInterrupt

    monkeypatch.setattr(command.Watcher, "_step", interrupt)
    assert main(["train", recipe, "--seeds", "1,2,3", "--out", "run"]) == 130
    assert "the last checkpoint is run_2/last.safetensors" in capsys.readouterr().err
    assert main(["train", recipe, "--seeds", "1,2,3", "--out", "run"]) == 1
    assert "run_1 already holds a run; continue it with --resume" in capsys.readouterr().err
    before = (tmp_path / "run_1" / "model.safetensors").stat().st_mtime_ns
    assert main(["train", recipe, "--seeds", "1,2,3", "--out", "run", "--resume"]) == 0
    assert trained[4:] == ["run_2", "run_3", "run_3"]
    assert (tmp_path / "run_1" / "model.safetensors").stat().st_mtime_ns == before
    shown = capsys.readouterr().out
    assert "holds no run to resume" not in shown and all(f"run_{seed}" in shown for seed in (1, 2, 3))


def test_mistakes(recipe: str, capsys):
    for arguments, message in [
        (["--seeds", "1,2", "--seed", "3"], "--seeds and --seed are both given: leave out --seed 3"),
        (["--seeds", "1,1"], "a seed is given twice in '1,1'"),
        (["--seeds", "one"], "expected whole numbers separated by commas, got 'one'"),
    ]:
        try:
            status = main(["train", recipe, *arguments])
        except SystemExit as stopped:  # of argparse
            status = stopped.code
        assert status == 2 and message in capsys.readouterr().err
