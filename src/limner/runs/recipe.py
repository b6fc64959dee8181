"""`Recipe`: frozen dataclasses that describe a training run completely; `limner.runs.recipe_file` reads them."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter

from limner.core.fields import (
    ConfigOf,
    Fraction,
    FractionBelowOne,
    NameOf,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from limner.core.registry import Registry, defining_package
from limner.data.augmentations import AUGMENTATIONS
from limner.data.datasets import DATASETS, DataConfig, data_parts
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


@dataclass(frozen=True)
class VocabularyConfig:
    """How the vocabulary is built from the captions of the training split."""

    min_count: PositiveInt = 5  # rarer words become the unknown word
    tokenizer: str = "ptb"  # ptb, ptb-isolated, simple, split; without blanks: characters, script-runs
    max_words: PositiveInt = 30  # longer training captions are cut
    byte_pairs: str = ""  # folder with CLIP's vocab.json and merges.txt: words are its pieces, none is built or unknown
    vectors: str = ""  # GloVe text file (word v1 v2 ...; .gz too) or folder of a CLIP model, as wide as model.embed


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule: a factor of a stage's `lr` at each step."""

    # noam (Vaswani et al. 2017, section 5.3): linear rise, then proportional to 1 / sqrt(step).  `lr` is its peak; the
    # paper's factor * d^-0.5 * warmup^-0.5 is 4.42e-4 for factor 1, d = 512 and 10,000 warm-up steps
    name: Literal["constant", "plateau", "step", "cosine", "one_cycle", "poly", "noam"] = "constant"
    warmup: Fraction = 0.0  # share of the stage's steps in which the rate rises linearly
    factor: Annotated[float, Field(gt=0, le=1)] = 0.8  # plateau, step: the rate is multiplied by this factor
    patience: PositiveInt = 2  # plateau: number of validations without a better score before the rate is lowered
    every: PositiveInt = 3  # step: number of epochs between two reductions
    start: Annotated[int, Field(ge=0)] = 0  # plateau: epochs before the first reduction; step: epoch to count from
    final: Fraction = 0.0  # cosine, one_cycle, poly: factor at the end of the stage
    power: PositiveFloat = 0.9  # poly: the factor is (1 - step / steps) ** power
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # the warm-up in optimiser steps, instead of `warmup`

    def __post_init__(self) -> None:
        if self.warmup and self.warmup_steps:
            raise ValueError("warmup and warmup_steps are both given: give one, a share of the steps or their number")
        if self.name == "noam" and not (self.warmup or self.warmup_steps):
            raise ValueError("noam needs a warm-up: give warmup_steps (or warmup, a share of the steps)")


@dataclass(frozen=True)
class Stage:
    """One stage of training: an objective, an optimiser and a number of epochs.  Stages run in order."""

    objective: Annotated[ObjectiveConfig, ConfigOf(OBJECTIVES)] = DEFAULT_OBJECTIVE  # what is minimised
    epochs: PositiveInt = 10  # passes over the training examples
    batch_size: PositiveInt = 64  # examples per step on all ranks together
    accumulate: PositiveInt = 1  # batches per optimiser step
    # images are resized to this size (pixels) in this stage, for progressive resizing; None: the encoder's own size,
    # which the last stage should use, since captions are generated at that size
    image_size: PositiveInt | None = None
    # captions of a medium in one example, drawn at random in each epoch; None: every pair of a medium and a caption is
    # an example
    captions_per_medium: PositiveInt | None = None
    # of torch.optim; adabound: Luo et al. 2019, arXiv:1902.09843
    optimizer: Literal["adam", "adamw", "amsgrad", "sgd", "adabound", "rmsprop", "adagrad"] = "adamw"
    lr: PositiveFloat = 4e-4  # learning rate of the captioner
    encoder_lr: NonNegativeFloat = 1e-4  # for the encoder's trainable blocks; 0 freezes them in this stage
    # parts of the captioner by their dotted names (embed, cell_layers.0), of which the longest that fits counts: they
    # learn at so many times `lr`; 0 freezes their parameters (the statistics of a BatchNorm go on)
    lr_scale: dict[str, NonNegativeFloat] = field(default_factory=dict)
    weight_decay: NonNegativeFloat = 0.0  # of the optimizer
    # adam, adamw, amsgrad, adabound; rmsprop averages squares by the second
    betas: tuple[FractionBelowOne, FractionBelowOne] = (0.9, 0.999)
    # None: PyTorch's default, 1e-8 (adagrad 1e-10); noam was published with betas 0.9, 0.98 and eps 1e-9
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
    """Validation by generated captions (never teacher-forced); the weights with the best score are saved."""

    metric: Annotated[str, NameOf(METRICS)] = "CIDEr"  # decides which weights are kept
    beam: PositiveInt = 1  # hypotheses; 1 is greedy
    every: PositiveInt = 1  # epochs
    split: str = "val"  # of the data set
    limit: PositiveInt | None = None  # at most so many media


def _check_augmentation(name: str) -> str:
    """Raise ValueError, which lists the known names, for an unknown augmentation."""
    if name not in AUGMENTATIONS:
        raise ValueError(f"known augmentations are {', '.join(AUGMENTATIONS)}")
    return name


Augmentation = Annotated[str, AfterValidator(_check_augmentation)]


def _check_labels(data: DataConfig | tuple[DataConfig, ...]) -> DataConfig | tuple[DataConfig, ...]:
    """Raise ValueError when two data sets have the same label."""
    data_parts(data)
    return data


ONE_DATA_SET, DATA_SETS = "one data set", "data sets"  # names of the two forms of the field `data`
Data = Annotated[
    Annotated[DataConfig, Tag(ONE_DATA_SET)] | Annotated[tuple[DataConfig, ...], Field(min_length=1), Tag(DATA_SETS)],
    Discriminator(lambda data: DATA_SETS if isinstance(data, list | tuple) else ONE_DATA_SET),
    AfterValidator(_check_labels),
]


@dataclass(frozen=True)
class Recipe:
    """A training run: data, encoder, vocabulary, model, stages, validation and decoding."""

    data: Data = field(default_factory=DataConfig)  # captions and media; a list: several data sets, trained together
    encoder: Annotated[EncoderConfig, ConfigOf(ENCODERS)] = DEFAULT_ENCODER  # turns frames into cells
    # folder of a feature store, or feature files (HDF5, folders of .npy, .npz, .pth); several are concatenated on D;
    # empty: the encoder runs on raw files, and can be trained
    features: str | tuple[str, ...] = ""
    feature_rows: FeatureRows = field(default_factory=FeatureRows)  # how the rows of feature files are read
    # one of these augmentations is drawn whenever a training medium is read
    augmentations: Annotated[tuple[Augmentation, ...], Field(min_length=1)] = ("full",)
    frames: PositiveInt = 8  # frames that are sampled from a clip, or rows from a feature file
    sampling: SamplingConfig = field(default_factory=SamplingConfig)  # which frames of a clip
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)  # the known words
    # captions written by a teacher or another model, mixed with the human ones of the training split
    pseudo_captions: PseudoCaptionsConfig = field(default_factory=PseudoCaptionsConfig)
    model: Annotated[CaptionerConfig, ConfigOf(CAPTIONERS)] = DEFAULT_CAPTIONER  # turns cells into words
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = (Stage(),)  # run in order
    validation: Validation = field(default_factory=Validation)  # decides which weights are saved
    # how captions are generated unless a command asks for another search
    decoding: Annotated[SearchOptions, ConfigOf(SEARCHES)] = field(default_factory=Beam)
    # run folder, packed model or model inside limner (limner-small) that this run starts from: its words, to which
    # those of the training captions are added, and its best weights; better scores than theirs are saved.  What the
    # recipe leaves out of `model`, `encoder`, `vocabulary.tokenizer` and `vocabulary.min_count` is as in that model
    start: str = ""
    # processes that read batches in advance, of which any number gives the same run; 0: a thread reads them; null: 0,
    # or for raw media on a GPU one less than the cores, at most 8
    workers: NonNegativeInt | None = None
    checkpoint_steps: PositiveInt = 1000  # steps between two checkpoints; there is one after every epoch too
    seed: int = 0  # of weights, order, dropout and sampling

    @property
    def plugins(self) -> tuple[str, ...]:
        """Names of the packages, other than limner, that define what this recipe uses."""
        entries = [
            CAPTIONERS[self.model.name],
            ENCODERS[self.encoder.name],
            *(DATASETS[part.name] for part in data_parts(self.data).values()),
            METRICS[self.validation.metric],
            SEARCHES[self.decoding.name].run,
            *(OBJECTIVES[stage.objective.name] for stage in self.stages),
        ]
        return tuple(dict.fromkeys(package for entry in entries if (package := defining_package(entry)) != "limner"))

    @property
    def beam(self) -> Beam:
        """`decoding` when it is a beam search, else the default beam search with the rules of `decoding`."""
        return self.decoding if isinstance(self.decoding, Beam) else Beam(rules=self.decoding.rules)

    @property
    def frame_sampling(self) -> FrameSampling:
        """The fields `frames` and `sampling` as one value."""
        return self.sampling.with_frames(self.frames)


REGISTRIES: tuple[Registry[Any], ...] = (CAPTIONERS, ENCODERS, DATASETS, METRICS, OBJECTIVES, SEARCHES)


def recipe_adapter() -> Any:
    """Return the pydantic `TypeAdapter` that validates and dumps recipes, for everything that is registered now."""
    return _adapter(tuple(name for registry in REGISTRIES for name in registry))


@lru_cache(maxsize=4)
def _adapter(names: tuple[str, ...]) -> Any:
    """Build the adapter; `names` is the cache key: the names of all registered entries, which the schema contains."""
    return TypeAdapter(Recipe)
