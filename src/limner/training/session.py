"""What the stages of one run share: data, words, model, and the validation that picks the weights to keep."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object, set_seed
from torch import Tensor

from limner.core.files import read_json, write_text
from limner.core.migration import migrate_tensors
from limner.core.tensors import load_tensors
from limner.core.types import Medium
from limner.data.dataset import Dataset
from limner.data.datasets import read_dataset, read_scenes
from limner.data.pseudo_captions import read_pseudo_captions
from limner.decode.generate import generate
from limner.decode.search import Beam
from limner.encoders import Pretrained
from limner.metrics.references import References
from limner.metrics.report import METRICS, Report, evaluate
from limner.models import build_model, leaves_parameters_unused
from limner.models.captioner import Captioner
from limner.runs.inputs import open_inputs
from limner.runs.recipe import Recipe
from limner.runs.run import RunInfo, append_log, create_run, load_weights, load_run_state_dict
from limner.text.clip_bpe import read_clip_vocabulary
from limner.text.load import load_vocabulary
from limner.text.vectors import load_clip_vectors, load_vectors
from limner.text.vocabulary import Vocabulary
from limner.training.loop import Position
from limner.training.rates import check_lr_scales
from limner.training.teachers import check_teacher

# told of every "start", "step", "validation", "warning", and of the "end"; in the first process only
TrainingCallback = Callable[[str, dict[str, Any]], None]


def ignore_events(event: str, facts: dict[str, Any]) -> None:
    """A watch that says nothing."""


def make_accelerator(recipe: Recipe) -> Accelerator:
    precisions = {stage.precision for stage in recipe.stages}
    if len(precisions) > 1:
        raise ValueError("all stages of a recipe share one precision")
    (precision,) = precisions
    if precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("stages.0.precision: fp16 needs CUDA; use bf16 or fp32")
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state()  # it would hold every training of this process to the first one's precision
    # several processes wait for a gradient of every parameter, unless they know that some may have none
    objectives = [stage.objective for stage in recipe.stages]
    unused = leaves_parameters_unused(recipe.model) and not all(each.trains_all_parameters for each in objectives)
    skipped = unused or any(objective.skips_gradients for objective in objectives)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if skipped else []
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available(), kwargs_handlers=handlers)


class Session:
    """What the stages of one run share."""

    def __init__(self, recipe: Recipe, folder: Path, watch: TrainingCallback):
        self.recipe, self.folder = recipe, folder
        self.accelerator = make_accelerator(recipe)
        self.main = self.accelerator.is_main_process
        self.watch = watch if self.main else ignore_events
        self.dataset = read_dataset(recipe.data)
        set_seed(recipe.seed)
        self.vocabulary = build_vocabulary(recipe, self.dataset)
        self.inputs = open_inputs(recipe)
        for stage in recipe.stages:
            self.recipe_for_image_size(stage.image_size)
            if stage.objective.teacher_run:
                check_teacher(stage.objective.teacher_run)
        encoder = self.inputs.encoder
        info = RunInfo(self.inputs.dim, self.inputs.provenance(), self.inputs.encoder_is_trained, plugins=recipe.plugins)
        self.feature_dim = info.feature_dim
        model = build_model(recipe.model, len(self.vocabulary), info.feature_dim)
        if recipe.vocabulary.vectors:
            found = init_embeddings(model, recipe.vocabulary.vectors, self.vocabulary)
            self.watch("start", {"word vectors found": found, "words": len(self.vocabulary)})
        self.model: Captioner = self.inputs.with_encoder(model)
        check_lr_scales(model, recipe.stages)
        if recipe.start:
            weights = Path(recipe.start) / "model.safetensors"
            load_run_state_dict(self.model, load_weights(recipe.start), weights)
            checked = not self.inputs.uses_stored_features or recipe.encoder.source == recipe.start  # by the hash of its weights
            if not checked and read_json(Path(recipe.start) / "run.json").get("encoder_trained"):
                text = f"the encoder of {recipe.start} was trained along with its captioner: {recipe.features} must be "
                self.watch("warning", {"text": text + f"features of that encoder (limner extract {recipe.start})"})
        self.model.to(self.accelerator.device)
        self.problems = list(self.dataset.problems)
        self.pseudo_captions = None
        if recipe.pseudo_captions.file:
            words = recipe.vocabulary.max_words
            self.pseudo_captions = read_pseudo_captions(
                recipe.pseudo_captions, self.dataset.media, self.vocabulary, words
            )
            self.problems += self.pseudo_captions.problems
        self.media, self.validation = self._media()
        self.references = References({m.id: m.references for m in self.validation})
        self.scenes = read_scenes(recipe.data)
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

    def recipe_for_image_size(self, size: int | None) -> Recipe:
        """The recipe, with pictures of `size` pixels a side.  Raises ValueError when the encoder cannot have them."""
        config = self.recipe.encoder
        if size is None:
            return self.recipe
        if self.inputs.uses_stored_features or not hasattr(config, "size"):
            reason = "the features are stored" if self.inputs.uses_stored_features else f"encoder {config.name} has no size"
            raise ValueError(f"stages.image_size is {size}, but {reason}: leave it out")
        return replace(self.recipe, encoder=replace(config, size=size))

    def set_image_size(self, size: int | None) -> None:
        """From now on pictures have `size` pixels a side; None: as many as the encoder asks for."""
        encoder, recipe = self.inputs.encoder, self.recipe_for_image_size(size)
        if encoder is not None and not self.inputs.uses_stored_features and encoder.config != recipe.encoder:
            encoder.config = recipe.encoder
            self.inputs = open_inputs(recipe, encoder)

    def _media(self) -> tuple[list[Medium], list[Medium]]:
        """Training and validation media that can be used; what is wrong with the others joins `problems`."""
        media = self.dataset.split("train")
        if self.inputs.uses_stored_features:  # raw training media are checked as they are read
            media, problems = self.inputs.require_readable(media, self.recipe.augmentations)
            self.problems += problems
        asked = self.dataset.split(self.recipe.validation.split)[: self.recipe.validation.limit]
        validation, problems = self.inputs.require_readable([medium for medium in asked if medium.references])
        self.problems += problems
        return media, validation

    def facts(self) -> dict[str, Any]:
        return {
            "training media": len(self.media),
            "captions": sum(len(medium.references) for medium in self.media),
            **(
                {"pseudo-captions": sum(map(len, self.pseudo_captions.captions.values()))}
                if self.pseudo_captions
                else {}
            ),
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
        restored, metadata = load_tensors(self.folder / "last.safetensors")
        self.restored = migrate_tensors(restored)
        self.position = Position(**json.loads(metadata["position"]))
        self.scaler = json.loads(metadata.get("scaler", "{}"))
        log = self.folder / "log.jsonl"
        if self.main and log.is_file():
            rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            here = (self.position.stage, self.position.step)
            kept = [row for row in rows if (row.get("stage", 0), row.get("step", 0)) <= here]
            write_text(log, "".join(json.dumps(row) + "\n" for row in kept))

    def progress(self) -> dict[str, int]:
        """What a watch is told beside the facts that are logged."""
        return {"stages": len(self.recipe.stages), "total_step": self.position.before + self.position.step}

    def validate(self, stage: int) -> float:
        """Free-running captions of the validation split, scored; every rank decodes its share."""
        media = self.validation
        mine = media[self.accelerator.process_index :: self.accelerator.num_processes]
        decoding = self.recipe.beam
        options = Beam(
            self.recipe.validation.beam, decoding.length_penalty, decoding.rules, normalise=decoding.normalise
        )
        together = self.inputs.media_per_batch(mine)
        found = generate(self.model, mine, self.inputs.reader, self.vocabulary, options, together)
        captions = dict(gather_object(list(found.items())))
        report = evaluate(captions, self.references, self.metrics, scenes=self.scenes)
        score = report.scores[self.recipe.validation.metric]
        facts = {
            "stage": stage,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "split": self.recipe.validation.split,
        }
        facts |= {name: short(value) for name, value in (report.scores | report.exact).items()}
        facts |= {"distinct": report.distinct, "seconds": round(self.position.seconds, 1)}
        if self.main:
            append_log(self.folder, facts)
        more = {"metric": self.recipe.validation.metric, "example": captions[media[0].id], **self.progress()}
        self.watch("validation", facts | more)
        warning = collapse_warning(report, len(media))
        if warning:
            self.watch("warning", {"text": warning})
        return score


def build_vocabulary(recipe: Recipe, dataset: Dataset) -> Vocabulary:
    """That of the run this one starts from, else built from the training split only."""
    if recipe.start:
        return load_vocabulary(Path(recipe.start) / "vocabulary.json")
    config = recipe.vocabulary
    if config.byte_pairs:
        return read_clip_vocabulary(config.byte_pairs)
    captions = [text for medium in dataset.split("train") for text in medium.references]
    return Vocabulary.build(captions, config.min_count, config.tokenizer)


def init_embeddings(model: Captioner, vectors: str, vocabulary: Vocabulary) -> int:
    """Copy GloVe's vectors (a file) into the embedding, or CLIP's (a folder) into all `token_vector_layers` -> how many
    words have one."""
    if not Path(vectors).is_dir():
        return load_vectors(vectors, vocabulary, model.get_submodule("embed"))
    return load_clip_vectors(vectors, vocabulary, *model.token_vector_layers())


def collapse_warning(report: Report, media: int) -> str:
    """Name the trouble when a captioner says the same few sentences for everything; empty when all is well."""
    if media < 20 or report.distinct > max(2, 0.02 * media):
        return ""
    return (
        f"captions have collapsed: {report.distinct} different sentences for {media} media. Usual causes: "
        "too few steps yet, a learning rate that is too high, features that do not belong to their ids, "
        "or captions that do not vary"
    )


def short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
