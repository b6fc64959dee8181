"""train(): a recipe and a folder in, a run out; interrupted and resumed it gives the same weights to the bit."""

from os import PathLike
from pathlib import Path

from limner.runs.recipe import Recipe, changes, check_recipe, load_recipe
from limner.runs.run import load_weights, load_run_state_dict
from limner.training.loop import Position
from limner.training.rates import frozen_parameters, high_lr_warnings
from limner.training.session import Session, TrainingCallback, ignore_events
from limner.training.stage import StageTrainer


def train(recipe: Recipe, folder: str | PathLike[str], resume: bool = False, watch: TrainingCallback = ignore_events) -> Path:
    """Train all stages of `recipe` into the run folder `folder`.

    With `resume` an interrupted run goes on from its last checkpoint: bit for bit in one process; with several, as
    exactly as their reductions repeat, and with as many as before.  Raises FileExistsError when the folder holds a run
    and `resume` is not asked for, ValueError when it was started with another recipe or has nothing to resume from.
    """
    folder = Path(folder)
    check_recipe(recipe)
    begun = _begun(folder, resume)
    if begun and (changed := changes(load_recipe(folder / "recipe.json"), recipe)):
        raise ValueError(
            f"{folder} was started with another recipe, which --resume cannot change: {'; '.join(changed)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(recipe, folder, watch)
    if begun:
        session.resume()
    elif session.main:
        (folder / "log.jsonl").unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
    if resume and not begun:
        session.watch("warning", {"text": f"{folder} holds no run to resume: starting anew"})
    _run(session)
    return folder


def _begun(folder: Path, resume: bool) -> bool:
    """Is there a state to go on from?  Raises when training would overwrite a run, or cannot resume one."""
    last, model = folder / "last.safetensors", folder / "model.safetensors"
    if not resume and (last.is_file() or model.is_file()):
        raise FileExistsError(f"{folder} already holds a run; continue it with --resume or choose another folder")
    if model.is_file() and not last.is_file():
        raise ValueError(
            f"{folder} has weights but no resumable state: it has no {last.name}, so it was converted or has been "
            "tidied up; choose another folder"
        )
    return last.is_file()


def _run(session: Session) -> None:
    """The stages that are left."""
    session.watch("start", session.facts())
    for text in high_lr_warnings(session.recipe.stages):
        session.watch("warning", {"text": text})
    for index in range(session.position.stage, len(session.recipe.stages)):
        if index > session.position.stage:  # the next stage starts from the best weights, which it has to beat
            session.accelerator.wait_for_everyone()  # the first process writes them
            load_run_state_dict(session.model, load_weights(session.folder), session.folder / "model.safetensors")
            done, stages = session.position, session.recipe.stages
            best = (
                done.best if stages[index].image_size == stages[index - 1].image_size else float("-inf")
            )  # asked anew
            session.position = Position(index, best=best, seconds=done.seconds, before=done.before + done.step)
        with frozen_parameters(session.model, session.recipe.stages[index].lr_scale):
            StageTrainer(session, index).run()
    skipped = len(session.problems) + len(session.unread)
    metric = session.recipe.validation.metric
    session.watch("end", {"metric": metric, "best": session.position.best, "skipped": skipped})
