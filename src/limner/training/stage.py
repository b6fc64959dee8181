"""One stage of a run: its optimiser, batches and average, what `fit` calls back, and the state to resume from."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from limner.core.tensors import save_tensors
from limner.data.batches import TrainingBatches
from limner.objectives import Context, HasCheckpointState, build_objective
from limner.runs.run import (
    append_log,
    load_objective,
    checkpoint_tensors,
    rng_state,
    save_objective,
    restore_checkpoint,
    run_state_dict,
)
from limner.training.loop import ExponentialMovingAverage, Position, TrainingModule, fit, make_optimizer
from limner.training.session import Session, short
from limner.training.teachers import load_teacher


class StageTrainer:
    """One stage: its optimiser, batches and average, and what `fit` calls back."""

    def __init__(self, session: Session, index: int):
        recipe, accelerator = session.recipe, session.accelerator
        self.session, self.index, self.stage, self.position = session, index, recipe.stages[index], session.position
        self.main, self.rank = session.main, accelerator.process_index
        session.set_image_size(self.stage.image_size)
        self.batches = TrainingBatches(
            session.media,
            session.vocabulary,
            session.inputs.reader,
            self.stage.batch_size,
            recipe.seed + 1000 * index,
            recipe.augmentations,
            recipe.vocabulary.max_words,
            self.stage.captions_per_medium,
            self.rank,
            accelerator.num_processes,
            recipe.sampling.policy == "random",
            session.pseudo_captions,
        )
        self.objective = build_objective(self.stage.objective, self.context())
        if isinstance(self.objective, nn.Module):  # goes on where the stage or run before has left it
            before = str(session.folder) if index else recipe.start
            load_objective(self.objective, before, self.stage.objective.parameters_name)
            self.objective.to(accelerator.device)
        optimizer = make_optimizer(session.model, self.stage, self.objective)
        self.average = ExponentialMovingAverage(session.model, self.stage.ema_decay) if self.stage.ema_decay else None
        if session.restored:
            self.restore(optimizer)
        accelerator.free_memory()  # the optimiser of the stage before
        self.training_module, self.optimizer = accelerator.prepare(TrainingModule(session.model, self.objective), optimizer)
        self.stopwatch = Stopwatch(self.position)

    def context(self) -> Context:
        """What this stage's objective is built from."""
        session, recipe, device = self.session, self.session.recipe, self.session.accelerator.device
        media = session.dataset.split("train")
        teacher, asked = None, self.stage.objective
        if asked.teacher_run:
            own = (recipe, session.vocabulary, session.media, device)
            teacher = load_teacher(asked.teacher_run, *own, asked.teacher_side)
        return Context(
            feature_dim=session.feature_dim,
            media=media,
            vocabulary=session.vocabulary,
            warn=lambda text: session.watch("warning", {"text": text}),
            student=session.model,
            sample=lambda: self.batches.batch(self.batches.order(0)[:1]).to(device),
            augmentations=recipe.augmentations,
            teacher=teacher,
            called=self.position.epoch * len(self.batches) + self.position.batch,
        )

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over the session's checkpoint, once."""
        session, tensors = self.session, self.session.restored
        state = {name: value for name, value in tensors.items() if not name.startswith("average.")}
        restore_checkpoint(state, session.model, optimizer, self.rank, self.objective)
        if self.average is not None:
            for name, value in self.average.shadow.items():  # copied, so that they lie where the model lies
                value.copy_(tensors[f"average.{name}"])
            self.average.count = self.position.step
        if isinstance(self.objective, HasCheckpointState):
            self.objective.restore_checkpoint_state(tensors)
        if session.scaler and session.accelerator.scaler is not None:
            session.accelerator.scaler.load_state_dict(session.scaler)
        session.restored = {}

    def run(self) -> None:
        if self.position.step == 0:
            self.checkpoint()  # from now on there is always a state to resume from, also once better weights are kept
            learnt = self.index > 0 or bool(self.session.recipe.start)
            if learnt and self.position.best == float("-inf"):  # the weights it begins with are what is to beat
                self.position.best = self.session.validate(self.index)
                self.on_best()
                self.checkpoint()
        fit(
            self.training_module,
            self.optimizer,
            self.batches,
            self.stage,
            self.session.accelerator,
            self.position,
            average=self.average,
            on_step=self.on_step,
            on_epoch=self.on_epoch,
            on_best=self.on_best,
            checkpoint=self.checkpoint,
            checkpoint_steps=self.session.recipe.checkpoint_steps,
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model holds the averaged weights, if there are any."""
        if self.average is not None:
            self.average.swap()
        yield
        if self.average is not None:
            self.average.swap()

    def checkpoint(self) -> None:
        self.stopwatch.tick()
        others = {} if self.main else {name: value.cpu() for name, value in rng_state(self.rank).items()}
        states = gather_object([others])
        if self.main:
            tensors = checkpoint_tensors(self.session.model, self.optimizer.optimizer, self.objective)
            if self.average is not None:
                tensors |= {f"average.{name}": value for name, value in self.average.shadow.items()}
            if isinstance(self.objective, HasCheckpointState):
                tensors |= self.objective.checkpoint_state()
            for state in states:
                tensors |= state
            scaler = self.session.accelerator.scaler
            save_last(self.session.folder, tensors, self.position, scaler.state_dict() if scaler is not None else None)

    def on_step(self, logs: dict[str, float]) -> None:
        position, batches = self.position, len(self.batches)
        facts = {"stage": self.index, "epoch": position.epoch, "step": position.step, **logs}
        more = {"batch": position.batch, "batches": batches, "epochs": self.stage.epochs, **self.session.progress()}
        self.session.watch("step", facts | more)
        if self.main and (position.step % 50 == 0 or position.batch == batches):
            append_log(self.session.folder, {key: short(value) for key, value in facts.items()})

    def on_epoch(self) -> float | None:
        session = self.session
        for id, reason in gather_object(list(self.batches.unreadable.items())):
            if id not in session.unread:
                session.unread[id] = reason
                session.watch("warning", {"text": f"skipped: {reason}"})
        if self.position.epoch % session.recipe.validation.every and self.position.epoch < self.stage.epochs:
            return None
        self.stopwatch.tick()
        with self.averaged():
            return session.validate(self.index)

    def on_best(self) -> None:
        with self.averaged():
            if self.main:
                save_tensors(self.session.folder / "model.safetensors", run_state_dict(self.session.model))
                if isinstance(self.objective, nn.Module) and self.objective.state_dict():
                    save_objective(self.objective, self.session.folder, self.stage.objective.parameters_name)


class Stopwatch:
    """Adds the wall time since the last tick to a position."""

    def __init__(self, position: Position):
        self.position, self.since = position, time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        self.position.seconds += now - self.since
        self.since = now


def save_last(
    folder: Path, tensors: dict[str, torch.Tensor], position: Position, scaler: dict[str, Any] | None = None
) -> None:
    """Replace the resumable state as a whole.  `scaler` is the state of fp16's loss scaling."""
    metadata = {"position": json.dumps(asdict(position))} | ({"scaler": json.dumps(scaler)} if scaler else {})
    try:
        save_tensors(folder / "last.safetensors", tensors, metadata)
    except OSError as error:
        raise OSError(
            f"the checkpoint in {folder} could not be written ({error}); the previous one is intact: free some space "
            "and continue with --resume"
        ) from error
