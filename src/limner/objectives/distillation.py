"""Knowledge distillation: a student learns from the captions and from a trained teacher.

    L = xe_weight L_xe + kl tau^2 KL(p_T || p_S) + attention KL(a_T || a_S) + hidden |A h_S - h_T|^2
        + features |C x_S - x_T|^2 + objects L_objects + actions L_actions + sentence L_sentence + joint L_T

T is the teacher, S the student; both run along the same captions by teacher forcing.  At every word, p is the word
distribution at temperature tau, a the attention over the cells, and h the hidden state; x are the features of a cell.
Every term is a mean: over the words of the captions (p, a, h) or over the cells (x), and over channels.

- A and C are learnt linear maps where the widths differ, else the identity.
- When the teacher's cells tile the medium in another way, they are mapped to the student's by their overlap.
- L_objects, L_actions and L_sentence are the losses of `levels`.
- L_T is the teacher's cross entropy.  With `joint` above 0 the teacher learns from this term alone, and its weights are
  saved in objective.safetensors; with `joint` 0 it is frozen.

Example for kl = 0.5, tau = 2, xe_weight = 0.5, L_xe = 3.0 and KL = 0.1: L = 0.5 * 3.0 + 0.5 * 2^2 * 0.1 = 1.7.

Training on a teacher's captions (Kim and Rush 2016, arXiv:1606.07947) needs no objective: `pseudo_captions` in a recipe
mixes them into the training captions.  The levels then use the words of these captions too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from limner.core.fields import Fraction, PositiveFloat, PositiveInt
from limner.core.types import PAD, Batch, Features, Loss
from limner.models.captioner import Captioner, FromPixels, TeacherForced
from limner.objectives.context import Context, Teacher, dry_run, to_features
from limner.objectives.cross_entropy import CrossEntropy, smoothed_cross_entropy
from limner.objectives.levels import LevelHeads
from limner.objectives.matching import (
    attention_divergence,
    cell_mapping,
    divergence,
    mean_squared_distance,
    top_k_divergence,
)
from limner.objectives.objective import ObjectiveConfig
from limner.objectives.teacher_cache import TeacherCache

TEACHER_FORCED_TERMS = ("kl", "attention", "hidden", "joint")  # terms that run the teacher along the captions
TEACHER_TERMS = (*TEACHER_FORCED_TERMS, "features")
CACHE_PREFIX = "teacher_cache."  # prefix of the names of cached tensors in a checkpoint
LEVELS = ("objects", "actions", "sentence")


@dataclass(frozen=True)
class Distil(ObjectiveConfig):
    """The objective `distil`; the fields are the weights of the terms above."""

    name: Literal["distil"] = "distil"
    teacher: str = ""  # run folder; empty: no teacher
    side: Literal["", "student", "teacher"] = ""  # side of a teacher that has both (sft); empty: the side in its recipe
    xe_weight: Fraction = 0.5  # weight of the cross entropy of the captions
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # options of that cross entropy
    kl: Fraction = 0.5  # weight of the divergence between word distributions
    temperature: PositiveFloat = 1.0  # tau of the divergence
    attention: Fraction = 0.0  # weight of the divergence between attention maps
    hidden: Fraction = 0.0  # weight of the distance between hidden states
    features: Fraction = 0.0  # weight of the distance between features; needs an encoder that is trained along
    objects: Fraction = 0.0  # weight of predicting the captions' nouns before the first word
    actions: Fraction = 0.0  # weight of predicting their verbs
    sentence: Fraction = 0.0  # weight of predicting all their words
    slots: PositiveInt = 8  # J: slots for objects, and as many for actions
    joint: Fraction = 0.0  # weight of the teacher's own cross entropy; 0: the teacher is frozen
    # how many of the teacher's likeliest words are cached for every position of a caption; all other words are one
    # class.  0: the teacher is run every time
    cache: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        active = [term for term in TEACHER_TERMS if getattr(self, term)]
        if active and not self.teacher:
            raise ValueError(f"{', '.join(active)} need a teacher: give the folder of a run, or set them to 0")
        if self.teacher and not active:
            raise ValueError(
                f"the teacher is not used: give a weight to one of {', '.join(TEACHER_TERMS)}, or leave the teacher out"
            )
        if self.side and not self.teacher:
            raise ValueError(
                f"side {self.side} selects a side of the teacher: give the folder of a run, or leave it out"
            )
        if not (self.xe_weight or active or any(getattr(self, level) for level in LEVELS)):
            raise ValueError("all weights are 0, so nothing is learnt: give one of them a value above 0")
        others = [term for term in active if term != "kl"]
        if self.cache and (others or not active):
            raise ValueError(
                f"cache stores what kl needs; {', '.join(others) or 'no other term'} runs the teacher each time: set "
                "cache to 0"
            )
        if active and self.xe.sampling.max_prob and (self.xe.sampling.initial_prob or self.xe.sampling.increase_prob):
            raise ValueError(
                "xe.sampling reads words of the student's own, which the teacher does not read: leave xe.sampling out, "
                "or set the weights of the teacher's terms to 0"
            )

    @property
    def skips_gradients(self) -> bool:
        """True with a teacher that is trained along: parts of it, for example its encoder, may get no gradient."""
        return self.joint > 0

    @property
    def parameters_name(self) -> str:
        """Names the terms with parameters of their own, the slots and the teacher."""
        learnt = [term for term in ("hidden", "features", "joint", *LEVELS) if getattr(self, term)]
        return " ".join([self.name, *learnt, f"{self.slots} slots of {self.teacher}", self.side]).rstrip()

    @property
    def teacher_run(self) -> str:
        return self.teacher

    @property
    def teacher_side(self) -> str:
        return self.side

    def build(self, context: Context) -> "Distillation":
        """The function of the objective.  Raises ValueError for a teacher that cannot be compared with the student."""
        return Distillation(self, context)


class Distillation(nn.Module):
    """The function of the objective; its parameters are A, C, the levels and a teacher that is trained along."""

    def __init__(self, config: Distil, context: Context):
        super().__init__()
        assert context.student is not None, "the student gives the widths"
        assert context.sample is not None
        self.config = config
        self.active_terms = tuple(term for term in TEACHER_TERMS if getattr(config, term))
        self.teacher = context.teacher if self.active_terms else None
        self.teacher_cache = TeacherCache(config.cache, config.temperature) if config.cache else None
        sample = context.sample()
        features, forced = dry_run(context.student, sample)
        self.match_hidden: nn.Module = nn.Identity()
        self.match_features: nn.Module = nn.Identity()
        if self.teacher is not None:
            self._prepare_terms(self.teacher, context, sample, features, forced)
        self.joint = self.teacher.model if self.teacher is not None and config.joint else None
        levels = tuple(level for level in LEVELS if getattr(config, level))
        self.levels: LevelHeads | None = None
        if levels:
            hidden = _require_hidden(forced, "the student", levels)
            self.levels = LevelHeads(levels, hidden.shape[-1], config.slots, context.vocabulary)

    def _prepare_terms(
        self, teacher: Teacher, context: Context, sample: Batch, features: Features, forced: TeacherForced
    ) -> None:
        """Check on a sample that each term can be computed, and create the linear maps A and C."""
        if any(term in TEACHER_FORCED_TERMS for term in self.active_terms) and teacher.word_ids is None:
            raise ValueError(
                f"{teacher.name} has other words than the student, so {', '.join(TEACHER_FORCED_TERMS)} cannot be "
                "compared word by word: let it write captions (`pseudo_captions` of a recipe mixes them in), or give "
                "the student the vocabulary of the teacher"
            )
        cells = [term for term in self.active_terms if term in ("attention", "features")]
        absent = (
            []
            if teacher.augmentations is None
            else [augmentation for augmentation in context.augmentations if augmentation not in teacher.augmentations]
        )
        if cells and absent:
            raise ValueError(
                f"{teacher.name} has no features in the augmentations {', '.join(absent)}, and {cells[0]} compares "
                f"cells: leave these augmentations out, or set {cells[0]} to 0"
            )
        if self.teacher_cache is not None and not teacher.fixed:
            raise ValueError(f"cache: {teacher.name} sees other frames of a clip each time; set cache to 0")
        student = context.student
        encoder = student.encoder if isinstance(student, FromPixels) else nn.Identity()
        if self.config.features and not any(parameter.requires_grad for parameter in encoder.parameters()):
            raise ValueError(
                "features: the student's encoder is not trained, so its features cannot learn: train it, or set "
                "features to 0"
            )
        with torch.no_grad():
            teacher_features, teacher_forced = self._run_teacher(teacher, sample)
        if cells:
            cell_mapping(teacher_features, features)
        if self.config.attention:
            for who, model in (("the student", context.student), (teacher.name, teacher.model)):
                if model is not None and not model.attends:
                    raise ValueError(f"attention: {who} looks at all cells alike at every word; set attention to 0")
        if self.config.hidden:
            assert teacher_forced is not None
            own, wanted = (
                _require_hidden(forced, "the student", ["hidden"]),
                _require_hidden(teacher_forced, teacher.name, ["hidden"]),
            )
            self.match_hidden = _make_projection(own.shape[-1], wanted.shape[-1])
        if self.config.features:
            self.match_features = _make_projection(features.grid.shape[-1], teacher_features.grid.shape[-1])

    def checkpoint_state(self) -> dict[str, Tensor]:
        """The teacher cache as tensors."""
        packed = {} if self.teacher_cache is None else self.teacher_cache.to_tensors()
        return {f"{CACHE_PREFIX}{name}": value for name, value in packed.items()}

    def restore_checkpoint_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore the teacher cache from the tensors of a checkpoint."""
        if self.teacher_cache is not None:
            packed = {
                name.removeprefix(CACHE_PREFIX): x for name, x in tensors.items() if name.startswith(CACHE_PREFIX)
            }
            self.teacher_cache.from_tensors(packed)

    def forward(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """The loss of a batch.  Raises FloatingPointError, with ids of media, where the teacher's scores are nan."""
        config = self.config
        features = to_features(model, batch.inputs)
        forced = config.xe.forward_teacher_forced(model, model.encode(features), batch, epoch)
        loss, logs = Loss(forced.logits.new_zeros((), dtype=torch.float32), {})
        if config.xe_weight:
            xe, logs = config.xe.loss(forced, batch)
            loss = loss + config.xe_weight * xe
        terms = self.teacher_terms(features, forced, batch)
        if self.levels is not None:
            state = _require_hidden(forced, "the student", list(self.levels.slots)).unflatten(0, (len(batch.ids), -1))[
                :, 0, 0
            ]
            terms |= self.levels(state, batch.tokens)
        for name, term in terms.items():
            factor = config.temperature**2 if name == "kl" else 1.0
            loss, logs[name] = loss + getattr(config, name) * factor * term, term.item()
        return Loss(loss, logs)

    def teacher_terms(self, features: Features, forced: TeacherForced, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The terms that need the teacher, before they are weighted."""
        if self.teacher is None:
            return {}
        config, keep = self.config, batch.tokens[:, 1:] != PAD
        if self.teacher_cache is not None:
            words, scores = self.teacher_cache.get(batch, self._teacher_logits)
            return {"kl": top_k_divergence(forced.logits[keep], words, scores, config.temperature)}
        terms = {}
        with torch.set_grad_enabled(self.joint is not None):
            teacher_features, teacher_forced = self._run_teacher(self.teacher, batch)
        if teacher_forced is not None and config.joint:
            terms["joint"] = smoothed_cross_entropy(
                teacher_forced.logits[keep].float(), batch.tokens[:, 1:][keep], 0.0
            )[0]
        if teacher_forced is not None and config.kl:
            terms["kl"] = divergence(forced.logits[keep], teacher_forced.logits.detach()[keep], config.temperature)
        if teacher_forced is not None and config.attention:
            target, mapping = teacher_forced.attention.detach()[keep], cell_mapping(teacher_features, features)
            target = target if mapping is None else target.float() @ mapping
            terms["attention"] = attention_divergence(forced.attention[keep], target)
        if teacher_forced is not None and config.hidden:
            own_hidden, teacher_hidden = (
                _require_hidden(x, who, ["hidden"])[keep]
                for x, who in ((forced, "the student"), (teacher_forced, "the teacher"))
            )
            terms["hidden"] = mean_squared_distance(self.match_hidden(own_hidden), teacher_hidden.detach())
        if config.features:
            grid, mapping = teacher_features.grid.detach().float(), cell_mapping(teacher_features, features)
            grid = grid if mapping is None else (mapping / mapping.sum(0)).T @ grid
            real = features.mask
            terms["features"] = mean_squared_distance(self.match_features(features.grid)[real], grid[real])
        return terms

    def _run_teacher(self, teacher: Teacher, batch: Batch) -> tuple[Features, TeacherForced | None]:
        """The teacher's features, and its teacher-forced outputs along the captions when a term needs them."""
        features = teacher.encode_media(batch)
        if not any(term in TEACHER_FORCED_TERMS for term in self.active_terms):
            _check_finite(features.grid.flatten(1)[:, None], batch, f"the features of {teacher.name}")
            return features, None
        forced = teacher.forward_teacher_forced(features, batch.tokens[:, :-1])
        keep = batch.tokens[:, 1:] != PAD
        _check_finite(forced.logits, batch, f"the scores of {teacher.name}", keep)
        return features, forced

    @torch.no_grad()
    def _teacher_logits(self, batch: Batch) -> Float[Tensor, "R L V"]:
        assert self.teacher is not None
        forced = self._run_teacher(self.teacher, batch)[1]
        assert forced is not None
        return forced.logits


def _make_projection(own: int, teacher: int) -> nn.Module:
    return nn.Identity() if own == teacher else nn.Linear(own, teacher)


def _require_hidden(forced: TeacherForced, who: str, terms: Sequence[str]) -> Float[Tensor, "R L H"]:
    if forced.hidden is None:
        raise ValueError(f"{', '.join(terms)}: {who} is a captioner without hidden states to compare; set them to 0")
    return forced.hidden


def _check_finite(x: Float[Tensor, "R L V"], batch: Batch, what: str, keep: Bool[Tensor, "R L"] | None = None) -> None:
    """Raises FloatingPointError for nan or +inf.  -inf is allowed: the score of a word that is never predicted."""
    worst = x.detach().amax(-1)  # nan where there is one
    bad = ~worst.lt(torch.inf) if keep is None else ~worst.lt(torch.inf) & keep
    if bad.any():
        rows = bad.any(1).nonzero().flatten().tolist()
        ids = list(dict.fromkeys(batch.ids[row * len(batch.ids) // len(x)] for row in rows))
        raise FloatingPointError(
            f"{what} are nan or infinite for {len(ids)} of {len(batch.ids)} media, for example {ids[:4]}: look for "
            "NaN in the features that it reads, or in its weights"
        )
