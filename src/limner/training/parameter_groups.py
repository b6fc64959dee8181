"""Parameter groups of the optimiser: learning rates for the parts of a captioner, and frozen parts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from limner.models.captioner import Captioner, FromPixels
from limner.objectives import ObjectiveFunction
from limner.runs.recipe import Stage

# their steps are about as large as the learning rate, whatever the size of the gradient
ADAPTIVE_OPTIMIZERS = ("adam", "adamw", "amsgrad", "adabound", "rmsprop")


def parameter_groups(
    model: Captioner, stage: Stage, objective: ObjectiveFunction | None = None
) -> list[dict[str, Any]]:
    """Return the optimiser's parameter groups for a stage.

    The first group is the captioner and the objective at `lr`, then come the parts that `lr_scale` names at their
    multiples of `lr`, and last an encoder's trainable blocks at `encoder_lr`.  Parameters with the factor 0 are in no
    group.  Raises ValueError when no parameter is left to train.
    """
    encoder = list(model.encoder.parameters()) if isinstance(model, FromPixels) else []
    encoder_ids = {id(parameter) for parameter in encoder}
    scales = {id(parameter): factor for parameter, factor in matched_lr_scales(model, stage.lr_scale)}
    by_factor: dict[float, list[nn.Parameter]] = {1.0: []}  # the first group is the one whose rate is logged
    for parameter in model.parameters():
        if id(parameter) not in encoder_ids:
            by_factor.setdefault(scales.get(id(parameter), 1.0), []).append(parameter)
    by_factor[1.0] += objective.parameters() if isinstance(objective, nn.Module) else []
    by_factor.pop(0.0, None)
    groups = [(stage.lr, factor, parameters) for factor, parameters in by_factor.items()]
    if trained := [parameter for parameter in encoder if parameter.requires_grad]:
        groups.append((stage.encoder_lr, 1.0, trained))
    if not any(parameters for *_, parameters in groups):
        raise ValueError(f"lr_scale {stage.lr_scale} leaves no parameter to train: give some part a factor above 0")
    return [  # only adabound reads final_lr
        {"params": parameters, "lr": lr * factor, "base_lr": lr * factor, "final_lr": stage.final_lr * factor}
        for lr, factor, parameters in groups
    ]


def matched_lr_scales(model: Captioner, lr_scale: Mapping[str, float]) -> list[tuple[nn.Parameter, float]]:
    """Return (parameter, factor) for each captioner parameter that a dotted prefix in `lr_scale` matches.

    Where several prefixes match, the longest one counts.  Raises ValueError for a prefix that matches no parameter.
    """
    captioner = model.captioner if isinstance(model, FromPixels) else model
    parameters = dict(captioner.named_parameters())
    for prefix in lr_scale:
        if not any(_starts_with(name, prefix) for name in parameters):
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in parameters))
            raise ValueError(f"lr_scale: no parameter of the captioner is called '{prefix}'; its parts are {parts}")
    matched = []
    for name, parameter in parameters.items():
        prefixes = [prefix for prefix in lr_scale if _starts_with(name, prefix)]
        if prefixes:
            matched.append((parameter, lr_scale[max(prefixes, key=len)]))
    return matched


def _starts_with(name: str, prefix: str) -> bool:
    """Compare whole parts between dots: `layers.1` is no prefix of `layers.10`."""
    return f"{name}.".startswith(f"{prefix}.")


def check_lr_scales(model: Captioner, stages: Sequence[Stage]) -> None:
    """Check `lr_scale` of all stages before any is trained.  Raises ValueError, which names the stage."""
    for index, stage in enumerate(stages):
        try:
            matched_lr_scales(model, stage.lr_scale)
        except ValueError as error:
            raise ValueError(f"stages.{index}.{error}") from error


@contextmanager
def frozen_parameters(model: Captioner, stage: Stage) -> Iterator[None]:
    """Context manager in which parameters that `stage` does not train require no gradient.

    They are those with the factor 0 in `lr_scale`, and the encoder's when `encoder_lr` is 0.  The backward pass stops
    before a frozen encoder, and data-parallel training does not wait for gradients that never come.
    """
    frozen = [parameter for parameter, factor in matched_lr_scales(model, stage.lr_scale) if factor == 0]
    if stage.encoder_lr == 0 and isinstance(model, FromPixels):
        frozen += model.encoder.parameters()
    frozen = [parameter for parameter in frozen if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def high_lr_warnings(stages: Sequence[Stage]) -> list[str]:
    """Return a warning for each stage with a learning rate above its objective's `highest_lr`."""
    return [
        f"stages.{index}.lr is {stage.lr:g}: with {stage.optimizer} the objective {stage.objective.name} usually takes "
        f"at most {stage.objective.highest_lr / 5:g}; a higher rate destroys what was learnt before"
        for index, stage in enumerate(stages)
        if stage.objective.highest_lr is not None
        and stage.optimizer in ADAPTIVE_OPTIMIZERS
        and stage.lr > stage.objective.highest_lr
    ]
