"""Distillation: a student learns the captions' words, what its teacher expects and sees, and what captions are about.

    L = xe_weight L_xe + kl tau^2 KL(p_T || p_S) + attention KL(a_T || a_S) + hidden |A h_S - h_T|^2
        + features |C x_S - x_T|^2 + objects L_objects + actions L_actions + sentence L_sentence + joint L_T

All are means: over the words of the captions, along which both are taught (p, a, h: expected words at temperature tau,
attention over the cells, hidden state), over the cells (x, what the student's encoder sees), over channels.  A and C
are learnt where the widths differ.  Cells that tile the medium otherwise are brought to the student's by their overlap.
The levels are those of `levels`.  L_T is the teacher's own cross entropy: its weights learn from that alone, and are
kept in objective.safetensors; with joint 0 they are frozen.

Training on a teacher's sentences (Kim and Rush 2016, arXiv:1606.07947) is no objective: `pseudo_captions` of a
recipe mixes them into the captions of any; the levels then name what they say as well.
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
from limner.objectives.context import Context, Teacher, probe, seen
from limner.objectives.cross_entropy import CrossEntropy, smoothed
from limner.objectives.levels import Levels
from limner.objectives.matching import attention_divergence, distance, divergence, divergence_of_likeliest, tiling
from limner.objectives.objective import ObjectiveConfig
from limner.objectives.teacher_cache import TeacherCache

ALONG = ("kl", "attention", "hidden", "joint")  # terms for which the teacher reads the captions
TEACHER = (*ALONG, "features")
CACHED = "teacher_cache."  # begins the names of cached tensors in a checkpoint
LEVELS = ("objects", "actions", "sentence")


@dataclass(frozen=True)
class Distil(ObjectiveConfig):
    name: Literal["distil"] = "distil"
    teacher: str = ""  # folder of a run
    side: Literal["", "student", "teacher"] = ""  # of a teacher that has both (sft); empty: that of its recipe
    xe_weight: Fraction = 0.5  # of the cross entropy of the captions
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # that cross entropy
    kl: Fraction = 0.5  # weight of the divergence of word distributions
    temperature: PositiveFloat = 1.0  # tau
    attention: Fraction = 0.0  # weight of the divergence of attention
    hidden: Fraction = 0.0  # weight of the distance of hidden states
    features: Fraction = 0.0  # of an encoder that is trained along
    objects: Fraction = 0.0  # weight of naming the captions' nouns before the first word
    actions: Fraction = 0.0  # the same of verbs
    sentence: Fraction = 0.0  # the same of all words
    slots: PositiveInt = 8  # J
    joint: Fraction = 0.0  # weight of the teacher's own cross entropy; 0: the teacher is frozen
    # so many of the teacher's likeliest words are remembered for every word of a caption, and all others as if they
    # were one; 0: it is asked each time
    cache: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        asked = [term for term in TEACHER if getattr(self, term)]
        if asked and not self.teacher:
            raise ValueError(f"{', '.join(asked)} need a teacher: give the folder of a run, or set them to 0")
        if self.teacher and not asked:
            raise ValueError(f"the teacher is asked nothing: give {', '.join(TEACHER)} a weight, or leave it out")
        if self.side and not self.teacher:
            raise ValueError(f"side {self.side} is a teacher's: give the folder of a run, or leave it out")
        if not (self.xe_weight or asked or any(getattr(self, level) for level in LEVELS)):
            raise ValueError("all weights are 0: nothing is learnt")
        others = [term for term in asked if term != "kl"]
        if self.cache and (others or not asked):
            raise ValueError(
                f"cache keeps what kl asks for; {', '.join(others) or 'nothing'} asks the teacher each time"
            )
        if asked and self.xe.sampling.max_prob and (self.xe.sampling.initial_prob or self.xe.sampling.increase_prob):
            raise ValueError("xe.sampling reads words of the student's own, along which the teacher is not taught")

    @property
    def skips_gradients(self) -> bool:
        """May parts of a teacher that is trained along go unused, such as its encoder?"""
        return self.joint > 0

    @property
    def parameters_name(self) -> str:
        """Names what parameters it has of its own: a stage or run with the same parts goes on with them."""
        learnt = [term for term in ("hidden", "features", "joint", *LEVELS) if getattr(self, term)]
        return " ".join([self.name, *learnt, f"{self.slots} slots of {self.teacher}", self.side]).rstrip()

    @property
    def teacher_run(self) -> str:
        return self.teacher

    @property
    def teacher_side(self) -> str:
        return self.side

    def build(self, context: Context) -> "Distillation":
        """Raises ValueError for a teacher that cannot be compared with the student."""
        return Distillation(self, context)


class Distillation(nn.Module):
    """The objective."""

    def __init__(self, config: Distil, context: Context):
        super().__init__()
        assert context.student is not None, "widths are asked of it"
        assert context.sample is not None
        self.config = config
        self.wanted = tuple(term for term in TEACHER if getattr(config, term))
        self.teacher = context.teacher if self.wanted else None
        self.teacher_cache = TeacherCache(config.cache, config.temperature) if config.cache else None
        sample = context.sample()
        features, forced = probe(context.student, sample)
        self.match_hidden: nn.Module = nn.Identity()
        self.match_features: nn.Module = nn.Identity()
        if self.teacher is not None:
            self._compare(self.teacher, context, sample, features, forced)
        self.joint = self.teacher.model if self.teacher is not None and config.joint else None
        levels = tuple(level for level in LEVELS if getattr(config, level))
        self.levels: Levels | None = None
        if levels:
            hidden = _hidden(forced, "the student", levels)
            self.levels = Levels(levels, hidden.shape[-1], config.slots, context.vocabulary)

    def _compare(
        self, teacher: Teacher, context: Context, sample: Batch, features: Features, forced: TeacherForced
    ) -> None:
        """Check on a sample that each term can be computed, and make the projections that it needs."""
        if any(term in ALONG for term in self.wanted) and teacher.words is None:
            raise ValueError(
                f"{teacher.name} has other words than the student, so that {', '.join(ALONG)} cannot be compared word "
                "by word: let it write captions (`pseudo_captions` of a recipe mixes them in), or begin the "
                "student with its words"
            )
        cells = [term for term in self.wanted if term in ("attention", "features")]
        absent = (
            []
            if teacher.augmentations is None
            else [augmentation for augmentation in context.augmentations if augmentation not in teacher.augmentations]
        )
        if cells and absent:
            raise ValueError(
                f"{teacher.name} has no features in the augmentations {', '.join(absent)}, and {cells[0]} compares "
                "cells: "
                f"leave these augmentations out, or set {cells[0]} to 0"
            )
        if self.teacher_cache is not None and not teacher.fixed:
            raise ValueError(f"cache: {teacher.name} sees other frames of a clip each time; set cache to 0")
        student = context.student
        encoder = student.encoder if isinstance(student, FromPixels) else nn.Identity()
        if self.config.features and not any(parameter.requires_grad for parameter in encoder.parameters()):
            raise ValueError("features: the student's encoder is not trained, so that its cells cannot learn")
        with torch.no_grad():
            theirs, said = self._ask(teacher, sample)
        if cells:
            tiling(theirs, features)
        if self.config.attention:
            for who, model in (("the student", context.student), (teacher.name, teacher.model)):
                if model is not None and not model.attends:
                    raise ValueError(f"attention: {who} looks at all cells alike, whatever it says; set attention to 0")
        if self.config.hidden:
            assert said is not None
            own, wanted = _hidden(forced, "the student", ["hidden"]), _hidden(said, teacher.name, ["hidden"])
            self.match_hidden = _projection(own.shape[-1], wanted.shape[-1])
        if self.config.features:
            self.match_features = _projection(features.grid.shape[-1], theirs.grid.shape[-1])

    def checkpoint_state(self) -> dict[str, Tensor]:
        """What the teacher cache holds."""
        packed = {} if self.teacher_cache is None else self.teacher_cache.pack()
        return {f"{CACHED}{name}": value for name, value in packed.items()}

    def restore_checkpoint_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `checkpoint_state`."""
        if self.teacher_cache is not None:
            mine = {name.removeprefix(CACHED): x for name, x in tensors.items() if name.startswith(CACHED)}
            self.teacher_cache.unpack(mine)

    def forward(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """Raises FloatingPointError, naming media, where the teacher's scores are nan."""
        config = self.config
        features = seen(model, batch.inputs)
        forced = config.xe.forward_teacher_forced(model, model.encode(features), batch, epoch)
        loss, logs = Loss(forced.logits.new_zeros((), dtype=torch.float32), {})
        if config.xe_weight:
            xe, logs = config.xe.score(forced, batch)
            loss = loss + config.xe_weight * xe
        terms = self.compare(features, forced, batch)
        if self.levels is not None:
            state = _hidden(forced, "the student", list(self.levels.slots)).unflatten(0, (len(batch.ids), -1))[:, 0, 0]
            terms |= self.levels(state, batch.tokens)
        for name, term in terms.items():
            factor = config.temperature**2 if name == "kl" else 1.0
            loss, logs[name] = loss + getattr(config, name) * factor * term, term.item()
        return Loss(loss, logs)

    def compare(self, features: Features, forced: TeacherForced, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The terms that a teacher is asked for."""
        if self.teacher is None:
            return {}
        config, keep = self.config, batch.tokens[:, 1:] != PAD
        if self.teacher_cache is not None:
            words, scores = self.teacher_cache.of(batch, self._logits)
            return {"kl": divergence_of_likeliest(forced.logits[keep], words, scores, config.temperature)}
        terms = {}
        with torch.set_grad_enabled(self.joint is not None):
            theirs, said = self._ask(self.teacher, batch)
        if said is not None and config.joint:
            terms["joint"] = smoothed(said.logits[keep].float(), batch.tokens[:, 1:][keep], 0.0)[0]
        if said is not None and config.kl:
            terms["kl"] = divergence(forced.logits[keep], said.logits.detach()[keep], config.temperature)
        if said is not None and config.attention:
            there, tiles = said.attention.detach()[keep], tiling(theirs, features)
            there = there if tiles is None else there.float() @ tiles
            terms["attention"] = attention_divergence(forced.attention[keep], there)
        if said is not None and config.hidden:
            mine, its = (
                _hidden(x, who, ["hidden"])[keep] for x, who in ((forced, "the student"), (said, "the teacher"))
            )
            terms["hidden"] = distance(self.match_hidden(mine), its.detach())
        if config.features:
            grid, tiles = theirs.grid.detach().float(), tiling(theirs, features)
            grid = grid if tiles is None else (tiles / tiles.sum(0)).T @ grid
            real = features.mask
            terms["features"] = distance(self.match_features(features.grid)[real], grid[real])
        return terms

    def _ask(self, teacher: Teacher, batch: Batch) -> tuple[Features, TeacherForced | None]:
        """What the teacher sees of the media, and says along the captions, if a term needs that."""
        features = teacher.see(batch)
        if not any(term in ALONG for term in self.wanted):
            _sound(features.grid.flatten(1)[:, None], batch, f"the cells that {teacher.name} sees")
            return features, None
        forced = teacher.say(features, batch.tokens[:, :-1])
        keep = batch.tokens[:, 1:] != PAD
        _sound(forced.logits, batch, f"the scores of {teacher.name}", keep)
        return features, forced

    @torch.no_grad()
    def _logits(self, batch: Batch) -> Float[Tensor, "R L V"]:
        assert self.teacher is not None
        forced = self._ask(self.teacher, batch)[1]
        assert forced is not None
        return forced.logits


def _projection(own: int, theirs: int) -> nn.Module:
    return nn.Identity() if own == theirs else nn.Linear(own, theirs)


def _hidden(forced: TeacherForced, who: str, terms: Sequence[str]) -> Float[Tensor, "R L H"]:
    if forced.hidden is None:
        raise ValueError(f"{', '.join(terms)}: {who} is a captioner without hidden states to compare; set them to 0")
    return forced.hidden


def _sound(x: Float[Tensor, "R L V"], batch: Batch, what: str, keep: Bool[Tensor, "R L"] | None = None) -> None:
    """Raises FloatingPointError for nan or +inf; -inf is a word that is never said."""
    worst = x.detach().amax(-1)  # nan where there is one
    bad = ~worst.lt(torch.inf) if keep is None else ~worst.lt(torch.inf) & keep
    if bad.any():
        rows = bad.any(1).nonzero().flatten().tolist()
        ids = list(dict.fromkeys(batch.ids[row * len(batch.ids) // len(x)] for row in rows))
        raise FloatingPointError(
            f"{what} are nan or infinite for {len(ids)} of {len(batch.ids)} media, for example {ids[:4]}: look for NaN "
            "in its features of them, or in its weights"
        )
