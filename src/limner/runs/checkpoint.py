"""Checkpoints: the file `last.safetensors`, from which an interrupted training resumes.

It holds the weights, the optimiser's moments, the random state of every process, the parameters of an objective that
has some, and the training state (stage, epoch, step ...) as JSON in the metadata.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from limner.core.files import parse_json
from limner.core.migration import migrate_tensors, migrate_training_state
from limner.core.tensors import load_state_strictly, load_tensors, save_tensors

CHECKPOINT = "last.safetensors"


class Checkpoint(NamedTuple):
    """What `last.safetensors` holds."""

    tensors: dict[str, Tensor]
    training_state: dict[str, Any]  # fields of TrainingState
    scaler: dict[str, Any]  # state of the fp16 loss scaler; empty without fp16


def save_checkpoint(
    folder: Path,
    tensors: dict[str, Tensor],
    training_state: Mapping[str, Any],
    scaler: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint of a run folder atomically.

    Raises OSError when it cannot be written; the previous checkpoint is then still there.
    """
    metadata = {"position": json.dumps(training_state)} | ({"scaler": json.dumps(scaler)} if scaler else {})
    try:
        save_tensors(folder / CHECKPOINT, tensors, metadata)
    except OSError as error:
        before = (folder / CHECKPOINT).is_file()
        kept = "the previous one is intact: free some space and continue with --resume"
        raise OSError(
            f"the checkpoint in {folder} could not be written ({error}); "
            f"{kept if before else 'it was the first one: free some space and start again'}"
        ) from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint of a run folder, of any format.

    Raises FileNotFoundError when there is none, ValueError when it is damaged.
    """
    path = folder / CHECKPOINT
    tensors, metadata = load_tensors(path)
    training_state, scaler = (parse_json(metadata.get(name, "{}"), path) for name in ("position", "scaler"))
    if not isinstance(training_state, dict) or not training_state or not isinstance(scaler, dict):
        raise ValueError(f"{path} is no checkpoint of a training: it has no position; take it from a copy")
    return Checkpoint(migrate_tensors(tensors), migrate_training_state(training_state), scaler)


def checkpoint_tensors(
    module: nn.Module, optimizer: torch.optim.Optimizer, objective: object = None
) -> dict[str, Tensor]:
    """Collect the weights, the optimiser's moments and this process's random state in one flat dictionary.

    The names begin with `model.`, `optimizer.`, `rng.` and, for an objective with parameters, `objective.`.
    """
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    if isinstance(objective, nn.Module):
        tensors |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return tensors | rng_state()


def rng_state(rank: int = 0) -> dict[str, Tensor]:
    """Return this process's random state; names of ranks above 0 end in the rank."""
    ending = f".{rank}" if rank else ""
    state = {f"rng.cpu{ending}": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[f"rng.cuda{ending}"] = torch.cuda.get_rng_state()
    return state


def restore_checkpoint(
    tensors: dict[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int = 0,
    objective: object = None,
) -> None:
    """Load what `checkpoint_tensors` collected into a model, its optimiser, its objective and the random generators.

    A process whose rank has no random state in the checkpoint takes that of rank 0.  Raises ValueError when the tensors
    do not fit the model or the objective.
    """
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    load_state_strictly(module, weights, CHECKPOINT)
    if isinstance(objective, nn.Module):
        own = {key.removeprefix("objective."): value for key, value in tensors.items() if key.startswith("objective.")}
        load_state_strictly(objective, own, CHECKPOINT)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    ending = f".{rank}" if f"rng.cpu.{rank}" in tensors else ""
    torch.set_rng_state(tensors[f"rng.cpu{ending}"])
    if f"rng.cuda{ending}" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"rng.cuda{ending}"])
