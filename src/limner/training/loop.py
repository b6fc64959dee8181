"""fit(): the only training loop.  What is learnt is the objective; the loop knows steps, rates, and when to save."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from limner.core.types import Batch, Loss
from limner.data.batches import TrainingBatches
from limner.models.captioner import Captioner
from limner.objectives import ObjectiveFunction
from limner.runs.recipe import Stage
from limner.training.adabound import AdaBound
from limner.training.rates import parameter_groups
from limner.training.schedules import ReduceOnPlateau, factor


@dataclass
class Position:
    """Where training stands; saved with every checkpoint."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this epoch already used
    step: int = 0  # optimiser steps of this stage
    best: float = float("-inf")  # validation score
    waited: int = 0  # validations since
    rate: float = 1.0  # the plateau schedule's factor
    before: int = 0  # optimiser steps of the earlier stages
    seconds: float = 0.0
    done: bool = False


class TrainingModule(nn.Module):
    """A model and its objective as one module, so that autocast and data-parallel hooks see one forward."""

    def __init__(self, model: Captioner, objective: ObjectiveFunction):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, epoch: int = 0) -> Loss:
        return self.objective(self.model, batch, epoch)


class ExponentialMovingAverage:
    """Exponential moving average of the weights, with a short memory at first (decay min(d, (1 + n) / (10 + n)))."""

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.count = model, decay, 0
        self.shadow = {name: value.detach().clone() for name, value in self._moving()}

    def _moving(self) -> Iterator[tuple[str, Tensor]]:
        """What training changes: trained parameters, and buffers such as BatchNorm's statistics."""
        yield from ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)
        yield from ((name, value) for name, value in self.model.named_buffers() if value.is_floating_point())

    @torch.no_grad()
    def update(self) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, value in self._moving():
            self.shadow[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights with the averaged ones."""
        for name, value in self._moving():
            kept = value.detach().clone()
            value.copy_(self.shadow[name])
            self.shadow[name] = kept


def make_optimizer(model: Captioner, stage: Stage, objective: ObjectiveFunction | None = None) -> torch.optim.Optimizer:
    """The stage's, over `parameter_groups`."""
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
    position: Position,
    *,
    average: ExponentialMovingAverage | None = None,
    on_step: Callable[[dict[str, float]], None] = lambda logs: None,
    on_epoch: Callable[[], float | None] = lambda: None,
    on_best: Callable[[], None] = lambda: None,
    checkpoint: Callable[[], None] = lambda: None,
    checkpoint_steps: int = 1000,
) -> None:
    """Run a stage from `position` to its end, keeping `position` up to date.

    `on_epoch` returns a validation score (or None); `on_best` is called when it is the best so far.  Raises
    FloatingPointError, naming step and media, when the loss is not finite.
    """
    total = -(-len(batches) // stage.accumulate) * stage.epochs
    plateau = ReduceOnPlateau(stage.schedule)
    plateau.best, plateau.waited, plateau.factor = position.best, position.waited, position.rate
    training_module.train()
    while position.epoch < stage.epochs and not position.done:
        for group in _accumulation_groups(batches.epoch(position.epoch, position.batch), stage.accumulate):
            scale = factor(stage.schedule, position.step, total, position.epoch) * plateau.factor
            for parameters in optimizer.param_groups:
                parameters["lr"] = parameters["base"] * scale
            logs = _optimizer_step(training_module, optimizer, group, stage, accelerator, position)
            if average is not None:
                average.update()
            position.step += 1
            position.batch += len(group)
            on_step({**logs, "lr": optimizer.param_groups[0]["lr"]})
            if position.step % checkpoint_steps == 0 and position.batch < len(batches):
                checkpoint()
        position.epoch, position.batch = position.epoch + 1, 0
        score = on_epoch()
        training_module.train()
        if score is not None:
            better = plateau.update(score, position.epoch)
            position.best, position.waited, position.rate = plateau.best, plateau.waited, plateau.factor
            position.done = stage.patience is not None and plateau.waited >= stage.patience
            if better:
                on_best()
        checkpoint()


def _accumulation_groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches whose gradients are accumulated; an epoch's last group may be smaller."""
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
    position: Position,
) -> dict[str, float]:
    """One optimiser step over a group of batches -> mean logs, each of the batches that tell it."""
    found: dict[str, list[float]] = {}
    for index, batch in enumerate(group):
        last = index == len(group) - 1
        with nullcontext() if last else accelerator.no_sync(training_module):
            loss = training_module(batch.to(accelerator.device), position.epoch)
            if not loss.value.isfinite():
                raise FloatingPointError(
                    f"the loss is {loss.value.item()} at step {position.step}; media {batch.ids[:4]}: lower the "
                    "learning rate, clip gradients, or look for NaN in the features of these media"
                )
            accelerator.backward(loss.value / len(group))
        for name, value in {"loss": loss.value.item(), **loss.logs}.items():
            found.setdefault(name, []).append(value)
    logs = {name: sum(values) / len(values) for name, values in found.items()}
    parameters = [parameter for parameter in training_module.parameters() if parameter.requires_grad]
    if stage.clip_value is not None or stage.clip_norm is not None:
        accelerator.unscale_gradients(optimizer)  # once: accelerate's own clipping would do it for each kind of clip
    if stage.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, stage.clip_value)
    if stage.clip_norm is not None:
        logs["grad_norm"] = float(nn.utils.clip_grad_norm_(parameters, stage.clip_norm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return logs
