"""Several processes train as one does: the same losses, each medium evaluated once, kills and other numbers told."""

import json
import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from limner.models.captioner import first_tensor
from limner.objectives import self_critical
from limner.runs.recipe import Recipe
from limner.training.train import train
from tests.training.test_distillation import student
from tests.training.test_sft import recipe as sft_recipe
from tests.training.world import Watched, log_of, pictures, recipe

CAPTIONS = ("a red dog", "a blue cat runs", "the bird", "a green fish swims away over there", "two cows stand here")


def together(count: int, work: Callable[[int], object]) -> list[str]:
    """Run `work(rank)` in `count` forked processes, as torchrun does -> the error of each, "" for none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    context = multiprocessing.get_context("fork")
    errors = [context.SimpleQueue() for _ in range(count)]

    def run(rank: int) -> None:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in places.items()}})
        AcceleratorState._reset_state()
        PartialState._reset_state()
        try:
            work(rank)
            errors[rank].put("")
        except Exception as error:
            errors[rank].put(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        os._exit(0)

    processes = [context.Process(target=run, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()
    return ["killed" if process.exitcode else queue.get() for process, queue in zip(processes, errors, strict=True)]


def losses(folder: Path) -> list[dict[str, Any]]:
    return [row for row in log_of(folder) if "loss" in row]


def each_step(plan: Recipe, folder: Path, count: int) -> list[dict[str, float]]:
    """The logs of every step, of which log.jsonl has a part."""
    path = folder.with_suffix(".json")

    def work(rank: int) -> None:
        watched = Watched()
        train(plan, folder, callback=watched)
        if rank == 0:
            path.write_text(json.dumps(watched.of("step")))

    if count == 1:
        work(0)
    else:
        assert together(count, work) == [""] * count
    steps: list[dict[str, float]] = json.loads(path.read_text())
    return steps


def features_of(data: Path, folder: Path, shape: tuple[int, ...] = (2, 2, 6)) -> Path:
    """Random cells, or rows of frames, for every picture of a folder."""
    folder.mkdir()
    for number, picture in enumerate(sorted(data.glob("*.png"))):
        np.save(folder / f"{picture.stem}.npy", np.random.default_rng(number).normal(size=shape).astype(np.float32))
    return folder


def plans(kind: str, tmp_path: Path) -> Recipe:
    """A recipe without dropout, on features: a BatchNorm of an encoder would see the images of one process.

    Its captions have different lengths, and its last batch is smaller than the others.
    """
    data = pictures(tmp_path / "data", 9, captions=CAPTIONS)
    stored = ("features", str(features_of(data, tmp_path / "cells")))
    if kind == "sft":
        levels = {"teacher_weight": 0.5, "objects": 0.3, "actions": 0.2, "sentence": 0.1, "kl": 0.5}
        plan = sft_recipe(tmp_path, features_of(data, tmp_path / "frames", (4, 10)), **levels)
        stage = replace(plan.stages[0], batch_size=4, accumulate=1)
        return replace(plan, data=recipe(data).data, stages=(stage,), model=replace(plan.model, dropout=0.0))
    if kind == "distil":
        teacher = train(recipe(data, stored, ("model.hidden", 12), epochs=1), tmp_path / "teacher")
        weights = {"kl": 0.5, "xe_weight": 0.5, "objects": 0.2, "sentence": 0.1, "slots": 2}
        plan = student(data, teacher, stored, ("model.dropout", 0.0), ("augmentations", ["full"]), **weights)
        return replace(plan, model=recipe(data).model, stages=(replace(plan.stages[0], batch_size=4, epochs=2),))
    objective: dict[str, Any] = {"name": "xe", "label_smoothing": 0.1, "doubly_stochastic": 0.5, "entropy": 0.1}
    if kind == "scst":
        objective = {"name": "scst", "sample": {"count": 2}, "xe_weight": 0.2}
    return recipe(data, stored, epochs=2, batch_size=4, objective=objective)


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("distil", "sft")]


@pytest.mark.parametrize("kind", ["xe", "scst", *SLOW])
def test_two_processes_have_the_losses_of_one(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Samples are drawn from the numbers of each medium here, because those of several processes differ by chance."""
    plan = plans(kind, tmp_path)
    if kind == "scst":
        monkeypatch.setattr(self_critical, "rollout", samples_of_the_media)
    alone, two = (each_step(plan, tmp_path / f"{kind}{count}", count) for count in (1, 2))
    assert len(alone) == len(two) > 0
    for ours, theirs in zip(alone, two, strict=True):  # the losses, each of their terms, and the norm of the gradient
        # a term without any word in a batch is 0 in the log of two, and absent in that of one
        assert ours == pytest.approx({name: theirs[name] for name in ours}, rel=5e-4, abs=1e-5)
    validations = [[row for row in log_of(tmp_path / f"{kind}{count}") if "CIDEr" in row] for count in (1, 2)]
    assert [row["CIDEr"] for row in validations[0]] == pytest.approx([row["CIDEr"] for row in validations[1]], rel=1e-3)


def samples_of_the_media(model: Any, memory: Any, options: Any) -> Any:
    """Captions that follow from the memory of a medium alone, in place of drawn ones; every row ends within 7 words."""
    from limner.core.types import EOS, Captions
    from limner.decode.options import Sample

    rows = options.count if isinstance(options, Sample) else 1
    numbers = (first_tensor(memory).detach().flatten(1).double().abs().sum(1) * 10).long()
    tokens = torch.zeros(len(numbers) * rows, 7, dtype=torch.long)
    for row in range(len(tokens)):
        number = int(numbers[row // rows]) + row % rows
        length = 2 + number % 4
        for place in range(length):
            tokens[row, place] = 4 + (number + place * 3) % 9
        tokens[row, length] = EOS
    return Captions(tokens, torch.zeros(len(tokens)), torch.zeros(len(tokens), 7, 1))


@pytest.mark.parametrize("count", [2, 3])
def test_every_medium_is_validated_once(count: int, tmp_path: Path):
    """With three processes and two validation media, one process has none."""
    plan = recipe(pictures(tmp_path / "data", 6, val=2), epochs=1, batch_size=6)
    alone, several = (each_step(plan, tmp_path / f"run{n}", n) for n in (1, count))
    assert len(alone) == len(several)
    rows = [[row for row in log_of(tmp_path / f"run{n}") if "CIDEr" in row] for n in (1, count)]
    assert len(rows[0]) == len(rows[1]) == 1
    assert rows[0][0]["BLEU-4"] == pytest.approx(rows[1][0]["BLEU-4"], rel=1e-3, abs=1e-9)


def test_a_killed_process_ends_the_others_with_a_message_and_another_number_resumes(tmp_path: Path):
    plan = recipe(pictures(tmp_path / "data", 8), ("checkpoint_steps", 1), epochs=3, batch_size=4)

    def work(rank: int) -> None:
        steps = Watched()

        def count(event: str, facts: dict[str, Any]) -> None:
            steps(event, facts)
            if len(steps.of("step")) == 3:
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out

        train(plan, tmp_path / "run", callback=count)

    first, second = together(2, work)
    assert first == "killed"
    assert second.startswith("ConnectionError: another process of this training has ended")
    assert "start the same command with --resume" in second
    watched = Watched()
    train(plan, tmp_path / "run", resume=True, callback=watched)
    texts = [facts["text"] for facts in watched.of("warning")]
    assert any(text.startswith("the run was trained by 2 processes, and now by 1: the examples of") for text in texts)
    assert [row["step"] for row in losses(tmp_path / "run")] == [2, 4, 6]


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path: Path):
    plan = recipe(pictures(tmp_path / "data", 4), epochs=1, batch_size=1)
    errors = together(2, lambda rank: train(plan, tmp_path / "run"))
    assert all("batch_size 1 counts all ranks together and must be at least their number, 2" in text for text in errors)
