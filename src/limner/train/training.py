"""train(): a recipe and a folder in, a run out; interrupted and resumed it gives the same weights to the bit."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor

from limner.data.batches import TrainingBatches
from limner.data.dataset import DataSet
from limner.data.datasets import read_dataset
from limner.decode.generate import generate
from limner.decode.search import Beam
from limner.encoders import Pretrained
from limner.files import write_text
from limner.inputs import open_inputs
from limner.metrics.references import References
from limner.metrics.report import METRICS, Report, evaluate
from limner.models import build_model
from limner.models.captioner import Captioner, FromPixels
from limner.recipe import Recipe, changes, load_recipe
from limner.run import (
    RunInfo,
    append_log,
    create_run,
    load_tensors,
    pack_state,
    put_weights,
    save_tensors,
    unpack_state,
    weights_of,
)
from limner.text.vectors import load_vectors
from limner.text.vocabulary import Vocabulary
from limner.train.loop import Average, Learner, Position, fit, make_optimizer
from limner.types import Medium

Watch = Callable[[str, dict[str, Any]], None]  # told of every "start", "step", "validation", "best", "warning"


def train(recipe: Recipe, folder: str | Path, resume: bool = False, watch: Watch = lambda event, facts: None) -> Path:
    """Train all stages of `recipe` into the run folder `folder`.

    With `resume` an interrupted run goes on bit for bit from its last checkpoint.  Raises FileExistsError when the
    folder holds a run and `resume` is not asked for, ValueError when it was started with another recipe.
    """
    folder = Path(folder)
    begun = (folder / "last.safetensors").is_file()
    if begun and not resume:
        raise FileExistsError(f"{folder} already holds a run; continue it with --resume or choose another folder")
    if begun and (changed := changes(load_recipe(folder / "recipe.json"), recipe)):
        raise ValueError(
            f"{folder} was started with another recipe, which --resume cannot change: {'; '.join(changed)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    session = _Session(recipe, folder, watch)
    if begun:
        session.resume()
    session.run()
    return folder


class _Session:
    """What the stages of one run share."""

    def __init__(self, recipe: Recipe, folder: Path, watch: Watch):
        self.recipe, self.folder, self.watch = recipe, folder, watch
        first = recipe.stages[0]
        precision = "no" if first.precision == "fp32" else first.precision
        if len({stage.precision for stage in recipe.stages}) > 1:
            raise ValueError("all stages of a recipe share one precision")
        self.accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
        self.main = self.accelerator.is_main_process
        self.dataset = read_dataset(recipe.data)
        set_seed(recipe.seed)
        self.vocabulary = build_vocabulary(recipe, self.dataset)
        if recipe.validation.metric not in METRICS:
            raise ValueError(f"unknown metric '{recipe.validation.metric}'; known are {', '.join(METRICS)}")
        self.inputs = open_inputs(recipe)
        encoder = self.inputs.encoder
        info = RunInfo(encoder.dim, encoder.provenance(), self.inputs.trained)
        model = build_model(recipe.model, len(self.vocabulary), info.feature_dim)
        if recipe.vocabulary.vectors:
            found = load_vectors(recipe.vocabulary.vectors, self.vocabulary, model.get_submodule("embed"))
            watch("start", {"word vectors found": found, "words": len(self.vocabulary)})
        self.model: Captioner = model if self.inputs.store else FromPixels(encoder, model)
        self.model.to(self.accelerator.device)
        self.problems = list(self.dataset.problems)
        self.media, self.validation = self._media()
        self.references = References({m.id: m.references for m in self.validation}, recipe.vocabulary.tokenizer)
        self.position = Position()
        self.restored: dict[str, Tensor] = {}
        if self.main:
            create_run(folder, recipe, self.vocabulary, info)
            if isinstance(encoder, Pretrained) and info.encoder_trained:
                encoder.save(folder / "encoder")
        watch("start", self._facts())

    def _media(self) -> tuple[list[Medium], list[Medium]]:
        """Training and validation media that can be used; what is wrong with the others joins `problems`."""
        media = self.dataset.split("train")
        if self.inputs.store:  # raw training media are checked as they are read
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
            "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "problems": self.problems,
            "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
        }

    def resume(self) -> None:
        """Read the last checkpoint and forget log lines written after it."""
        self.restored, metadata = load_tensors(self.folder / "last.safetensors")
        self.position = Position(**json.loads(metadata["position"]))
        log = self.folder / "log.jsonl"
        if self.main and log.is_file():
            rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            here = (self.position.stage, self.position.step)
            kept = [row for row in rows if (row.get("stage", 0), row.get("step", 0)) <= here]
            write_text(log, "".join(json.dumps(row) + "\n" for row in kept))

    def run(self) -> None:
        for index in range(self.position.stage, len(self.recipe.stages)):
            if index > self.position.stage:  # the next stage starts from the best weights, which it has to beat
                tensors, _ = load_tensors(self.folder / "model.safetensors")
                put_weights(self.model, tensors, self.folder / "model.safetensors")
                self.position = Position(stage=index, best=self.position.best, seconds=self.position.seconds)
            self.stage(index)

    def stage(self, index: int) -> None:
        stage = self.recipe.stages[index]
        optimizer = make_optimizer(self.model, stage)
        average = Average(self.model, stage.average) if stage.average else None
        if self.restored:
            unpack_state(
                {k: v for k, v in self.restored.items() if not k.startswith("average.")}, self.model, optimizer
            )
            if average is not None:
                for name, value in average.shadow.items():  # copied, so that they lie where the model lies
                    value.copy_(self.restored[f"average.{name}"])
                average.count = self.position.step
            self.restored = {}
        learner, optimizer = self.accelerator.prepare(Learner(self.model, stage.objective), optimizer)
        batches = TrainingBatches(
            self.media,
            self.vocabulary,
            self.inputs.reader,
            stage.batch_size,
            self.recipe.seed + 1000 * index,
            self.recipe.views,
            self.recipe.vocabulary.max_words,
            stage.captions,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        clock = _Clock(self.position)
        told: set[str] = set()

        def checkpoint() -> None:
            clock.tick()
            if self.main:
                tensors = pack_state(self.model, optimizer.optimizer)
                if average is not None:
                    tensors |= {f"average.{name}": value for name, value in average.shadow.items()}
                save_last(self.folder, tensors, self.position)

        def on_step(logs: dict[str, float]) -> None:
            facts = {"stage": index, "epoch": self.position.epoch, "step": self.position.step, **logs}
            self.watch("step", facts | {"batch": self.position.batch, "batches": len(batches), "epochs": stage.epochs})
            if self.main and (self.position.step % 50 == 0 or self.position.batch == len(batches)):
                append_log(self.folder, {key: _short(value) for key, value in facts.items()})

        def on_epoch() -> float | None:
            for id in batches.problems.keys() - told:
                told.add(id)
                self.watch("warning", {"text": f"skipped: {batches.problems[id]}"})
            if self.position.epoch % self.recipe.validation.every and self.position.epoch < stage.epochs:
                return None
            clock.tick()
            if average is not None:
                average.swap()
            score = self.validate(index)
            if average is not None:
                average.swap()
            return score

        def on_best() -> None:
            if average is not None:
                average.swap()
            if self.main:
                save_tensors(self.folder / "model.safetensors", weights_of(self.model))
            if average is not None:
                average.swap()

        if index > 0 and self.position.step == 0:
            checkpoint()  # where the stage starts is in no other file once model.safetensors has better weights
        fit(
            learner,
            optimizer,
            batches,
            stage,
            self.accelerator,
            self.position,
            average=average,
            on_step=on_step,
            on_epoch=on_epoch,
            on_best=on_best,
            checkpoint=checkpoint,
            checkpoint_steps=self.recipe.checkpoint_steps,
        )

    def validate(self, stage: int) -> float:
        """Free-running captions of the validation split, scored; every rank decodes its share."""
        media = self.validation
        mine = media[self.accelerator.process_index :: self.accelerator.num_processes]
        options = Beam(self.recipe.validation.beam, self.recipe.decoding.length_penalty, self.recipe.decoding.rules)
        captions = dict(
            gather_object(list(generate(self.model, mine, self.inputs.reader, self.vocabulary, options).items()))
        )
        report = evaluate(captions, self.references)
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
        self.watch("validation", facts | {"example": captions[media[0].id]})
        warning = collapse(report, len(media))
        if warning:
            self.watch("warning", {"text": warning})
        return score


class _Clock:
    """Adds the wall time since the last tick to a position."""

    def __init__(self, position: Position):
        self.position, self.since = position, time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        self.position.seconds += now - self.since
        self.since = now


def build_vocabulary(recipe: Recipe, dataset: DataSet) -> Vocabulary:
    """From the training split only."""
    config = recipe.vocabulary
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


def save_last(folder: Path, tensors: dict[str, torch.Tensor], position: Position) -> None:
    """Replace the resumable state as a whole."""
    try:
        save_tensors(folder / "last.safetensors", tensors, {"position": json.dumps(asdict(position))})
    except OSError as error:
        raise OSError(
            f"the checkpoint in {folder} could not be written ({error}); the previous one is intact: free some space "
            "and continue with --resume"
        ) from error


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
