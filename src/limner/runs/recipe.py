"""A run, described completely: frozen dataclasses, read from YAML, overridden by dotted names, saved as JSON."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from limner.core.fields import (
    ConfigOf,
    Fraction,
    FractionBelowOne,
    NameOf,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)
from limner.core.files import read_json, write_json
from limner.core.migration import migrate, new_field_name
from limner.core.plugins import load_entry_points
from limner.core.registry import Registry, defining_package
from limner.data.augmentations import AUGMENTATIONS
from limner.data.datasets import DATASETS, DataConfig
from limner.data.feature_files import FeatureRows
from limner.data.frames import FrameSampling, SamplingConfig
from limner.data.pseudo_captions import PseudoCaptionsConfig
from limner.decode.options import Beam, SearchOptions
from limner.decode.search import SEARCHES
from limner.encoders import DEFAULT_ENCODER, ENCODERS
from limner.encoders.encoder import EncoderConfig
from limner.metrics.report import METRICS
from limner.models import CAPTIONERS, DEFAULT_CAPTIONER
from limner.models.captioner import CaptionerConfig
from limner.objectives import DEFAULT_OBJECTIVE, OBJECTIVES, ObjectiveConfig
from limner.runs.overrides import override, parse_value
from limner.runs.variables import substitute


@dataclass(frozen=True)
class VocabularyConfig:
    """Built from the training split; a word is kept when its count >= min_count."""

    min_count: PositiveInt = 5  # rarer words become the unknown word
    tokenizer: str = "ptb"  # ptb, ptb-isolated, simple or split
    max_words: PositiveInt = 30  # longer training captions are cut
    byte_pairs: str = ""  # folder with CLIP's vocab.json and merges.txt: words are its pieces, none is built or unknown
    vectors: str = ""  # GloVe text file (word v1 v2 ...) or folder of a CLIP model, as wide as model.embed


@dataclass(frozen=True)
class Schedule:
    """The learning rate's course, as a factor of a stage's `lr`."""

    # noam (Vaswani et al. 2017, section 5.3): up in a line, then down as 1 / sqrt(step).  `lr` is its peak, published
    # as factor * d^-0.5 * warmup^-0.5: 4.42e-4 for factor 1, d = 512 and 10,000 steps
    name: Literal["constant", "plateau", "step", "cosine", "one_cycle", "poly", "noam"] = "constant"
    warmup: Fraction = 0.0  # share of the stage's steps in which the rate rises linearly
    factor: Annotated[float, Field(gt=0, le=1)] = 0.8  # plateau, step: multiply by this ...
    patience: PositiveInt = 2  # ... plateau: after so many validations without a better score ...
    every: PositiveInt = 3  # ... step: after every so many epochs ...
    start: Annotated[int, Field(ge=0)] = 0  # ... plateau: but not before so many epochs; step: counted from here
    final: Fraction = 0.0  # cosine, one_cycle, poly: factor at the end
    power: PositiveFloat = 0.9  # poly: (1 - step / steps) ** power
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # the warm-up in optimiser steps; not both

    def __post_init__(self) -> None:
        if self.warmup and self.warmup_steps:
            raise ValueError("the warm-up is told twice: give warmup (a share) or warmup_steps")
        if self.name == "noam" and not (self.warmup or self.warmup_steps):
            raise ValueError("noam is made of its warm-up: give warmup_steps (or warmup, a share of the steps)")


@dataclass(frozen=True)
class Stage:
    """One objective for some epochs.  Stages run in order."""

    objective: Annotated[ObjectiveConfig, ConfigOf(OBJECTIVES)] = DEFAULT_OBJECTIVE  # what is minimised
    epochs: PositiveInt = 10  # passes over the training examples
    batch_size: PositiveInt = 64  # examples per step on all ranks together
    accumulate: PositiveInt = 1  # batches per optimiser step
    # side in pixels of the squares that the encoder makes of pictures in this stage, small ones first (progressive
    # resizing); None: the encoder's own, which the last stage should have, since the model is used so
    image_size: PositiveInt | None = None
    # an example is a medium with this many of its captions, drawn anew in each epoch; None: every pair of a medium and
    # a caption is an example of its own
    captions_per_medium: PositiveInt | None = None
    # of torch.optim; adabound: Luo et al. 2019, arXiv:1902.09843
    optimizer: Literal["adam", "adamw", "amsgrad", "sgd", "adabound", "rmsprop", "adagrad"] = "adamw"
    lr: PositiveFloat = 4e-4  # learning rate of the captioner
    encoder_lr: NonNegativeFloat = 1e-4  # for the encoder's trainable blocks
    # parts of the captioner by their dotted names (embed, cell_layers.0), of which the longest that fits counts: they
    # learn at so many times `lr`; 0 freezes their parameters (the statistics of a BatchNorm go on)
    lr_scale: dict[str, NonNegativeFloat] = field(default_factory=dict)
    weight_decay: NonNegativeFloat = 0.0  # of the optimizer
    # adam, adamw, amsgrad, adabound; rmsprop averages squares by the second
    betas: tuple[FractionBelowOne, FractionBelowOne] = (0.9, 0.999)
    # None: torch's own, 1e-8 (adagrad 1e-10); with noam betas 0.9, 0.98 and eps 1e-9 are published
    eps: PositiveFloat | None = None
    momentum: FractionBelowOne = 0.9  # sgd
    nesterov: bool = False  # sgd
    final_lr: PositiveFloat = 0.1  # adabound: the rate that it tends to
    schedule: Schedule = field(default_factory=Schedule)  # of the learning rate over the stage
    clip_norm: PositiveFloat | None = 5.0  # gradients are scaled down to this norm; null: not
    clip_value: PositiveFloat | None = None  # every gradient is cut to [-value, value]; null: not
    # decay of the exponential moving average of the weights, which is validated and kept instead of them; 0: none
    ema_decay: FractionBelowOne = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # fp16 needs CUDA; all stages share one precision
    patience: PositiveInt | None = None  # stop after so many validations without a better score


@dataclass(frozen=True)
class Validation:
    """Captions are generated freely (never teacher-forced) and scored; the best score picks the kept weights."""

    metric: Annotated[str, NameOf(METRICS)] = "CIDEr"  # decides which weights are kept
    beam: PositiveInt = 1  # hypotheses; 1 is greedy
    every: PositiveInt = 1  # epochs
    split: str = "val"  # of the data set
    limit: PositiveInt | None = None  # at most so many media


def _known_view(name: str) -> str:
    if name not in AUGMENTATIONS:
        raise ValueError(f"known augmentations are {', '.join(AUGMENTATIONS)}")
    return name


Augmentation = Annotated[str, AfterValidator(_known_view)]


@dataclass(frozen=True)
class Recipe:
    data: DataConfig = field(default_factory=DataConfig)  # captions and media
    encoder: Annotated[EncoderConfig, ConfigOf(ENCODERS)] = DEFAULT_ENCODER  # frames in, cells out
    # folder of a feature store, or feature files of others (HDF5, folders of .npy, .npz, .pth), several joined on D;
    # empty = the encoder runs on raw files, and may be trained
    features: str | tuple[str, ...] = ""
    feature_rows: FeatureRows = field(default_factory=FeatureRows)  # of others' files
    # training draws one of these augmentations of a medium each time
    augmentations: Annotated[tuple[Augmentation, ...], Field(min_length=1)] = ("full",)
    frames: PositiveInt = 8  # sampled from a clip, or from the rows of a feature file
    sampling: SamplingConfig = field(default_factory=SamplingConfig)  # which frames of a clip
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)  # the words that the captioner can write
    # captions written by a teacher or another model, mixed with the human ones of the training split
    pseudo_captions: PseudoCaptionsConfig = field(default_factory=PseudoCaptionsConfig)
    model: Annotated[CaptionerConfig, ConfigOf(CAPTIONERS)] = DEFAULT_CAPTIONER  # the captioner
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = (Stage(),)  # run one after the other
    validation: Validation = field(default_factory=Validation)  # during training
    # how captions are searched unless a command says otherwise
    decoding: Annotated[SearchOptions, ConfigOf(SEARCHES)] = field(default_factory=Beam)
    start: str = ""  # run folder whose vocabulary and best weights this run begins with, and has to beat
    checkpoint_steps: PositiveInt = 1000  # a resumable state is written so often, and after every epoch
    seed: int = 0  # of weights, order, dropout and sampling

    @property
    def plugins(self) -> tuple[str, ...]:
        """The packages, other than limner, that what this recipe names comes from."""
        entries = [
            CAPTIONERS[self.model.name],
            ENCODERS[self.encoder.name],
            DATASETS[self.data.name],
            METRICS[self.validation.metric],
            SEARCHES[self.decoding.name].run,
            *(OBJECTIVES[stage.objective.name] for stage in self.stages),
        ]
        return tuple(dict.fromkeys(package for entry in entries if (package := defining_package(entry)) != "limner"))

    @property
    def beam(self) -> Beam:
        """`decoding` where it is a beam search, else the default beam under its rules."""
        return self.decoding if isinstance(self.decoding, Beam) else Beam(rules=self.decoding.rules)

    @property
    def frame_sampling(self) -> FrameSampling:
        """The fields `frames` and `sampling` as one value."""
        return self.sampling.with_frames(self.frames)


REGISTRIES: tuple[Registry[Any], ...] = (CAPTIONERS, ENCODERS, DATASETS, METRICS, OBJECTIVES, SEARCHES)
DEFAULTS = {  # what an override may point into
    "encoder": {"name": DEFAULT_ENCODER.name},
    "augmentations": ["full"],
    "model": {"name": DEFAULT_CAPTIONER.name},
    "stages": [{"objective": {"name": DEFAULT_OBJECTIVE.name}}],
    "decoding": {"name": Beam().name},
}


def recipe_adapter() -> Any:
    """The pydantic `TypeAdapter` that validates, dumps and describes recipes, whatever is registered by now."""
    return _adapter(tuple(name for registry in REGISTRIES for name in registry))


@lru_cache(maxsize=4)
def _adapter(names: tuple[str, ...]) -> Any:
    """`names`: everything that is registered, since the schema is a union of it."""
    return TypeAdapter(Recipe)


Overrides = Mapping[str, object] | Sequence[tuple[str, object]]


def load_recipe(path: str | PathLike[str], overrides: Overrides = ()) -> Recipe:
    """Read a recipe from YAML (or from a run's JSON) and apply overrides: dotted field names and their new values.

    A value that is text is read as YAML, as on the command line.

    >>> recipe = load_recipe("recipe.yaml", {"stages.0.lr": 1e-4, "seed": "3"})
    >>> recipe.stages[0].lr, recipe.seed
    (0.0001, 3)

    In YAML, `${NAME}` and `${NAME:-default}` stand for environment variables (`variables.substitute`).  Raises
    ValueError, naming file and field, for a field that does not exist, listing the real ones, and for a value
    that cannot be.
    """
    load_entry_points()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}")
    try:
        saved = path.suffix == ".json"
        tree = migrate(read_json(path)) if saved else yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"{path} is not YAML{line}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        tree = tree if saved else substitute(tree, skip=dict(overrides))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return build_recipe({} if tree is None else tree, overrides, str(path))


def build_recipe(tree: Any, overrides: Overrides = (), where: str = "recipe") -> Recipe:
    """Plain dicts and lists -> a checked recipe.  `where` begins every error."""
    try:
        for name, value in overrides.items() if isinstance(overrides, Mapping) else overrides:
            tree = override(
                tree, name.split("."), parse_value(name, value) if isinstance(value, str) else value, name, DEFAULTS
            )
        tree = _with_search_name(tree)
        _check_fields(Recipe, tree, "")
        if "media" not in tree.get("data", {}) and not tree.get("features"):
            raise ValueError("data.media is required: the folder of the pictures or clips")
        return recipe_adapter().validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = _dotted(first["loc"], tree)
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(f"{where}: {name}: {first['msg']}, got {first.get('input')!r}{more}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _with_search_name(tree: Any) -> Any:
    """A recipe whose `decoding` names no search means a beam."""
    decoding = tree.get("decoding") if isinstance(tree, Mapping) else None
    if not isinstance(decoding, Mapping) or "name" in decoding:
        return tree
    return {**tree, "decoding": {"name": Beam().name, **decoding}}


def _dotted(place: Sequence[str | int], tree: Any) -> str:
    """The field at `place`, without the tags by which pydantic tells unions apart."""
    names = []
    for part in place:
        if not (isinstance(tree, Mapping) and part not in tree and part == tree.get("name")):
            names.append(str(part))
            items = (
                tree if isinstance(tree, Mapping) else dict(enumerate(tree if isinstance(tree, (list, tuple)) else ()))
            )
            tree = items.get(part)
    return ".".join(names)


def check_recipe(recipe: Recipe) -> None:
    """Raises ValueError, naming the field, for numbers that cannot be: a recipe may also be built in Python."""
    build_recipe(recipe_adapter().dump_python(recipe))


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    write_json(path, recipe_adapter().dump_python(recipe, mode="json"))


def recipe_differences(old: Recipe, new: Recipe) -> list[str]:
    """The fields that differ, a line each: `seed: 0 -> 1`."""

    def walk(before: Any, after: Any, name: str) -> list[str]:
        if isinstance(before, dict) and isinstance(after, dict):
            keys = list(dict.fromkeys([*before, *after]))
            return [line for key in keys for line in walk(before.get(key), after.get(key), f"{name}.{key}")]
        if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            pairs = enumerate(zip(before, after, strict=True))
            return [line for index, (a, b) in pairs for line in walk(a, b, f"{name}.{index}")]
        return [] if before == after else [f"{name[1:]}: {before!r} -> {after!r}"]

    return walk(recipe_adapter().dump_python(old, mode="json"), recipe_adapter().dump_python(new, mode="json"), "")


def _check_fields(kind: Any, tree: Any, where: str) -> None:
    """Refuse names that no dataclass has; unions are told apart by their `name` field."""
    if typing.get_origin(kind) is Annotated:
        kind, *notes = typing.get_args(kind)
        if of := next((note for note in notes if isinstance(note, ConfigOf)), None):
            _check_fields(_choose(of, tree, where), tree, where)
            return
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (tuple, list) and isinstance(tree, (list, tuple)):
        for index, item in enumerate(tree):
            _check_fields(arguments[0], item, f"{where}.{index}")
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        for choice in (choice for choice in arguments if dataclasses.is_dataclass(choice)):
            _check_fields(choice, tree, where)
    elif dataclasses.is_dataclass(kind):
        if not isinstance(tree, Mapping):
            raise ValueError(f"{where or 'a recipe'} takes fields, got {tree!r}")
        every = typing.get_type_hints(kind, include_extras=True)
        hints = {field.name: every[field.name] for field in dataclasses.fields(kind)}
        for key, value in tree.items():
            if key not in hints:
                now = new_field_name(where, key)
                hint = f" ('{key}' is called '{now}' now)" if now else ""
                raise ValueError(f"{where or 'a recipe'} has no field '{key}'{hint}; it has {', '.join(hints)}")
            _check_fields(hints[key], value, f"{where}.{key}".lstrip("."))


def _choose(of: ConfigOf, tree: Any, where: str) -> type:
    """The config that a tree's `name` chooses.  Raises ValueError that lists the known names."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where} takes fields, got {tree!r}")
    name = str(tree.get("name"))
    if name not in of.registry:
        raise ValueError(
            f"{where}.name is {tree.get('name')!r}; known are {', '.join(of.registry)}; if a plug-in brings it, load "
            "the plug-in (limner --plugin PACKAGE ...)"
        )
    entry = of.registry[name]
    return getattr(entry, "config", entry)
