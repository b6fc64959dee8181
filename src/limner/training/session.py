"""`Session`: the data, vocabulary and model that all stages of a run share, and the validation of the model."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object, set_seed
from torch import Tensor

from limner.core.files import parse_json, write_text
from limner.core.types import Medium
from limner.data.dataset import Dataset
from limner.data.datasets import data_parts, read_dataset, read_scenes
from limner.data.loader import Loading, default_workers
from limner.data.mixture import first_of_each
from limner.data.pseudo_captions import fill_captions, read_pseudo_captions
from limner.decode.generate import generate
from limner.decode.search import Beam
from limner.encoders import Pretrained
from limner.metrics.by_data_set import evaluate_each, references_by_data_set, scenes_of
from limner.metrics.references import References
from limner.metrics.report import METRICS, Report, evaluate
from limner.models import build_model, leaves_parameters_unused
from limner.models.captioner import Captioner
from limner.runs.checkpoint import CHECKPOINT, load_checkpoint
from limner.runs.inputs import open_inputs
from limner.runs.recipe import Recipe
from limner.runs.run import RunInfo, append_log, create_run
from limner.runs.trained_media import kind_of_media
from limner.text.clip_bpe import read_clip_vocabulary
from limner.text.scripts import caption_notes
from limner.text.tokens import scoring_tokenizer
from limner.text.vectors import load_clip_vectors, load_vectors
from limner.text.vocabulary import SPECIALS, Vocabulary
from limner.training.loop import TrainingState
from limner.training.new_words import predict_new_words
from limner.training.parameter_groups import check_lr_scales
from limner.training.start import StartModel, load_start_weights, open_start
from limner.training.teachers import check_teacher

# called as callback(event, facts) in the process of rank 0; events: "start", "step", "validation", "warning", "end"
TrainingCallback = Callable[[str, dict[str, Any]], None]


def ignore_events(event: str, facts: dict[str, Any]) -> None:
    """A training callback that does nothing."""


def precision_warnings(recipe: Recipe) -> list[str]:
    """A line for bf16 on a CPU that computes bfloat16 in software: a convolution then takes 30 times as long."""
    slow = not torch.cuda.is_available() and not torch.cpu._is_avx512_bf16_supported()
    if platform.machine() not in ("x86_64", "AMD64") or not slow or recipe.stages[0].precision != "bf16":
        return []
    return [
        "this CPU has no instructions for bfloat16, so bf16 can be 30 times slower than fp32: give every stage fp32 "
        "(--stages.0.precision fp32 and so on)"
    ]


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Build the Accelerator for a recipe: CUDA where there is one, in the precision of the stages.

    Raises ValueError when stages have different precisions, or for fp16 without CUDA.
    """
    precisions = {stage.precision for stage in recipe.stages}
    if len(precisions) > 1:
        raise ValueError(
            f"all stages need the same precision, got {', '.join(sorted(precisions))}: give each stage the same one"
        )
    (precision,) = precisions
    if precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("stages.0.precision: fp16 needs CUDA; use bf16 or fp32")
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state()  # it would keep the precision of the first training in this process
    # data-parallel processes wait for a gradient of every parameter, unless told that some may have none
    objectives = [stage.objective for stage in recipe.stages]
    unused = leaves_parameters_unused(recipe.model) and not all(each.trains_all_parameters for each in objectives)
    skipped = unused or any(objective.skips_gradients for objective in objectives)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if skipped else []
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available(), kwargs_handlers=handlers)


class Session:
    """The data, vocabulary, model and progress that the stages of one run share.

    Raises ValueError for a recipe that cannot be trained, before the first step.
    """

    def __init__(self, recipe: Recipe, folder: Path, callback: TrainingCallback):
        self.recipe, self.folder = recipe, folder
        self.accelerator = make_accelerator(recipe)
        self.main = self.accelerator.is_main_process
        self.callback = callback if self.main else ignore_events
        self.dataset = read_training_data(recipe)
        self._warn([*self.dataset.notes, *precision_warnings(recipe)])
        set_seed(recipe.seed)
        self.start = open_start(recipe, self.dataset) if recipe.start else None
        self.vocabulary = self.start.grown.vocabulary if self.start else build_vocabulary(recipe, self.dataset)
        self._warn(caption_warnings(recipe, self.dataset, self.vocabulary.tokenizer))
        self.inputs = open_inputs(recipe)
        for stage in recipe.stages:
            self.recipe_for_image_size(stage.image_size)
            if stage.objective.teacher_run:
                check_teacher(stage.objective.teacher_run)
        encoder = self.inputs.encoder
        info = RunInfo(
            self.inputs.dim, self.inputs.provenance(), self.inputs.encoder_is_trained, plugins=recipe.plugins
        )
        self.feature_dim = info.feature_dim
        model = build_model(recipe.model, len(self.vocabulary), info.feature_dim)
        if recipe.vocabulary.vectors:
            notes: list[str] = []
            initialised = init_embeddings(model, recipe.vocabulary.vectors, self.vocabulary, notes)
            self._warn(notes)
            self.callback("start", {"word vectors found": initialised, "words": len(self.vocabulary)})
        self.model: Captioner = self.inputs.with_encoder(model)
        check_lr_scales(model, recipe.stages)
        if self.start is not None:
            self._load_start_weights(self.start)
        self.model.to(self.accelerator.device)
        self.problems = list(self.dataset.problems)
        self.pseudo_captions = None
        if recipe.pseudo_captions.file:
            self.pseudo_captions = read_pseudo_captions(
                recipe.pseudo_captions, self.dataset.media, self.vocabulary, recipe.vocabulary.max_words
            )
            self.problems += self.pseudo_captions.problems
        self.media, self.validation = self._media()
        if self.start is not None:
            self._place_new_words(self.start)
        tokenizer = scoring_tokenizer(self.vocabulary.tokenizer)
        self.references = References({medium.id: medium.references for medium in self.validation}, tokenizer)
        self.references_by_data_set = references_by_data_set(self.validation, tokenizer)
        self.scenes = read_scenes(recipe.data)
        # METEOR needs an optional package, so validations compute it only when it is the validation metric
        self.metrics = {n: m for n, m in METRICS.items() if n != "METEOR" or recipe.validation.metric == n}
        self.warned_of_truncated = False
        self.unreadable: dict[str, str] = {}  # id of a training medium that could not be read -> reason
        self.state = TrainingState(processes=self.accelerator.num_processes)
        self.resume_tensors: dict[str, Tensor] = {}  # tensors that the first stage of a resumed run starts from
        self.scaler: dict[str, Any] = {}  # state of the fp16 loss scaler in that checkpoint
        if self.main:
            create_run(folder, recipe, self.vocabulary, replace(info, media=kind_of_media(self.media, self.inputs)))
            if isinstance(encoder, Pretrained) and info.encoder_trained:
                encoder.save(folder / "encoder")

    def _load_start_weights(self, start: StartModel) -> None:
        """Load the weights of the model that the recipe starts from, and say which words are kept and added."""
        self.callback("start", {f"start from {start.name}:": start.grown.summary()})
        tokenizer, ours = self.vocabulary.tokenizer, self.recipe.vocabulary
        if tokenizer != ours.tokenizer and not ours.byte_pairs:
            text = f"captions are split into words by {tokenizer}, as in {start.name}, and not by {ours.tokenizer}"
            self._warn([f"{text} (vocabulary.tokenizer)"])
        self._warn(load_start_weights(self.model, start, self.recipe, self.feature_dim))
        # an encoder that comes from the same run was checked by the hash of its weights
        checked = not self.inputs.uses_stored_features or self.recipe.encoder.source == start.name
        if not checked and start.info.encoder_trained:
            text = f"the encoder of {start.name} was trained along with its captioner: {self.recipe.features} must be "
            self._warn([text + f"features of that encoder (limner extract {start.name})"])

    def _place_new_words(self, start: StartModel) -> None:
        """Begin the rows of new words with what the start model says where the training captions have them."""
        if not start.grown.occurrences:
            return
        words = self.recipe.vocabulary.max_words
        grown = predict_new_words(self.model, start.grown, self.media, self.inputs.reader, words)
        load_start_weights(self.model, replace(start, grown=grown), self.recipe, self.feature_dim)

    def _warn(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.callback("warning", {"text": line})

    def recipe_for_image_size(self, size: int | None) -> Recipe:
        """Return the recipe with images of `size` x `size` pixels (None: unchanged).

        Raises ValueError when the features are stored or the encoder has no image size.
        """
        config = self.recipe.encoder
        if size is None:
            return self.recipe
        if self.inputs.uses_stored_features or not hasattr(config, "size"):
            reason = (
                "the features are stored" if self.inputs.uses_stored_features else f"encoder {config.name} has no size"
            )
            raise ValueError(f"stages.image_size is {size}, but {reason}: leave it out")
        return replace(self.recipe, encoder=replace(config, size=size))

    def set_image_size(self, size: int | None) -> None:
        """Read images at `size` x `size` pixels from now on; None: at the encoder's own size."""
        encoder, recipe = self.inputs.encoder, self.recipe_for_image_size(size)
        if encoder is not None and not self.inputs.uses_stored_features and encoder.config != recipe.encoder:
            encoder.config = recipe.encoder
            notes = self.inputs.notes
            self.inputs = open_inputs(recipe, encoder)
            self.inputs.notes.update(notes)

    def loading(self) -> Loading:
        """How batches are read ahead on this machine."""
        device, workers = self.accelerator.device, self.recipe.workers
        if workers is None:
            workers = default_workers(not (self.inputs.uses_stored_features or self.inputs.cached), device)
        return Loading(workers, device.type == "cuda", self.inputs.notes)

    def notes(self) -> list[str]:
        """Return a line for each medium that was read although something is wrong with it, of all processes."""
        return sorted(set(gather_object(list(self.inputs.notes.values()))))  # a file may be in several splits

    def warn_of_truncated(self, count: int) -> None:
        """Say once that `count` training captions are longer than the recipe allows."""
        if count and not self.warned_of_truncated:
            self.warned_of_truncated = True
            total, most = sum(len(medium.references) for medium in self.media), self.recipe.vocabulary.max_words
            text = f"{count} of {total} training captions have more than {most} words and are cut there"
            self.callback("warning", {"text": f"{text} (vocabulary.max_words)"})

    def _media(self) -> tuple[list[Medium], list[Medium]]:
        """Return the readable training and validation media; a line for each other medium is added to `problems`."""
        media = self.dataset.split("train")
        if self.inputs.uses_stored_features:  # raw training media are checked when they are read
            media, problems = self.inputs.require_readable(media, self.recipe.augmentations)
            self.problems += problems
        validation = first_of_each(self.dataset.split(self.recipe.validation.split), self.recipe.validation.limit)
        validation, problems = self.inputs.require_readable(
            [medium for medium in validation if medium.references], workers=self.loading().workers
        )
        self.problems += problems
        self._warn(_absent_notes(self.dataset.labels, media, "training"))
        self._warn(_absent_notes(self.dataset.labels, validation, "validation"))
        return media, validation

    def summary(self) -> dict[str, Any]:
        """Return the facts of the "start" event: sizes of the data and the model, problems, device."""
        return {
            "training media": len(self.media),
            "captions": sum(len(medium.references) for medium in self.media),
            **self._data_sets(),
            **(
                {"pseudo-captions": sum(map(len, self.pseudo_captions.captions.values()))}
                if self.pseudo_captions
                else {}
            ),
            "validation media": len(self.references.ids),
            "words": len(self.vocabulary),
            "total_step": self.state.previous_steps + self.state.step,
            "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "problems": self.problems,
            "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
        }

    def _data_sets(self) -> dict[str, str]:
        """Say how many media each data set has, and what share an epoch has; {} for a single one without a share."""
        parts = data_parts(self.recipe.data)
        if len(parts) == 1 and all(config.share == 1 for config in parts.values()):
            return {}
        texts = []
        for label, config in parts.items():
            sizes = [sum(medium.part == label for medium in media) for media in (self.media, self.validation)]
            share = "" if config.share == 1 else f", share {config.share:g}"
            texts.append(f"{label} ({sizes[0]} training, {sizes[1]} validation{share})".lstrip())
        return {"data sets": ", ".join(texts)}

    def resume(self) -> None:
        """Read the last checkpoint, and remove log lines that were written after it."""
        self.resume_tensors, training_state, self.scaler = load_checkpoint(self.folder)
        try:
            self.state = TrainingState(**training_state)
            last = (int(self.state.stage), int(self.state.step))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.folder / CHECKPOINT} holds a state that this limner does not know ({error}): was it written by "
                "a newer one? then update limner"
            ) from error
        self._tell_of_processes()
        log = self.folder / "log.jsonl"
        if self.main and log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            rows = [parse_json(line, log) for line in lines if line.startswith("{") and line.endswith("}")]
            # the epoch of a validation that was interrupted has still to be ended, and is validated again
            rows = [
                row
                for row in rows
                if (row.get("stage", 0), row.get("step", 0)) <= last
                and not ((row.get("stage", 0), row.get("step", 0)) == last and row.get("epoch", 0) > self.state.epoch)
            ]
            write_text(log, "".join(json.dumps(row) + "\n" for row in rows))

    def _tell_of_processes(self) -> None:
        """Say what changes when a run is continued by another number of processes."""
        before, now = self.state.processes, self.accelerator.num_processes
        if before not in (0, now):
            text = (
                f"the run was trained by {before} process{'es' * (before > 1)}, and now by {now}: the examples of each"
            )
            self._warn(
                [f"{text} step stay, since batch_size counts all processes; dropout and sampled captions change"]
            )
        self.state.processes = now

    def progress(self) -> dict[str, int]:
        """Return the facts that callbacks get in addition to the logged ones."""
        return {"stages": len(self.recipe.stages), "total_step": self.state.previous_steps + self.state.step}

    def validate(self, stage: int) -> float:
        """Generate captions for the validation split and log their scores -> the score of the validation metric.

        Each process captions its share of the media; all processes return the same score.
        """
        media = self.validation
        local_media = media[self.accelerator.process_index :: self.accelerator.num_processes]
        decoding = self.recipe.beam
        options = Beam(
            self.recipe.validation.beam, decoding.length_penalty, decoding.rules, normalise=decoding.normalise
        )
        batch_size = self.inputs.media_per_batch(local_media)
        local = generate(
            self.model, local_media, self.inputs.reader, self.vocabulary, options, batch_size, self.loading()
        )
        captions = dict(gather_object(list(local.items())))
        scenes = scenes_of(self.references.ids, self.scenes)
        report = evaluate(captions, self.references, self.metrics, scenes=scenes)
        each = evaluate_each(captions, self.references_by_data_set, self.metrics, scenes=self.scenes)
        score = report.scores[self.recipe.validation.metric]
        facts = {
            "stage": stage,
            "epoch": self.state.epoch,
            "step": self.state.step,
            "split": self.recipe.validation.split,
        }
        facts |= {name: round_for_log(value) for name, value in (report.scores | report.exact).items()}
        for label, part in each.items():
            facts |= {f"{label}/{name}": round_for_log(value) for name, value in (part.scores | part.exact).items()}
        facts |= {"distinct": report.distinct, "seconds": round(self.state.seconds, 1)}
        if self.main:
            append_log(self.folder, facts)
        more = {"metric": self.recipe.validation.metric, "example": captions[media[0].id], **self.progress()}
        more |= {"data sets": [*each]} if each else {}
        self.callback("validation", facts | more)
        warning = collapse_warning(report, len(media))
        if warning:
            self.callback("warning", {"text": warning})
        return score


def read_training_data(recipe: Recipe) -> Dataset:
    """Read the data of a recipe; where it says so, media without captions have those of `pseudo_captions.file`."""
    dataset, config = read_dataset(recipe.data), recipe.pseudo_captions
    return fill_captions(dataset, config.file, ("train", recipe.validation.split)) if config.fill else dataset


def _absent_notes(labels: Sequence[str], media: Sequence[Medium], use: str) -> list[str]:
    """Return a line for each of several data sets that has none of the media for a use, training or validation."""
    present = {medium.part for medium in media}
    others = f"{use} uses the other data sets only"
    return [f"the data set '{label}' has no {use} media that can be read: {others}" for label in labels
            if label not in present]  # fmt: skip


def build_vocabulary(recipe: Recipe, dataset: Dataset) -> Vocabulary:
    """Return the vocabulary of the data set's prepared files, or else build it from the training split."""
    config = recipe.vocabulary
    if config.byte_pairs:
        return read_clip_vocabulary(config.byte_pairs)
    if dataset.words:  # captions are already tokenised, and rare words are the unknown word already
        return Vocabulary((*SPECIALS, *dataset.words), "split")
    captions = [text for medium in dataset.split("train") for text in medium.references]
    return Vocabulary.build(captions, config.min_count, config.tokenizer)


def caption_warnings(recipe: Recipe, dataset: Dataset, tokenizer: str) -> list[str]:
    """Return what the tokenizer cannot do with the captions of a dataset; nothing for CLIP's byte pairs."""
    if recipe.vocabulary.byte_pairs:
        return []
    texts = (text for medium in dataset.media for text in medium.references)
    return caption_notes(texts, tokenizer, "--vocabulary.tokenizer")


def init_embeddings(model: Captioner, vectors: str, vocabulary: Vocabulary, notes: list[str]) -> int:
    """Initialise word embeddings with pretrained vectors -> how many words of the vocabulary have one.

    `vectors` is a GloVe text file (copied into the embedding), or a folder of a CLIP model (copied into all
    `token_vector_layers`).  Lines about vectors that were left out are added to `notes`.
    """
    if not Path(vectors).is_dir():
        return load_vectors(vectors, vocabulary, model.get_submodule("embed"), notes)
    return load_clip_vectors(vectors, vocabulary, *model.token_vector_layers())


def collapse_warning(report: Report, media: int) -> str:
    """Return a warning when nearly all media get the same few captions, else "".

    The captions have collapsed when at most 2 % of them (or two) are different; fewer than 20 media are not judged.
    """
    if media < 20 or report.distinct > max(2, 0.02 * media):
        return ""
    return (
        f"captions have collapsed: {report.distinct} different sentences for {media} media. Usual causes: "
        "too few steps yet, a learning rate that is too high, features that do not belong to their ids, "
        "or captions that do not vary"
    )


def round_for_log(value: Any) -> Any:
    """Round a float to six significant digits; other values stay as they are."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
