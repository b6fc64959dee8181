"""train(): a recipe and a folder in, a run out; interrupted and resumed it gives the same weights to the bit."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn

from limner.data.batches import TrainingBatches
from limner.data.dataset import DataSet
from limner.data.datasets import read_dataset
from limner.decode.generate import generate
from limner.decode.search import Beam
from limner.encoders import Pretrained
from limner.files import read_json, write_text
from limner.inputs import open_inputs
from limner.metrics.references import References
from limner.metrics.report import METRICS, Report, evaluate
from limner.models import build_model
from limner.models.captioner import Captioner
from limner.objectives import build_objective
from limner.recipe import Recipe, changes, check_recipe, load_recipe
from limner.run import (
    RunInfo,
    append_log,
    create_run,
    load_objective,
    load_tensors,
    pack_state,
    put_weights,
    random_state,
    save_objective,
    save_tensors,
    unpack_state,
    weights_of,
)
from limner.text.clip_bpe import read_clip
from limner.text.vectors import load_vectors
from limner.text.vocabulary import Vocabulary
from limner.train.loop import Average, Learner, Position, fit, make_optimizer
from limner.types import Medium

# told of every "start", "step", "validation", "warning", and of the "end"; in the first process only
Watch = Callable[[str, dict[str, Any]], None]


def silent(event: str, facts: dict[str, Any]) -> None:
    """A watch that says nothing."""


def train(recipe: Recipe, folder: str | Path, resume: bool = False, watch: Watch = silent) -> Path:
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
    session = _Session(recipe, folder, watch)
    if begun:
        session.resume()
    elif session.main:
        (folder / "log.jsonl").unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
    if resume and not begun:
        session.watch("warning", {"text": f"{folder} holds no run to resume: starting anew"})
    session.run()
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


def _accelerator(precisions: set[str]) -> Accelerator:
    if len(precisions) > 1:
        raise ValueError("all stages of a recipe share one precision")
    (precision,) = precisions
    if precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("stages.0.precision: fp16 needs CUDA; use bf16 or fp32")
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state()  # it would hold every training of this process to the first one's precision
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=not torch.cuda.is_available())


class _Session:
    """What the stages of one run share."""

    def __init__(self, recipe: Recipe, folder: Path, watch: Watch):
        self.recipe, self.folder = recipe, folder
        self.accelerator = _accelerator({stage.precision for stage in recipe.stages})
        self.main = self.accelerator.is_main_process
        self.watch = watch if self.main else silent
        self.dataset = read_dataset(recipe.data)
        set_seed(recipe.seed)
        self.vocabulary = build_vocabulary(recipe, self.dataset)
        if recipe.validation.metric not in METRICS:
            raise ValueError(f"unknown metric '{recipe.validation.metric}'; known are {', '.join(METRICS)}")
        self.inputs = open_inputs(recipe)
        encoder = self.inputs.encoder
        info = RunInfo(self.inputs.dim, self.inputs.provenance(), self.inputs.trained)
        self.feature_dim = info.feature_dim
        model = build_model(recipe.model, len(self.vocabulary), info.feature_dim)
        if recipe.vocabulary.vectors:
            found = load_vectors(recipe.vocabulary.vectors, self.vocabulary, model.get_submodule("embed"))
            self.watch("start", {"word vectors found": found, "words": len(self.vocabulary)})
        self.model: Captioner = self.inputs.read_by(model)
        if recipe.start:
            weights = Path(recipe.start) / "model.safetensors"
            tensors, _ = load_tensors(weights)
            put_weights(self.model, tensors, weights)
            if self.inputs.stored and read_json(Path(recipe.start) / "run.json").get("encoder_trained"):
                text = f"the encoder of {recipe.start} was trained along with its captioner: {recipe.features} must be "
                self.watch("warning", {"text": text + f"features of that encoder (limner extract {recipe.start})"})
        self.model.to(self.accelerator.device)
        self.problems = list(self.dataset.problems)
        self.media, self.validation = self._media()
        self.references = References({m.id: m.references for m in self.validation})
        # METEOR needs an extra, and is computed in validations only where it is what chooses
        self.metrics = {n: m for n, m in METRICS.items() if n != "METEOR" or recipe.validation.metric == n}
        self.unread: dict[str, str] = {}  # training media that could not be read, and why
        self.position = Position()
        self.restored: dict[str, Tensor] = {}
        self.scaler: dict[str, Any] = {}
        if self.main:
            create_run(folder, recipe, self.vocabulary, info)
            if isinstance(encoder, Pretrained) and info.encoder_trained:
                encoder.save(folder / "encoder")

    def _media(self) -> tuple[list[Medium], list[Medium]]:
        """Training and validation media that can be used; what is wrong with the others joins `problems`."""
        media = self.dataset.split("train")
        if self.inputs.stored:  # raw training media are checked as they are read
            media, problems = self.inputs.usable(media, self.recipe.views)
            self.problems += problems
        asked = self.dataset.split(self.recipe.validation.split)[: self.recipe.validation.limit]
        validation, problems = self.inputs.usable([medium for medium in asked if medium.references])
        self.problems += problems
        return media, validation

    def _facts(self) -> dict[str, Any]:
        return {
            "training media": len(self.media),
            "captions": sum(len(medium.references) for medium in self.media),
            "validation media": len(self.references.ids),
            "words": len(self.vocabulary),
            "total_step": self.position.before + self.position.step,
            "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "problems": self.problems,
            "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
        }

    def resume(self) -> None:
        """Read the last checkpoint and forget log lines written after it."""
        self.restored, metadata = load_tensors(self.folder / "last.safetensors")
        self.position = Position(**json.loads(metadata["position"]))
        self.scaler = json.loads(metadata.get("scaler", "{}"))
        log = self.folder / "log.jsonl"
        if self.main and log.is_file():
            rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            here = (self.position.stage, self.position.step)
            kept = [row for row in rows if (row.get("stage", 0), row.get("step", 0)) <= here]
            write_text(log, "".join(json.dumps(row) + "\n" for row in kept))

    def run(self) -> None:
        self.watch("start", self._facts())
        for index in range(self.position.stage, len(self.recipe.stages)):
            if index > self.position.stage:  # the next stage starts from the best weights, which it has to beat
                self.accelerator.wait_for_everyone()  # the first process writes them
                tensors, _ = load_tensors(self.folder / "model.safetensors")
                put_weights(self.model, tensors, self.folder / "model.safetensors")
                done = self.position
                self.position = Position(index, best=done.best, seconds=done.seconds, before=done.before + done.step)
            _StageRun(self, index).run()
        self.watch(
            "end",
            {
                "metric": self.recipe.validation.metric,
                "best": self.position.best,
                "skipped": len(self.problems) + len(self.unread),
            },
        )

    def progress(self) -> dict[str, int]:
        """What a watch is told beside the facts that are logged."""
        return {"stages": len(self.recipe.stages), "total_step": self.position.before + self.position.step}

    def validate(self, stage: int) -> float:
        """Free-running captions of the validation split, scored; every rank decodes its share."""
        media = self.validation
        mine = media[self.accelerator.process_index :: self.accelerator.num_processes]
        decoding = self.recipe.decoding
        options = Beam(
            self.recipe.validation.beam, decoding.length_penalty, decoding.rules, normalise=decoding.normalise
        )
        together = self.inputs.together(mine)
        found = generate(self.model, mine, self.inputs.reader, self.vocabulary, options, together)
        captions = dict(gather_object(list(found.items())))
        report = evaluate(captions, self.references, self.metrics)
        score = report.scores[self.recipe.validation.metric]
        facts = {
            "stage": stage,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "split": self.recipe.validation.split,
        }
        facts |= {name: _short(value) for name, value in report.scores.items()}
        facts |= {"distinct": report.distinct, "seconds": round(self.position.seconds, 1)}
        if self.main:
            append_log(self.folder, facts)
        more = {"metric": self.recipe.validation.metric, "example": captions[media[0].id], **self.progress()}
        self.watch("validation", facts | more)
        warning = collapse(report, len(media))
        if warning:
            self.watch("warning", {"text": warning})
        return score


class _StageRun:
    """One stage: its optimiser, batches and average, and what `fit` calls back."""

    def __init__(self, session: _Session, index: int):
        recipe, accelerator = session.recipe, session.accelerator
        self.session, self.index, self.stage, self.position = session, index, recipe.stages[index], session.position
        self.main, self.rank = session.main, accelerator.process_index
        self.objective = build_objective(
            self.stage.objective,
            getattr(recipe.model, "hidden", 0),  # only models with such states can be reconstructed from
            session.feature_dim,
            session.dataset.split("train"),
            session.vocabulary,
            lambda text: session.watch("warning", {"text": text}),
        )
        if isinstance(self.objective, nn.Module):  # goes on where the stage or run before has left it
            before = str(session.folder) if index else recipe.start
            load_objective(self.objective, before, self.stage.objective.name)
            self.objective.to(accelerator.device)
        optimizer = make_optimizer(session.model, self.stage, self.objective)
        self.average = Average(session.model, self.stage.average) if self.stage.average else None
        if session.restored:
            self.restore(optimizer)
        accelerator.free_memory()  # the optimiser of the stage before
        self.learner, self.optimizer = accelerator.prepare(Learner(session.model, self.objective), optimizer)
        self.batches = TrainingBatches(
            session.media,
            session.vocabulary,
            session.inputs.reader,
            self.stage.batch_size,
            recipe.seed + 1000 * index,
            recipe.views,
            recipe.vocabulary.max_words,
            self.stage.captions,
            self.rank,
            accelerator.num_processes,
            recipe.sampling.policy == "random",
        )
        self.clock = _Clock(self.position)

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over the session's checkpoint, once."""
        session, tensors = self.session, self.session.restored
        state = {name: value for name, value in tensors.items() if not name.startswith("average.")}
        unpack_state(state, session.model, optimizer, self.rank, self.objective)
        if self.average is not None:
            for name, value in self.average.shadow.items():  # copied, so that they lie where the model lies
                value.copy_(tensors[f"average.{name}"])
            self.average.count = self.position.step
        if session.scaler and session.accelerator.scaler is not None:
            session.accelerator.scaler.load_state_dict(session.scaler)
        session.restored = {}

    def run(self) -> None:
        if self.position.step == 0:
            self.checkpoint()  # from now on there is always a state to resume from, also once better weights are kept
        fit(
            self.learner,
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
        self.clock.tick()
        others = {} if self.main else {name: value.cpu() for name, value in random_state(self.rank).items()}
        states = gather_object([others])
        if self.main:
            tensors = pack_state(self.session.model, self.optimizer.optimizer, self.objective)
            if self.average is not None:
                tensors |= {f"average.{name}": value for name, value in self.average.shadow.items()}
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
            append_log(self.session.folder, {key: _short(value) for key, value in facts.items()})

    def on_epoch(self) -> float | None:
        session = self.session
        for id, reason in gather_object(list(self.batches.problems.items())):
            if id not in session.unread:
                session.unread[id] = reason
                session.watch("warning", {"text": f"skipped: {reason}"})
        if self.position.epoch % session.recipe.validation.every and self.position.epoch < self.stage.epochs:
            return None
        self.clock.tick()
        with self.averaged():
            return session.validate(self.index)

    def on_best(self) -> None:
        with self.averaged():
            if self.main:
                save_tensors(self.session.folder / "model.safetensors", weights_of(self.session.model))
                if isinstance(self.objective, nn.Module):
                    save_objective(self.objective, self.session.folder, self.stage.objective.name)


class _Clock:
    """Adds the wall time since the last tick to a position."""

    def __init__(self, position: Position):
        self.position, self.since = position, time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        self.position.seconds += now - self.since
        self.since = now


def build_vocabulary(recipe: Recipe, dataset: DataSet) -> Vocabulary:
    """That of the run this one starts from, else built from the training split only."""
    if recipe.start:
        return Vocabulary.load(Path(recipe.start) / "vocabulary.json")
    config = recipe.vocabulary
    if config.byte_pairs:
        return read_clip(config.byte_pairs)
    captions = [text for medium in dataset.split("train") for text in medium.references]
    return Vocabulary.build(captions, config.min_count, config.tokenizer)


def collapse(report: Report, media: int) -> str:
    """Name the trouble when a captioner says the same few sentences for everything; empty when all is well."""
    if media < 20 or report.distinct > max(2, 0.02 * media):
        return ""
    return (
        f"captions have collapsed: {report.distinct} different sentences for {media} media. Usual causes: "
        "too few steps yet, a learning rate that is too high, features that do not belong to their ids, "
        "or captions that do not vary"
    )


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


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
