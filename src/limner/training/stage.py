"""`StageTrainer`: the optimiser, batches and checkpoints of one stage, and the callbacks of `fit`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch
from accelerate.utils import gather_object
from torch import nn

from limner.core.tensors import save_tensors
from limner.data.batches import TrainingBatches
from limner.data.datasets import data_parts
from limner.data.loader import died_workers
from limner.objectives import Context, HasCheckpointState, build_objective
from limner.runs.checkpoint import checkpoint_tensors, restore_checkpoint, rng_state, save_checkpoint
from limner.runs.run import append_log, load_objective, run_state_dict, save_objective
from limner.training.loop import ExponentialMovingAverage, TrainingModule, TrainingState, fit, make_optimizer
from limner.training.session import Session, round_for_log
from limner.training.teachers import load_teacher


class StageTrainer:
    """Trains one stage of a session's recipe."""

    def __init__(self, session: Session, index: int):
        recipe, accelerator = session.recipe, session.accelerator
        self.session, self.index, self.stage, self.state = session, index, recipe.stages[index], session.state
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
            {label: part.share for label, part in data_parts(recipe.data).items()},
            session.loading(),
        )
        session.warn_of_truncated(self.batches.truncated)
        self.objective = build_objective(self.stage.objective, self.context())
        if isinstance(self.objective, nn.Module):  # continues from the parameters of the previous stage or run
            name = self.stage.objective.parameters_name
            if index:
                load_objective(self.objective, session.folder, name)
            elif session.start is not None:
                load_objective(self.objective, session.start.folder, name, session.start.grown.fit)
            self.objective.to(accelerator.device)
        optimizer = make_optimizer(session.model, self.stage, self.objective)
        self.ema = ExponentialMovingAverage(session.model, self.stage.ema_decay) if self.stage.ema_decay else None
        if session.resume_tensors:
            self.restore(optimizer)
        accelerator.free_memory()  # drops the previous stage's optimiser
        self.training_module, self.optimizer = accelerator.prepare(
            TrainingModule(session.model, self.objective), optimizer
        )
        self.stopwatch = Stopwatch(self.state)

    def context(self) -> Context:
        """Return what this stage's objective is built from: data, vocabulary, teacher ..."""
        session, recipe, device = self.session, self.session.recipe, self.session.accelerator.device
        media = session.dataset.split("train")
        teacher, config = None, self.stage.objective
        if config.teacher_run:
            student = (recipe, session.vocabulary, session.media, device)
            teacher = load_teacher(config.teacher_run, *student, config.teacher_side)
        return Context(
            feature_dim=session.feature_dim,
            media=media,
            vocabulary=session.vocabulary,
            warn=lambda text: session.callback("warning", {"text": text}),
            student=session.model,
            sample=lambda: self.batches.batch(self.batches.order(0)[:1]).to(device),
            augmentations=recipe.augmentations,
            teacher=teacher,
            batches_done=self.state.epoch * len(self.batches) + self.state.batch,
        )

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Load the session's checkpoint and clear it, since later stages start from the best weights."""
        session, tensors = self.session, self.session.resume_tensors
        without_average = {name: value for name, value in tensors.items() if not name.startswith("average.")}
        restore_checkpoint(without_average, session.model, optimizer, self.rank, self.objective)
        if self.ema is not None:
            for name, value in self.ema.shadow.items():  # copied in place: they stay on the model's device
                value.copy_(tensors[f"average.{name}"])
            self.ema.updates = self.state.step
        if isinstance(self.objective, HasCheckpointState):
            self.objective.restore_checkpoint_state(tensors)
        if session.scaler and session.accelerator.scaler is not None:
            session.accelerator.scaler.load_state_dict(session.scaler)
        session.resume_tensors = {}

    def run(self) -> None:
        """Train the stage from the session's training state to its end."""
        if self.state.step == 0:
            self.checkpoint()  # written first: model.safetensors may only change when there is a state to resume from
            pretrained = self.index > 0 or bool(self.session.recipe.start)
            if pretrained and self.state.best_score == float("-inf"):  # the initial weights are the best ones so far
                self.state.best_score = self.session.validate(self.index)
                self.on_best()
                self.checkpoint()
        try:
            with died_workers():
                fit(
                    self.training_module,
                    self.optimizer,
                    self.batches,
                    self.stage,
                    self.session.accelerator,
                    self.state,
                    ema=self.ema,
                    on_step=self.on_step,
                    on_epoch=self.on_epoch,
                    on_best=self.on_best,
                    checkpoint=self.checkpoint,
                    checkpoint_steps=self.session.recipe.checkpoint_steps,
                )
        finally:
            self.batches.close()

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Context manager in which the model holds the averaged weights, if the stage averages them."""
        if self.ema is not None:
            self.ema.swap()
        try:
            yield
        finally:
            if self.ema is not None:
                self.ema.swap()

    def checkpoint(self) -> None:
        """Save the checkpoint; all processes call it, since it holds the random state of each."""
        self.stopwatch.tick()
        # rank 0's random state is among checkpoint_tensors
        local_rng = {} if self.main else {name: value.cpu() for name, value in rng_state(self.rank).items()}
        rng_states = gather_object([local_rng])
        if self.main:
            tensors = checkpoint_tensors(self.session.model, self.optimizer.optimizer, self.objective)
            if self.ema is not None:
                tensors |= {f"average.{name}": value for name, value in self.ema.shadow.items()}
            if isinstance(self.objective, HasCheckpointState):
                tensors |= self.objective.checkpoint_state()
            for states in rng_states:
                tensors |= states
            scaler = self.session.accelerator.scaler
            scaler_state = scaler.state_dict() if scaler is not None else None
            save_checkpoint(self.session.folder, tensors, asdict(self.state), scaler_state)

    def on_step(self, logs: dict[str, float]) -> None:
        """Pass the logs of a step to the training callback; every 50th step goes into log.jsonl too."""
        state, batches = self.state, len(self.batches)
        facts = {"stage": self.index, "epoch": state.epoch, "step": state.step, **logs}
        more = {"batch": state.batch, "batches": batches, "epochs": self.stage.epochs, **self.session.progress()}
        self.session.callback("step", facts | more)
        if self.main and (state.step % 50 == 0 or state.batch == batches):
            append_log(self.session.folder, {key: round_for_log(value) for key, value in facts.items()})

    def on_epoch(self) -> float | None:
        """Report media that could not be read, and validate when it is due -> the score, or None."""
        session = self.session
        for id, reason in gather_object(list(self.batches.unreadable.items())):
            if id not in session.unreadable:
                session.unreadable[id] = reason
                session.callback("warning", {"text": f"skipped: {reason}"})
        if self.state.epoch % session.recipe.validation.every and self.state.epoch < self.stage.epochs:
            return None
        self.stopwatch.tick()
        with self.averaged_weights():
            return session.validate(self.index)

    def on_best(self) -> None:
        """Save the weights as the run's best ones, with the parameters of an objective that has some."""
        with self.averaged_weights():
            if self.main:
                save_tensors(self.session.folder / "model.safetensors", run_state_dict(self.session.model))
                if isinstance(self.objective, nn.Module) and self.objective.state_dict():
                    save_objective(self.objective, self.session.folder, self.stage.objective.parameters_name)


class Stopwatch:
    """Adds wall time to `TrainingState.seconds`."""

    def __init__(self, state: TrainingState):
        self.state, self.last_tick = state, time.monotonic()

    def tick(self) -> None:
        """Add the seconds since the last call (or since construction)."""
        now = time.monotonic()
        self.state.seconds += now - self.last_tick
        self.last_tick = now
