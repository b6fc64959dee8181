"""What `limner train` shows and how it ends."""

from pathlib import Path

import pytest

from limner.apps.cli import main, parser
from limner.apps.train import Watcher
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import save_recipe
from limner.training.train import train
from tests.training.world import Watched, log_of, pictures, recipe


def two_stages(folder: Path, *overrides: tuple[str, object]) -> Recipe:
    stage = {"epochs": 1, "batch_size": 2, "lr": 0.01}
    return recipe(folder, ("stages", [stage, stage]), *overrides)


def scalars(folder: Path, name: str) -> list[int]:
    """The steps at which a number stands in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_lines_name_the_metric_and_the_stage(tmp_path: Path, capsys):
    folder = pictures(tmp_path / "data", 4)
    save_recipe(two_stages(folder, ("validation.metric", "BLEU-1")), tmp_path / "r.json")
    command = ["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]
    assert main(command) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line or "best" in line]
    shown = [line for line in lines if "for example" in line]
    assert [line.split(": ")[0] for line in shown] == ["stage 1/2 epoch 1", "stage 2/2 epoch 1"]
    assert all(line.split(": ")[1].split()[0::2][:3] == ["BLEU-1", "CIDEr", "BLEU-4"] for line in shown)
    best = max(float(line.split("BLEU-1 ")[1].split()[0]) for line in shown)
    scores = [row["BLEU-1"] for row in log_of(tmp_path / "run") if "BLEU-1" in row]
    assert best == round(100 * max(scores), 1) > 1  # x100, as `limner evaluate` prints; the log has fractions
    assert lines[-1] == f"run folder: {tmp_path / 'run'}   best BLEU-1 {best:.1f}"
    assert scalars(tmp_path / "run", "val/CIDEr") == [2, 4]  # two steps in each stage
    assert main([*command, "--resume"]) == 0
    assert f"best BLEU-1 {best:.1f}" in capsys.readouterr().out


def test_tensorboard_drops_steps_after_the_last_checkpoint(tmp_path: Path):
    """60 steps, saved after the 30th, killed after the 50th: the points at 40 (not saved) are purged and made again."""
    whole = recipe(pictures(tmp_path / "data", 60), ("checkpoint_steps", 30), batch_size=1)
    stop = Watched(("step", 50))
    with pytest.raises(KeyboardInterrupt), Watcher(tmp_path / "run") as watcher:
        train(whole, tmp_path / "run", callback=lambda event, facts: (watcher(event, dict(facts)), stop(event, facts)))
    assert scalars(tmp_path / "run", "train/loss") == [20, 40]
    with Watcher(tmp_path / "run") as watcher:
        train(whole, tmp_path / "run", resume=True, callback=watcher)
    assert scalars(tmp_path / "run", "train/loss") == [20, 40, 60]


def test_skipped_media_give_status_three(tmp_path: Path, capsys):
    folder = pictures(tmp_path / "data", 6, 2)
    (folder / "p5.png").write_bytes(b"no picture")
    save_recipe(recipe(folder), tmp_path / "r.json")
    assert main(["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]) == 3
    assert "warning: skipped: " in capsys.readouterr().out


def test_options_are_not_abbreviated(tmp_path: Path, capsys):
    options, rest = parser().parse_known_args(["train", "r.yaml", "--res", "--ou", "x"])
    assert not options.resume and options.out is None and rest == ["--res", "--ou", "x"]
    assert main(["caption", "x.png", "--model", "nowhere", "--device", "gpu9"]) == 2
    assert "--device gpu9: unknown; give cpu, cuda, cuda:1 or mps" in capsys.readouterr().err


def test_only_the_first_process_prints(tmp_path: Path, monkeypatch):
    from limner.training import session

    class Second(session.Accelerator):
        is_main_process = False

    monkeypatch.setattr(session, "Accelerator", Second)
    watch = Watched()
    (tmp_path / "run").mkdir()
    train(recipe(pictures(tmp_path / "data", 4)), tmp_path / "run", callback=watch)
    assert not watch and not list((tmp_path / "run").iterdir())
