"""`fit`: the training loop of one stage.

The objective computes the loss; the loop takes optimiser steps, sets learning rates, validates and saves checkpoints.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from limner.core.processes import average_over_processes
from limner.core.types import Batch, Loss
from limner.data.batches import TrainingBatches
from limner.models.captioner import Captioner
from limner.objectives import ObjectiveFunction
from limner.runs.recipe import Stage
from limner.training.adabound import AdaBound
from limner.training.parameter_groups import parameter_groups
from limner.training.schedules import ReduceOnPlateau, lr_factor
from limner.training.signals import HeldSignals


@dataclass
class TrainingState:
    """Progress of a training run; saved with every checkpoint."""

    stage: int = 0  # index of the current stage
    epoch: int = 0  # completed epochs of this stage
    batch: int = 0  # batches of this epoch already used
    step: int = 0  # optimiser steps of this stage
    best_score: float = float("-inf")  # best validation score so far
    bad_validations: int = 0  # validations since the best score
    plateau_factor: float = 1.0  # factor of the learning rate from the plateau schedule
    previous_steps: int = 0  # optimiser steps of the earlier stages
    seconds: float = 0.0  # wall time of training
    processes: int = 0  # that trained together last; 0: not known
    done: bool = False  # the stage was stopped early (patience)


class TrainingModule(nn.Module):
    """A model and its objective as one module: autocast and data-parallel hooks need a single `forward`."""

    def __init__(self, model: Captioner, objective: ObjectiveFunction):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, epoch: int = 0) -> Loss:
        """Compute the loss of a batch; `epoch` counts from 0."""
        return self.objective(self.model, batch, epoch)


class ExponentialMovingAverage:
    """Exponential moving average of the weights: shadow <- d_n * shadow + (1 - d_n) * weight after step n.

    d_n = min(decay, (1 + n) / (10 + n)): the first averages follow the weights closely.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.updates = model, decay, 0
        self.shadow = {name: value.detach().clone() for name, value in self._averaged_tensors()}

    def _averaged_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Trained parameters, and floating-point buffers (for example BatchNorm's running statistics)."""
        yield from ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)
        yield from ((name, value) for name, value in self.model.named_buffers() if value.is_floating_point())

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current weights; called after each optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in self._averaged_tensors():
            self.shadow[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the averaged weights; a second call undoes the first."""
        for name, value in self._averaged_tensors():
            current = value.detach().clone()
            value.copy_(self.shadow[name])
            self.shadow[name] = current


def make_optimizer(model: Captioner, stage: Stage, objective: ObjectiveFunction | None = None) -> torch.optim.Optimizer:
    """Build the optimiser of a stage over `parameter_groups`."""
    groups = parameter_groups(model, stage, objective)
    shared: dict[str, Any] = {"weight_decay": stage.weight_decay}
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=stage.momentum, nesterov=stage.nesterov, **shared)
    if stage.eps is not None:
        shared["eps"] = stage.eps
    if stage.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=stage.betas[1], **shared)
    if stage.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, **shared)
    shared["betas"] = stage.betas
    if stage.optimizer == "adabound":
        return AdaBound(groups, final_lr=stage.final_lr, **shared)
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(groups, **shared)
    return torch.optim.Adam(groups, amsgrad=stage.optimizer == "amsgrad", **shared)


def fit(
    training_module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: TrainingBatches,
    stage: Stage,
    accelerator: Accelerator,
    state: TrainingState,
    *,
    ema: ExponentialMovingAverage | None = None,
    on_step: Callable[[dict[str, float]], None] = lambda logs: None,
    on_epoch: Callable[[], float | None] = lambda: None,
    on_best: Callable[[], None] = lambda: None,
    checkpoint: Callable[[], None] = lambda: None,
    checkpoint_steps: int = 1000,
) -> None:
    """Train a stage from `state` to its end; `state` is updated in place.

    `training_module` returns the Loss of (batch, epoch), as `TrainingModule` does.  After each optimiser step `on_step`
    gets the logs.  After each epoch `on_epoch` returns a validation score (None: no validation); `on_best` is called
    when it is the best so far.  `checkpoint` is called after every `checkpoint_steps` steps and after every epoch.
    Ctrl-C and SIGTERM wait for the end of a step, and `checkpoint` is called before they end the training of a single
    process.  Raises FloatingPointError, which names the step and the media, when the loss is not finite.
    """
    total = -(-len(batches) // stage.accumulate) * stage.epochs
    plateau = ReduceOnPlateau(stage.schedule)
    plateau.best, plateau.bad_validations, plateau.factor = (
        state.best_score,
        state.bad_validations,
        state.plateau_factor,
    )
    training_module.train()
    with _exact_interrupts(checkpoint, accelerator) as signals:
        while state.epoch < stage.epochs and not state.done:
            for group in _accumulation_groups(batches.epoch(state.epoch, state.batch), stage.accumulate):
                signals.hold()
                scale = lr_factor(stage.schedule, state.step, total, state.epoch) * plateau.factor
                for parameters in optimizer.param_groups:
                    parameters["lr"] = parameters["base_lr"] * scale
                logs = _optimizer_step(training_module, optimizer, group, stage, accelerator, state)
                if ema is not None:
                    ema.update()
                state.step += 1
                state.batch += len(group)
                on_step({**logs, "lr": optimizer.param_groups[0]["lr"]})
                signals.release()
                if state.step % checkpoint_steps == 0 and state.batch < len(batches):
                    checkpoint()
            with _count_epoch(state, len(batches)):
                score = on_epoch()
                signals.hold()
            training_module.train()
            if score is not None:
                better = plateau.update(score, state.epoch)
                state.best_score, state.bad_validations, state.plateau_factor = (
                    plateau.best,
                    plateau.bad_validations,
                    plateau.factor,
                )
                state.done = stage.patience is not None and plateau.bad_validations >= stage.patience
                if better:
                    on_best()
            checkpoint()
            signals.release()


@contextmanager
def _exact_interrupts(checkpoint: Callable[[], None], accelerator: Accelerator) -> Iterator[HeldSignals]:
    """Context manager that calls `checkpoint` when Ctrl-C or SIGTERM ends the training between two steps.

    Several processes would have to stop at the same step; they keep their last checkpoint.
    """
    with HeldSignals() as signals:
        try:
            yield signals
        except KeyboardInterrupt:
            if not signals.holding and accelerator.num_processes == 1:  # holding: half a step was made
                checkpoint()
            raise


@contextmanager
def _count_epoch(state: TrainingState, batches: int) -> Iterator[None]:
    """Context manager for the validation after an epoch; when it is interrupted, the epoch has still to be ended."""
    state.epoch, state.batch = state.epoch + 1, 0
    try:
        yield
    except KeyboardInterrupt:
        state.epoch, state.batch = state.epoch - 1, batches
        raise


def _accumulation_groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of `size` batches, the batches of one optimiser step; the last list of an epoch may be shorter."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _optimizer_step(
    training_module: nn.Module,
    optimizer: torch.optim.Optimizer,
    group: Sequence[Batch],
    stage: Stage,
    accelerator: Accelerator,
    state: TrainingState,
) -> dict[str, float]:
    """Take one optimiser step over a group of batches -> each log's mean over the batches that have it."""
    logged: dict[str, list[float]] = {}
    for index, batch in enumerate(group):
        last = index == len(group) - 1
        with nullcontext() if last else accelerator.no_sync(training_module):
            loss = training_module(batch.to(accelerator.device), state.epoch)
            if not loss.value.isfinite():
                raise FloatingPointError(
                    f"the loss is {loss.value.item()} at step {state.step}; media {batch.ids[:4]}: lower the "
                    "learning rate, clip gradients, or look for NaN in the features of these media"
                )
            accelerator.backward(loss.value / len(group))
        for name, value in {"loss": loss.value.item(), **loss.logs}.items():
            logged.setdefault(name, []).append(value)
    means = {name: sum(values) / len(values) for name, values in logged.items()}
    logs = average_over_processes(means, accelerator.device)
    parameters = [parameter for parameter in training_module.parameters() if parameter.requires_grad]
    if stage.clip_value is not None or stage.clip_norm is not None:
        accelerator.unscale_gradients(optimizer)  # once; accelerate's clipping functions would unscale at each call
    if stage.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, stage.clip_value)
    if stage.clip_norm is not None:
        logs["grad_norm"] = float(nn.utils.clip_grad_norm_(parameters, stage.clip_norm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return logs
