"""The loss of SFTCap: captions of teacher and student, and words predicted at three levels.

    L = T L_teacher + (1 - T) L_student + lam_o L_objects + lam_a L_actions + lam_s L_sentence

L_teacher and L_student are label-smoothed cross entropies of the same caption.  L_objects predicts the caption's nouns
from the object slots and L_actions its verbs from the action slots; the cheapest assignment (Kuhn 1955) decides which
slot predicts which word, as in the example of `levels`.  L_sentence predicts all words of the caption from the global
vector.  Each is a mean over its words.  A level's loss is T times the teacher's plus (1 - T) times the student's.  The
weights lam may be above 1, because those of the published system reach 6.9.

The published system is called distillation, but nothing passes from its teacher to its student except shared weights.
Here the student can also learn from the teacher while both are trained:

    + kl tau^2 KL(p_teacher || p_student) + match_objects (1 - cos(O_S, O_T)) + match_actions (1 - cos(A_S, A_T))
    + match_sentence (1 - cos(g_S, g_T))

These are means over the words of the captions, or over slots, and the teacher does not learn from them.  O and A are
the semantics of object and action slots, g the global vectors.  For a teacher that was trained before and is frozen,
use the objective `distil` with `side: teacher`.

`published` follows ccc000-png/SFTCap exactly: divergences to the smoothed target, summed over the batch, which makes
the scale depend on the batch size; no assignment, slot i predicts piece i of the first noun; the action slots are the
student's, which are its object slots, and their labels are the objects'.  The labels come from the video's caption with
the rarest words.

The word matrix is multiplied once, with the states of the real words of both sides and all levels together.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from limner.core.fields import Fraction, FractionBelowOne, NonNegativeFloat, PositiveFloat
from limner.core.processes import mean_over_processes, process_count
from limner.core.types import EOS, PAD, Batch, Features, Loss, Medium
from limner.models.captioner import Captioner, FromPixels
from limner.models.sft import Sft, SideEncoding, teacher_forced_states
from limner.models.sft_head import SftHead
from limner.objectives.assignment import min_cost_assignment
from limner.objectives.context import Context, to_features
from limner.objectives.matching import divergence
from limner.objectives.objective import ObjectiveConfig
from limner.text.vocabulary import Vocabulary
from limner.text.word_classes import nouns_and_verbs

TEACHER_TO_STUDENT = (
    "kl",
    "match_objects",
    "match_actions",
    "match_sentence",
)  # terms that pass from teacher to student
DEFAULT_NOUN = "man"  # the label of a caption without a noun, as published


@dataclass(frozen=True)
class SftLoss(ObjectiveConfig):
    """The objective `sft`; the fields are the weights of the terms above."""

    name: Literal["sft"] = "sft"
    trains_all_parameters: ClassVar[bool] = True
    teacher_weight: Fraction = 0.5  # T
    objects: NonNegativeFloat = 0.0  # lam_o
    actions: NonNegativeFloat = 0.0  # lam_a
    sentence: NonNegativeFloat = 0.0  # lam_s
    label_smoothing: FractionBelowOne = 0.1  # epsilon, spread over the V - 1 other allowed words; published: 0.3
    kl: Fraction = 0.0  # weight of the divergence of the student's word distributions from the teacher's
    temperature: PositiveFloat = 1.0  # tau
    match_objects: Fraction = 0.0  # weight of the cosine distance between the two sides' object slots
    match_actions: Fraction = 0.0  # weight of that between their action slots
    match_sentence: Fraction = 0.0  # weight of that between their global vectors
    rarest: bool = False  # the teacher learns the clip's caption with the rarest words, as the published code intended
    published: bool = False  # exactly the loss of ccc000-png/SFTCap

    def __post_init__(self) -> None:
        unpublished = [name for name in ("sentence", *TEACHER_TO_STUDENT, "rarest") if getattr(self, name)]
        if self.published and unpublished:
            raise ValueError(
                f"{', '.join(unpublished)}: not in the published system; leave them out, or set published to false"
            )
        active = [name for name in TEACHER_TO_STUDENT if getattr(self, name)]
        if active and self.skips_gradients:
            raise ValueError(
                f"{', '.join(active)}: the student learns from a teacher that is trained along, so teacher_weight must "
                f"lie between 0 and 1, not be {self.teacher_weight}; for a teacher that is already trained use the "
                "objective distil"
            )

    def build(self, context: Context) -> "SftTraining":
        return SftTraining(self, WordLabels(context.vocabulary, context.media))

    @property
    def skips_gradients(self) -> bool:
        """True when only one side is trained: weights that only the other side uses then get no gradient."""
        return self.teacher_weight in (0, 1)


class WordLabels:
    """The nouns and verbs of captions, as word ids; `media` give the document frequencies for the rarest caption."""

    def __init__(self, vocabulary: Vocabulary, media: Sequence[Medium] = ()):
        self.vocabulary = vocabulary
        captions = [text for medium in media for text in medium.references]
        self.count = len(captions)
        self.frequency = Counter(word for text in captions for word in set(text.lower().split()))
        self.from_text = lru_cache(maxsize=1 << 17)(self._from_text)

    def from_tokens(self, rows: Int[Tensor, "K L"]) -> tuple[list[int], list[int]]:
        """Nouns and verbs of all K captions of a medium, each id once."""
        nouns: dict[int, None] = {}
        verbs: dict[int, None] = {}
        for row in rows.tolist():
            row_nouns, row_verbs = self.from_text(self.vocabulary.decode(row))
            nouns |= dict.fromkeys(row_nouns)
            verbs |= dict.fromkeys(row_verbs)
        return list(nouns), list(verbs)

    def _from_text(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        nouns, verbs = nouns_and_verbs(text.lower().split())
        return self._ids(nouns), self._ids(verbs)

    def _ids(self, words: Sequence[str]) -> tuple[int, ...]:
        return tuple(id for word in words for id in self.vocabulary.encode(word)[1:-1])

    def published_labels(self, references: Sequence[str], slots: int) -> list[int]:
        """The published labels, one per slot: pieces of the first noun of the rarest caption, EOS, and PAD."""
        nouns, _ = nouns_and_verbs(self.rarest_caption(references).lower().split())
        ids = [*self._ids(nouns[:1] or [DEFAULT_NOUN]), EOS][:slots]
        return ids + [PAD] * (slots - len(ids))

    def rarest_caption(self, references: Sequence[str]) -> str:
        """The caption with the highest mean inverse document frequency of its words; the first one of equals."""

        def rarity(text: str) -> float:
            words = text.lower().split()
            idf = [log((1 + self.count) / (1 + self.frequency[word])) for word in words]
            return sum(idf) / max(1, len(words))

        return max(references, key=rarity)


class WordLossTerm(NamedTuple):
    """One term of the loss: M hidden states, the word that each must predict, and the weight of the term."""

    name: str
    head: SftHead
    hidden: Float[Tensor, "M h"]
    targets: Int[Tensor, " M"]
    weight: float


class SftTraining:
    """The function of the objective."""

    def __init__(self, config: SftLoss, labels: WordLabels):
        self.config, self.labels = config, labels

    def __call__(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """The loss of a batch.  Raises ValueError for a captioner other than `sft`."""
        captioner, features = captioner_and_features(model, batch)
        if self.config.published:
            slots = captioner.config.max_objects or features.layout.cells
            labels = [self.labels.published_labels(references, slots) for references in batch.references]
            return self.published_loss(captioner, features, batch.tokens, torch.tensor(labels).to(batch.tokens))
        share = self.config.teacher_weight
        if 0 < share < 1:
            sides = captioner.encode_both_sides(features)
        else:
            name = "teacher" if share else "student"
            sides = {name: captioner.encode_side(features, name)}
        terms = [self.caption_term(name, side, self.target_captions(name, batch)) for name, side in sides.items()]
        for name, side in sides.items():
            terms += self.level_terms(name, side, batch.tokens)
        hidden = {name: term.hidden for name, term in zip(sides, terms, strict=False)}  # the captions' terms come first
        loss = self.total_loss(terms, sides, batch.tokens)
        if any(getattr(self.config, name) for name in TEACHER_TO_STUDENT):
            for name, value in self.teacher_to_student_terms(sides, hidden, batch.tokens).items():
                scale = self.config.temperature**2 if name == "kl" else 1.0
                loss = Loss(loss.value + getattr(self.config, name) * scale * value, loss.logs | {name: value.item()})
        return loss

    def target_captions(self, name: str, batch: Batch) -> Int[Tensor, "R L"]:
        """The captions that a side learns: those of the batch; with `rarest` the teacher learns one per clip."""
        if not self.config.rarest or name == "student":
            return batch.tokens
        chosen = [self.labels.rarest_caption(references) for references in batch.references]
        rows = [torch.tensor(self.labels.vocabulary.encode(caption)) for caption in chosen]
        return pad_sequence(rows, batch_first=True, padding_value=PAD).to(batch.tokens)

    def published_loss(
        self, model: Sft, features: Features, tokens: Int[Tensor, "R L"], labels: Int[Tensor, "B J"]
    ) -> Loss:
        """The published loss: sums of divergences.  `labels` are the words of the slots, PAD where a slot has none."""
        sides = model.encode_both_sides(features)
        student, keep = sides["student"], labels != PAD
        terms = [self.caption_term(name, side, tokens) for name, side in sides.items()]
        weights = {"objects": self.config.objects, "actions": self.config.actions}
        slots = {"objects": student.semantics.object_semantics, "actions": student.semantics.action_semantics}
        for level, semantics in slots.items():
            terms.append(
                WordLossTerm(level, student.head, student.head.transform(semantics[keep]), labels[keep], weights[level])
            )
        loss, logs = zero_loss(sides), {}
        for term, (smoothed, _) in zip(terms, token_nlls(terms, self.config.label_smoothing), strict=True):
            words = int((~term.head.words.never).sum())
            value = smoothed.sum() - len(smoothed) * smoothed_target_entropy(self.config.label_smoothing, words)
            value = value * process_count()  # data-parallel training averages, and the published loss is a sum
            loss, logs[term.name] = loss + term.weight * value, value.item()
        return Loss(loss, logs)

    def side_weight(self, name: str) -> float:
        """T for the teacher, 1 - T for the student."""
        return self.config.teacher_weight if name == "teacher" else 1 - self.config.teacher_weight

    def caption_term(self, name: str, side: SideEncoding, tokens: Int[Tensor, "R L"]) -> WordLossTerm:
        """The cross entropy of captions on one side."""
        keep = tokens[:, 1:] != PAD
        hidden, _ = teacher_forced_states(side.head, side.memory, tokens[:, :-1])
        return WordLossTerm(f"xe_{name}", side.head, hidden[keep], tokens[:, 1:][keep], self.side_weight(name))

    def level_terms(self, name: str, side: SideEncoding, tokens: Int[Tensor, "R L"]) -> list[WordLossTerm]:
        """The terms of objects and actions that have a weight: the slots that the assignment gives a word."""
        slots = {"objects": side.semantics.object_semantics, "actions": side.semantics.action_semantics}
        weights = {"objects": self.config.objects, "actions": self.config.actions}
        if not any(weights.values()):
            return []
        media = len(side.semantics.present)
        words = [self.labels.from_tokens(rows) for rows in tokens.unflatten(0, (media, -1))]
        terms = []
        for part, (level, semantics) in enumerate(slots.items()):
            if not weights[level]:
                continue
            hidden = side.head.transform(semantics)
            row, slot, word = assign_slots(side.head, hidden, side.semantics.present, [pair[part] for pair in words])
            if len(word) or process_count() > 1:  # all processes take part in a mean
                weight = weights[level] * self.side_weight(name)
                terms.append(WordLossTerm(f"{level}_{name}", side.head, hidden[row, slot], word, weight))
        return terms

    def teacher_to_student_terms(
        self, sides: dict[str, SideEncoding], hidden: dict[str, Tensor], tokens: Int[Tensor, "R L"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The distances of the student from its teacher, before they are weighted; the teacher gets no gradient.

        `hidden` are the states from which each side predicts the words of its captions.
        """
        teacher, student = sides["teacher"], sides["student"]
        target, own = teacher.semantics, student.semantics
        pairs = {
            "match_objects": (own.object_semantics[own.present], target.object_semantics[target.present]),
            "match_actions": (own.action_semantics[own.present], target.action_semantics[target.present]),
            "match_sentence": (own.vector, target.vector),
        }
        terms = {
            name: 1 - mean_over_processes(F.cosine_similarity(a.float(), b.detach().float(), dim=-1))
            for name, (a, b) in pairs.items()
            if getattr(self.config, name)
        }
        if self.config.kl:
            with torch.no_grad():  # with `rarest` the teacher has learnt other captions: run it along the student's
                along = (
                    self.caption_term("teacher", teacher, tokens).hidden if self.config.rarest else hidden["teacher"]
                )
                logits = teacher.head.words(along)
            terms["kl"] = divergence(student.head.words(hidden["student"]), logits, self.config.temperature)
        return terms

    def total_loss(self, terms: list[WordLossTerm], sides: dict[str, SideEncoding], tokens: Int[Tensor, "R L"]) -> Loss:
        """The weighted sum of the terms and of L_sentence; `logs` hold -log p without smoothing."""
        loss, logs = zero_loss(sides), {}
        for term, (smoothed, nll) in zip(terms, token_nlls(terms, self.config.label_smoothing), strict=True):
            loss = loss + term.weight * mean_over_processes(smoothed)
            logs[term.name] = mean_over_processes(nll).item()
        if self.config.sentence:
            for name, side in sides.items():
                value = sentence_loss(side, tokens)
                loss = loss + self.config.sentence * self.side_weight(name) * value
                logs[f"sentence_{name}"] = value.item()
        return Loss(loss, logs)


def captioner_and_features(model: Captioner, batch: Batch) -> tuple[Sft, Features]:
    """The captioner behind an encoder, if there is one, and the features of the batch."""
    captioner = model.captioner if isinstance(model, FromPixels) else model
    if not isinstance(captioner, Sft):
        raise ValueError(
            f"objective sft trains model sft, not {type(captioner).__name__}; use the objective xe or distil"
        )
    return captioner, to_features(model, batch.inputs)


def zero_loss(sides: dict[str, SideEncoding]) -> Float[Tensor, ""]:
    """0, with a gradient of 0 for semantics without a weight: data-parallel training waits for every layer."""
    semantics = [side.semantics for side in sides.values()]
    unused = [part.sum() for clip in semantics for part in (clip.object_semantics, clip.action_semantics)]
    return 0.0 * torch.stack(unused).sum().float()


def smoothed_target_entropy(epsilon: float, words: int) -> float:
    """Entropy of the smoothed target over `words` words, in nats: cross entropy minus divergence.

    >>> round(smoothed_target_entropy(0.5, 3), 4)  # of (1/2, 1/4, 1/4): log(2) / 2 + log(4) / 2
    1.0397
    """
    rest = epsilon * log(epsilon / (words - 1)) if epsilon else 0.0
    return -((1 - epsilon) * log(1 - epsilon) + rest)


def token_nlls(terms: Sequence[WordLossTerm], epsilon: float) -> list[tuple[Tensor, Tensor]]:
    """(smoothed loss, -log p) of the words of every term.  Terms of one head share a product with its word matrix."""
    losses: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(terms)
    for head in {id(term.head): term.head for term in terms}.values():
        places = [place for place, term in enumerate(terms) if term.head is head]
        hidden, targets = (
            torch.cat([getattr(terms[place], part) for place in places]) for part in ("hidden", "targets")
        )
        both = head.token_nll(hidden, targets, epsilon)
        sizes = [len(terms[place].targets) for place in places]
        for place, loss, nll in zip(places, both[0].split(sizes), both[1].split(sizes), strict=True):
            losses[place] = loss, nll
    return losses


def sentence_loss(side: SideEncoding, tokens: Int[Tensor, "R L"]) -> Float[Tensor, ""]:
    """L_sentence: mean of -log p over the distinct words of a medium's captions, predicted from its global vector."""
    head = side.head
    logp = head.words(head.transform(head.read_frames(side.semantics.vector))).float().log_softmax(-1)
    present = torch.zeros(logp.shape, dtype=torch.bool, device=logp.device)
    present.scatter_(1, tokens.reshape(len(logp), -1), True)
    present[:, : EOS + 1] = False
    return -mean_over_processes(logp[present & logp.isfinite()])


@torch.no_grad()
def assign_slots(
    head: SftHead, hidden: Float[Tensor, "B J h"], present: Tensor, words: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"], Int[Tensor, " M"]]:
    """The cheapest assignment of a medium's slots to its `words` -> medium, slot and word id of every pair.

    The score of a slot for a word is its logit.  A log-probability would differ by the slot's normaliser over all
    words, which costs a product with the whole word matrix; only the chosen pairs are normalised, in `token_nlls`.
    """
    rows, slots, chosen = [], [], []
    for row, targets in enumerate(words):
        if not targets:
            continue
        real = present[row].nonzero().flatten().tolist()
        ids = torch.tensor(targets, device=hidden.device)
        scores = hidden[row, real].float() @ head.words.weight[ids].float().T + head.words.bias[ids]
        for slot, word in min_cost_assignment((-scores).tolist()):
            rows.append(row)
            slots.append(real[slot])
            chosen.append(targets[word])
    pairs = torch.tensor([rows, slots, chosen], dtype=torch.long, device=hidden.device).view(3, -1)
    return pairs[0], pairs[1], pairs[2]
