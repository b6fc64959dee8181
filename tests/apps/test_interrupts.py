"""Ctrl-C and SIGTERM: a command says where its state is and how to continue, and continuing works."""

import os
import shlex
import signal
from functools import partial
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.apps.shared.interrupts import Terminated, signals_as_interrupts
from limner.data.store import StoreWriter
from limner.encoders import extract as extraction
from limner.inference.pipeline import Pipeline
from limner.runs.recipe_file import save_recipe
from limner.training import stage
from tests.apps.test_cli import one_line
from tests.training.world import pictures, recipe


def stop_by_signal(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_training_says_how_to_go_on(tmp_path: Path, monkeypatch, capsys):
    """Interrupted in a step by SIGTERM, which waits for its end; the command that is printed finishes the training, to
    the same weights."""
    save_recipe(recipe(pictures(tmp_path / "data", 4), ("stages.0.epochs", 2), batch_size=2), tmp_path / "r.json")
    whole = ["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "whole"), "--seed", "3"]
    assert main(whole) == 0
    command = ["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "my run"), "--seed", "3"]
    step = stage.StageTrainer.on_step

    def stopping(run, logs) -> None:
        step(run, logs)
        if run.state.step == 3:
            stop_by_signal()

    monkeypatch.setattr(stage.StageTrainer, "on_step", stopping)
    capsys.readouterr()
    assert main(command) == 130
    state = tmp_path / "my run" / "last.safetensors"
    error = one_line(capsys)
    head, _, advised = error.partition("; continue with: ")
    assert head == f"limner: interrupted; the last checkpoint is {state} (stage 1, epoch 2, step 3)"
    assert shlex.split(advised) == ["limner", *command, "--resume"]
    monkeypatch.setattr(stage.StageTrainer, "on_step", step)
    assert main(shlex.split(advised)[1:]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "my run")]
    assert weights[0] == weights[1]


def test_a_training_without_a_checkpoint(tmp_path: Path, monkeypatch, capsys):
    save_recipe(recipe(pictures(tmp_path / "data", 4)), tmp_path / "r.json")
    monkeypatch.setattr("limner.training.session.read_dataset", stop_by_signal)
    assert main(["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]) == 130
    assert (
        f"there is no checkpoint yet; start again with: limner train {tmp_path / 'r.json'} --out {tmp_path / 'run'}\n"
        in one_line(capsys)
    )


def test_processes_of_torchrun(tmp_path: Path, monkeypatch, capsys):
    """The command starts as many, and one process alone speaks."""
    save_recipe(recipe(pictures(tmp_path / "data", 4)), tmp_path / "r.json")
    monkeypatch.setattr("limner.training.session.read_dataset", stop_by_signal)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    command = ["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run"), "--resume"]
    assert main(command) == 130
    assert one_line(capsys).endswith(f": torchrun --nproc_per_node 2 -m limner {shlex.join(command)}\n")
    monkeypatch.setenv("RANK", "1")
    assert main(command) == 130 and capsys.readouterr().err == ""


def test_an_extraction_says_how_to_go_on(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    command = ["extract", str(tiny / "run"), "--out", str(tmp_path / "store"), "--batch-size", "4"]
    encode = extraction._encode
    monkeypatch.setattr(extraction, "StoreWriter", partial(StoreWriter, shard_items=8))
    monkeypatch.setattr(extraction, "_encode", stop_by_signal)
    assert main(command) == 130
    assert "no complete shard of features was written yet; start again with: limner extract" in one_line(capsys)

    def stopping(*arguments):
        if len(list((tmp_path / "store").glob("shard-*"))) == 2:
            stop_by_signal()
        return encode(*arguments)

    monkeypatch.setattr(extraction, "_encode", stopping)
    assert main(command) == 130
    advice = f"{tmp_path / 'store'} has 2 complete shards of features; continue with: limner {shlex.join(command)}\n"
    assert one_line(capsys) == f"limner: interrupted; {advice}"
    monkeypatch.setattr(extraction, "_encode", encode)
    assert main(command) == 0 and "24 entries written, 16 already there" in capsys.readouterr().out


def test_captions_on_the_screen_are_not_kept(tiny: Path, monkeypatch, capsys):
    monkeypatch.setattr(Pipeline, "captions", stop_by_signal)
    picture = str(tiny / "world" / "images" / "000001.png")
    assert main(["caption", picture, "--model", str(tiny / "run")]) == 130
    assert one_line(capsys) == "limner: interrupted; no caption was written to a file\n"


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), signals_as_interrupts():
        stop_by_signal()
    assert signal.getsignal(signal.SIGTERM) == before
    assert issubclass(Terminated, KeyboardInterrupt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_that_a_library_turns_into_an_error_of_its_own(number: int, tiny: Path, monkeypatch, capsys):
    """As PyTorch does when a signal comes while it asks for the shape of a value."""

    def torch_like(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise RuntimeError("could not determine the shape of object type 'torch.storage.UntypedStorage'") from None

    monkeypatch.setattr(Pipeline, "captions", torch_like)
    picture = str(next((tiny / "world" / "images").iterdir()))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["caption", picture, "--model", str(tiny / "run")]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert one_line(capsys).startswith("limner: interrupted")


def test_a_prompt_ends_with_sigterm_alone(tiny: Path, monkeypatch, capsys):
    """Ctrl-C only clears the line."""
    lines = iter([KeyboardInterrupt(), Terminated()])

    def typed(_: str) -> str:
        raise next(lines)

    monkeypatch.setattr("builtins.input", typed)
    assert main(["caption", "--model", str(tiny / "run")]) == 130
    assert "interrupted" in one_line(capsys) and next(lines, None) is None
