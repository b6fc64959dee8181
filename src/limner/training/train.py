"""`train`: trains all stages of a recipe into a run folder.

A run that is interrupted and resumed gives the same weights, bit for bit.
"""

import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch

from limner.core.locks import lock_folder
from limner.core.processes import lost_process
from limner.runs.checkpoint import CHECKPOINT
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import check_recipe, load_recipe, recipe_differences
from limner.runs.run import load_run_state_dict, load_weights, start_note
from limner.training.loop import TrainingState
from limner.training.parameter_groups import frozen_parameters, high_lr_warnings
from limner.training.session import Session, TrainingCallback, ignore_events
from limner.training.stage import StageTrainer


def train(
    recipe: Recipe, folder: str | PathLike[str], resume: bool = False, callback: TrainingCallback = ignore_events
) -> Path:
    """Train all stages of `recipe` -> the run folder.

    With `resume`, an interrupted run continues from its last checkpoint.  One process gives the same weights bit for
    bit; several processes (as many as before) do so as far as their reductions are deterministic.  Another number of
    processes continues the run too, and says what changes.  `callback` is called with the name and the facts of each
    event.
    Raises FileExistsError when the folder holds a run and `resume` is False, ValueError when the run was started with
    another recipe or has weights but no checkpoint, LockedError when another process is training in it, ConnectionError
    when another process of this training has ended.
    """
    folder = Path(folder)
    check_recipe(recipe)
    first = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun, which share the folder
    with lock_folder(folder) if first else nullcontext(), lost_process():
        return _train(recipe, folder, resume, callback)


def _train(recipe: Recipe, folder: Path, resume: bool, callback: TrainingCallback) -> Path:
    """`train`, while the lock of the run folder is held."""
    has_checkpoint = check_folder(folder, resume)
    if has_checkpoint:
        before = load_recipe(folder / "recipe.json")
        if changed := recipe_differences(before, replace(recipe, workers=before.workers)):  # any number: the same run
            raise ValueError(
                f"{folder} was started with another recipe, which --resume cannot change: {'; '.join(changed)}"
            )
    was_empty = not _files(folder)
    session = Session(recipe, folder, callback)
    if not session.main:  # the model is that of the first process, but dropout and sampled captions differ
        torch.manual_seed(recipe.seed + session.accelerator.process_index)
    if has_checkpoint:
        session.resume()
    elif session.main:
        (folder / "log.jsonl").unlink(missing_ok=True)  # left by a run that was killed before its first checkpoint
    if resume and not has_checkpoint:
        session.callback("warning", {"text": f"{folder} holds no run to resume: starting a new one"})
    try:
        _train_stages(session)
    except Exception:
        if session.main and was_empty and session.state.previous_steps + session.state.step == 0:
            _empty(folder)  # nothing was trained; the lock removes the folder itself
        raise
    return folder


def _files(folder: Path) -> list[Path]:
    """The files and folders of a run folder, without the lock that training holds."""
    return [path for path in folder.glob("*") if path.name != ".lock"]


def _empty(folder: Path) -> None:
    for path in _files(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_folder(folder: Path, resume: bool) -> bool:
    """Whether a run folder has a checkpoint to resume from.

    Raises FileExistsError when training would overwrite a run, ValueError when a run cannot be resumed.
    """
    checkpoint, model = folder / CHECKPOINT, folder / "model.safetensors"
    if not resume and (checkpoint.is_file() or model.is_file()):
        raise FileExistsError(f"{folder} already holds a run; continue it with --resume or choose another folder")
    if model.is_file() and not checkpoint.is_file():
        raise ValueError(
            f"{folder} has weights but no checkpoint to resume from: there is no {checkpoint.name}, so the run was "
            "converted, or the file was deleted; choose another folder"
        )
    return checkpoint.is_file()


def _train_stages(session: Session) -> None:
    """Train the current stage and those after it."""
    session.callback("start", session.summary())
    for text in high_lr_warnings(session.recipe.stages):
        session.callback("warning", {"text": text})
    for index in range(session.state.stage, len(session.recipe.stages)):
        if index > session.state.stage:  # the next stage starts from the best weights, and has to beat their score
            session.accelerator.wait_for_everyone()  # rank 0 writes them
            load_run_state_dict(session.model, load_weights(session.folder), session.folder / "model.safetensors")
            previous, stages = session.state, session.recipe.stages
            same_size = stages[index].image_size == stages[index - 1].image_size
            best_score = previous.best_score if same_size else float("-inf")  # another size is validated anew
            previous_steps = previous.previous_steps + previous.step
            session.state = TrainingState(
                index,
                best_score=best_score,
                seconds=previous.seconds,
                previous_steps=previous_steps,
                processes=previous.processes,
            )
        with frozen_parameters(session.model, session.recipe.stages[index]):
            StageTrainer(session, index).run()
    skipped = len(session.problems) + len(session.unreadable)
    metric = session.recipe.validation.metric
    facts = {"metric": metric, "best": session.state.best_score, "skipped": skipped, "notes": session.notes()}
    if note := start_note(session.folder, session.recipe):
        session.callback("warning", {"text": note})
    session.callback("end", facts)
