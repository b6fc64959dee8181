"""How fast the parts of a captioner learn in a stage, and which do not learn at all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from limner.models.captioner import Captioner, FromPixels
from limner.objectives import ObjectiveFunction
from limner.runs.recipe import Stage

ADAPTIVE_OPTIMIZERS = ("adam", "adamw", "amsgrad", "adabound", "rmsprop")


def parameter_groups(
    model: Captioner, stage: Stage, objective: ObjectiveFunction | None = None
) -> list[dict[str, Any]]:
    """Captioner and objective at `lr`, then what `lr_scale` names, then an encoder's trainable blocks at `encoder_lr`.

    Raises ValueError when nothing is left to learn.
    """
    encoder = list(model.encoder.parameters()) if isinstance(model, FromPixels) else []
    theirs = {id(parameter) for parameter in encoder}
    named = {id(parameter): factor for parameter, factor in matched_lr_scales(model, stage.lr_scale)}
    own: dict[float, list[nn.Parameter]] = {1.0: []}  # by their factor; the first group, whose rate is logged
    for parameter in model.parameters():
        if id(parameter) not in theirs:
            own.setdefault(named.get(id(parameter), 1.0), []).append(parameter)
    own[1.0] += objective.parameters() if isinstance(objective, nn.Module) else []
    own.pop(0.0, None)
    groups = [(stage.lr, factor, parameters) for factor, parameters in own.items()]
    if trained := [parameter for parameter in encoder if parameter.requires_grad]:
        groups.append((stage.encoder_lr, 1.0, trained))
    if not any(parameters for *_, parameters in groups):
        raise ValueError(f"lr_scale {stage.lr_scale} leave nothing to learn: give some part a factor above 0")
    return [  # adabound alone reads final_lr
        {"params": parameters, "lr": lr * factor, "base": lr * factor, "final_lr": stage.final_lr * factor}
        for lr, factor, parameters in groups
    ]


def matched_lr_scales(model: Captioner, rates: Mapping[str, float]) -> list[tuple[nn.Parameter, float]]:
    """The captioner's parameters that begin with one of the dotted names in `lr_scale`, each with its factor: that
    of the longest such name.

    Raises ValueError for a name that no parameter begins with.
    """
    captioner = model.captioner if isinstance(model, FromPixels) else model
    named = dict(captioner.named_parameters())
    for prefix in rates:
        if not any(_starts_with(name, prefix) for name in named):
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in named))
            raise ValueError(f"lr_scale: no parameter of the captioner is called '{prefix}'; its parts are {parts}")
    found = []
    for name, parameter in named.items():
        fitting = [prefix for prefix in rates if _starts_with(name, prefix)]
        if fitting:
            found.append((parameter, rates[max(fitting, key=len)]))
    return found


def _starts_with(name: str, prefix: str) -> bool:
    """Name by name, so that layer 1 is not layer 10."""
    return f"{name}.".startswith(f"{prefix}.")


def check_lr_scales(model: Captioner, stages: Sequence[Stage]) -> None:
    """Raises ValueError, naming the stage, before any is trained."""
    for index, stage in enumerate(stages):
        try:
            matched_lr_scales(model, stage.lr_scale)
        except ValueError as error:
            raise ValueError(f"stages.{index}.{error}") from error


@contextmanager
def frozen_parameters(model: Captioner, rates: Mapping[str, float]) -> Iterator[None]:
    """Parameters whose factor is 0 need no gradient meanwhile, which several processes would wait for."""
    still = [parameter for parameter, factor in matched_lr_scales(model, rates) if factor == 0 and parameter.requires_grad]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)


def high_lr_warnings(stages: Sequence[Stage]) -> list[str]:
    """A sentence for each stage whose rate is above its objective's `highest_lr`."""
    return [
        f"stages.{index}.lr is {stage.lr:g}: with {stage.optimizer} the objective {stage.objective.name} usually takes "
        f"at most {stage.objective.highest_lr / 5:g}, and a higher rate spoils what was learnt before"
        for index, stage in enumerate(stages)
        if stage.objective.highest_lr is not None
        and stage.optimizer in ADAPTIVE_OPTIMIZERS
        and stage.lr > stage.objective.highest_lr
    ]
