"""SFTCap's total loss: both sides' captions, and what is told at three levels: objects, actions, the whole sentence.

    L = T L_teacher + (1 - T) L_student + lam_o L_objects + lam_a L_actions + lam_s L_sentence

L_teacher and L_student are label-smoothed losses of the same caption.  L_objects names the caption's nouns from the
object slots, L_actions its verbs from the action slots; which slot names which word is the cheapest assignment (Kuhn
1955).  L_sentence tells all words of the caption from the global vector.  Each is a mean over its words, and those of
the levels are T times the teacher's plus (1 - T) times the student's.  As in the published systems, whose weights of
levels reach 6.9, these lam may be above 1.

The published system calls itself distillation, but nothing passes from its teacher to its student except weights that
both share.  Here the student may also learn from what the teacher, as it is trained, makes of the same clip:

    + kl tau^2 KL(p_teacher || p_student) + match_objects (1 - cos(O_S, O_T)) + match_actions (1 - cos(A_S, A_T))
    + match_sentence (1 - cos(g_S, g_T))

all of them means, along the words of the captions or over slots, and none of them the teacher's to learn from.  O and A
are slot by slot what the head reads names from, g the global vectors.  A teacher that was trained before and is kept as
it is: objective `distil`, with `side: teacher`.

`published` follows ccc000-png/SFTCap to the letter: divergences to the smoothed target, summed over the batch, so that
the scale depends on it; no assignment, slot i names piece i of the first noun; actions are the student's, which are its
objects, and their labels the objects'.  There the labels come from the video's caption with the rarest words.

The word matrix is multiplied once, with the states of real words alone, of both sides and all levels together.
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
from limner.core.types import EOS, PAD, Batch, Features, Loss, Medium
from limner.models.captioner import Captioner, FromPixels
from limner.models.sft import Sft, SideView, written
from limner.models.sft_head import SftHead
from limner.objectives.assignment import match
from limner.objectives.context import Context, seen
from limner.objectives.matching import divergence
from limner.objectives.objective import ObjectiveConfig
from limner.text.vocabulary import Vocabulary
from limner.text.word_classes import nouns_and_verbs

PASSED = ("kl", "match_objects", "match_actions", "match_sentence")  # from teacher to student
NOUN = "man"  # when a caption has none, as published


@dataclass(frozen=True)
class SftLoss(ObjectiveConfig):
    name: Literal["sft"] = "sft"
    trains_all_parameters: ClassVar[bool] = True
    teacher_weight: Fraction = 0.5  # T
    objects: NonNegativeFloat = 0.0  # lam_o
    actions: NonNegativeFloat = 0.0  # lam_a
    sentence: NonNegativeFloat = 0.0  # lam_s
    label_smoothing: FractionBelowOne = 0.1  # epsilon, spread over the V - 1 other allowed words; published: 0.3
    kl: Fraction = 0.0  # weight of the divergence of the student's word distributions from the teacher's
    temperature: PositiveFloat = 1.0  # tau
    match_objects: Fraction = 0.0  # weight of the distance between the two sides' object slots
    match_actions: Fraction = 0.0  # the same of action slots
    match_sentence: Fraction = 0.0  # the same of the global vectors
    rarest: bool = False  # the teacher learns a clip's caption of the rarest words, which the published one only meant
    published: bool = False  # ccc000-png/SFTCap to the letter

    def __post_init__(self) -> None:
        ours = [name for name in ("sentence", *PASSED, "rarest") if getattr(self, name)]
        if self.published and ours:
            raise ValueError(f"{', '.join(ours)}: of ours, not published; leave them out, or set published to false")
        passed = [name for name in PASSED if getattr(self, name)]
        if passed and self.skips_gradients:
            raise ValueError(
                f"{', '.join(passed)}: a student learns from a teacher that is trained along, so that the teacher's "
                f"weight must lie between 0 and 1, not be {self.teacher_weight}; for one that is trained use "
                "objective distil"
            )

    def build(self, context: Context) -> "SftTraining":
        return SftTraining(self, Labels(context.vocabulary, context.media))

    @property
    def skips_gradients(self) -> bool:
        """Does one side learn nothing?  With weights of its own these then have no gradient."""
        return self.teacher_weight in (0, 1)


class Labels:
    """Nouns and verbs of captions, as ids."""

    def __init__(self, vocabulary: Vocabulary, media: Sequence[Medium] = ()):
        self.vocabulary = vocabulary
        captions = [text for medium in media for text in medium.references]
        self.count = len(captions)
        self.frequency = Counter(word for text in captions for word in set(text.lower().split()))
        self.of_text = lru_cache(maxsize=1 << 17)(self._of_text)

    def of_tokens(self, rows: Int[Tensor, "K L"]) -> tuple[list[int], list[int]]:
        """Nouns and verbs of all captions of a medium, each id once."""
        nouns: dict[int, None] = {}
        verbs: dict[int, None] = {}
        for row in rows.tolist():
            named, done = self.of_text(self.vocabulary.decode(row))
            nouns |= dict.fromkeys(named)
            verbs |= dict.fromkeys(done)
        return list(nouns), list(verbs)

    def _of_text(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        nouns, verbs = nouns_and_verbs(text.lower().split())
        return self._ids(nouns), self._ids(verbs)

    def _ids(self, words: Sequence[str]) -> tuple[int, ...]:
        return tuple(id for word in words for id in self.vocabulary.encode(word)[1:-1])

    def published(self, references: Sequence[str], slots: int) -> list[int]:
        """Pieces of the first noun of the chosen caption, EOS, and zeros: a label for each slot."""
        nouns, _ = nouns_and_verbs(self.teacher_caption(references).lower().split())
        ids = [*self._ids(nouns[:1] or [NOUN]), EOS][:slots]
        return ids + [PAD] * (slots - len(ids))

    def teacher_caption(self, references: Sequence[str]) -> str:
        """The one with the highest mean TF-IDF; the first of equals."""

        def rarity(text: str) -> float:
            words = text.lower().split()
            idf = [log((1 + self.count) / (1 + self.frequency[word])) for word in words]
            return sum(idf) / max(1, len(words))

        return max(references, key=rarity)


class Term(NamedTuple):
    """States, the words to be told from them, and where they count."""

    name: str
    head: SftHead
    hidden: Float[Tensor, "M h"]
    targets: Int[Tensor, " M"]
    weight: float


class SftTraining:
    """The objective."""

    def __init__(self, config: SftLoss, labels: Labels):
        self.config, self.labels = config, labels

    def __call__(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """Raises ValueError for another captioner than `sft`."""
        captioner, features = opened(model, batch)
        if self.config.published:
            slots = captioner.config.max_objects or features.layout.cells
            labels = [self.labels.published(references, slots) for references in batch.references]
            return self.published(captioner, features, batch.tokens, torch.tensor(labels).to(batch.tokens))
        share = self.config.teacher_weight
        if 0 < share < 1:
            sides = captioner.both_sides(features)
        else:
            name = "teacher" if share else "student"
            sides = {name: captioner.see(features, name)}
        terms = [self.caption(name, path, self.lesson(name, batch)) for name, path in sides.items()]
        for name, path in sides.items():
            terms += self.levels(name, path, batch.tokens)
        said = {name: term.hidden for name, term in zip(sides, terms, strict=False)}  # the captions' terms come first
        loss = self.total(terms, sides, batch.tokens)
        if any(getattr(self.config, name) for name in PASSED):
            for name, value in self.passed(sides, said, batch.tokens).items():
                scale = self.config.temperature**2 if name == "kl" else 1.0
                loss = Loss(loss.value + getattr(self.config, name) * scale * value, loss.logs | {name: value.item()})
        return loss

    def lesson(self, name: str, batch: Batch) -> Int[Tensor, "R L"]:
        """The captions that a side learns."""
        if not self.config.rarest or name == "student":
            return batch.tokens
        chosen = [self.labels.teacher_caption(references) for references in batch.references]
        rows = [torch.tensor(self.labels.vocabulary.encode(caption)) for caption in chosen]
        return pad_sequence(rows, batch_first=True, padding_value=PAD).to(batch.tokens)

    def published(self, model: Sft, features: Features, tokens: Int[Tensor, "R L"], labels: Int[Tensor, "B J"]) -> Loss:
        """Sums of divergences; `labels` name the slots, 0 where there is none."""
        sides = model.both_sides(features)
        student, keep = sides["student"], labels != PAD
        terms = [self.caption(name, path, tokens) for name, path in sides.items()]
        weights = {"objects": self.config.objects, "actions": self.config.actions}
        asked = {"objects": student.seen.object_semantics, "actions": student.seen.action_semantics}
        for level, semantics in asked.items():
            terms.append(Term(level, student.head, student.head.tell(semantics[keep]), labels[keep], weights[level]))
        loss, logs = nothing(sides), {}
        for term, (smoothed, _) in zip(terms, token_nlls(terms, self.config.label_smoothing), strict=True):
            words = int((~term.head.words.never).sum())
            value = smoothed.sum() - len(smoothed) * uncertainty(self.config.label_smoothing, words)
            loss, logs[term.name] = loss + term.weight * value, value.item()
        return Loss(loss, logs)

    def weight(self, name: str) -> float:
        return self.config.teacher_weight if name == "teacher" else 1 - self.config.teacher_weight

    def caption(self, name: str, path: SideView, tokens: Int[Tensor, "R L"]) -> Term:
        keep = tokens[:, 1:] != PAD
        hidden, _ = written(path.head, path.memory, tokens[:, :-1])
        return Term(f"xe_{name}", path.head, hidden[keep], tokens[:, 1:][keep], self.weight(name))

    def levels(self, name: str, path: SideView, tokens: Int[Tensor, "R L"]) -> list[Term]:
        """Objects and actions, if they count: the slots that name a word."""
        asked = {"objects": path.seen.object_semantics, "actions": path.seen.action_semantics}
        weights = {"objects": self.config.objects, "actions": self.config.actions}
        if not any(weights.values()):
            return []
        media = len(path.seen.present)
        words = [self.labels.of_tokens(rows) for rows in tokens.unflatten(0, (media, -1))]
        found = []
        for place, (level, semantics) in enumerate(asked.items()):
            if not weights[level]:
                continue
            told = path.head.tell(semantics)
            row, slot, word = assign(path.head, told, path.seen.present, [pair[place] for pair in words])
            if len(word):
                weight = weights[level] * self.weight(name)
                found.append(Term(f"{level}_{name}", path.head, told[row, slot], word, weight))
        return found

    def passed(
        self, sides: dict[str, SideView], said: dict[str, Tensor], tokens: Int[Tensor, "R L"]
    ) -> dict[str, Float[Tensor, ""]]:
        """How far the student is from its teacher, which does not learn from it.  `said` are the states that each side
        told the words of its lesson from."""
        teacher, student = sides["teacher"], sides["student"]
        there, here = teacher.seen, student.seen
        alike = {
            "match_objects": (here.object_semantics[here.present], there.object_semantics[there.present]),
            "match_actions": (here.action_semantics[here.present], there.action_semantics[there.present]),
            "match_sentence": (here.vector, there.vector),
        }
        found = {
            name: 1 - F.cosine_similarity(own.float(), its.detach().float(), dim=-1).mean()
            for name, (own, its) in alike.items()
            if getattr(self.config, name)
        }
        if self.config.kl:
            with torch.no_grad():  # along the student's captions, where the teacher's lesson was another one
                along = self.caption("teacher", teacher, tokens).hidden if self.config.rarest else said["teacher"]
                wanted = teacher.head.words(along)
            found["kl"] = divergence(student.head.words(said["student"]), wanted, self.config.temperature)
        return found

    def total(self, terms: list[Term], sides: dict[str, SideView], tokens: Int[Tensor, "R L"]) -> Loss:
        loss, logs = nothing(sides), {}
        for term, (smoothed, nll) in zip(terms, token_nlls(terms, self.config.label_smoothing), strict=True):
            loss = loss + term.weight * smoothed.mean()
            logs[term.name] = nll.mean().item()
        if self.config.sentence:
            for name, path in sides.items():
                told = sentence_loss(path, tokens)
                loss = loss + self.config.sentence * self.weight(name) * told
                logs[f"sentence_{name}"] = told.item()
        return Loss(loss, logs)


def opened(model: Captioner, batch: Batch) -> tuple[Sft, Features]:
    """The captioner, and the batch as features, through the encoder when it is pixels."""
    captioner = model.captioner if isinstance(model, FromPixels) else model
    if not isinstance(captioner, Sft):
        raise ValueError(f"objective sft trains model sft, not {type(captioner).__name__}; use xe or distil")
    return captioner, seen(model, batch.inputs)


def nothing(sides: dict[str, SideView]) -> Float[Tensor, ""]:
    """0, with a gradient of 0 for semantics that do not count: data-parallel training waits for one of every layer."""
    seen = [path.seen for path in sides.values()]
    idle = [part.sum() for side in seen for part in (side.object_semantics, side.action_semantics)]
    return 0.0 * torch.stack(idle).sum().float()


def uncertainty(epsilon: float, words: int) -> float:
    """Entropy of the smoothed target, in nats: what cross entropy has more than divergence."""
    rest = epsilon * log(epsilon / (words - 1)) if epsilon else 0.0
    return -((1 - epsilon) * log(1 - epsilon) + rest)


def token_nlls(terms: Sequence[Term], epsilon: float) -> list[tuple[Tensor, Tensor]]:
    """(smoothed loss, -log p) of every term's words, all terms of a head in one product with its word matrix."""
    found: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(terms)
    for head in {id(term.head): term.head for term in terms}.values():
        places = [place for place, term in enumerate(terms) if term.head is head]
        hidden, targets = (
            torch.cat([getattr(terms[place], part) for place in places]) for part in ("hidden", "targets")
        )
        both = head.token_nll(hidden, targets, epsilon)
        sizes = [len(terms[place].targets) for place in places]
        for place, loss, nll in zip(places, both[0].split(sizes), both[1].split(sizes), strict=True):
            found[place] = loss, nll
    return found


def sentence_loss(path: SideView, tokens: Int[Tensor, "R L"]) -> Float[Tensor, ""]:
    """Mean over the different words of every medium's captions of -log p, told from its global vector."""
    head = path.head
    logp = head.words(head.tell(head.read_frames(path.seen.vector))).float().log_softmax(-1)
    said = torch.zeros(logp.shape, dtype=torch.bool, device=logp.device)
    said.scatter_(1, tokens.reshape(len(logp), -1), True)
    said[:, : EOS + 1] = False
    return -logp[said & logp.isfinite()].mean() if said.any() else logp.new_zeros(())


@torch.no_grad()
def assign(
    head: SftHead, told: Float[Tensor, "B J h"], present: Tensor, words: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"], Int[Tensor, " M"]]:
    """-> medium, slot and word of every pair.  A slot's score for a word is its logit: the softmax over all words,
    which orders a slot's words alike, is left to the pairs that are chosen."""
    rows, slots, chosen = [], [], []
    for row, wanted in enumerate(words):
        if not wanted:
            continue
        real = present[row].nonzero().flatten().tolist()
        ids = torch.tensor(wanted, device=told.device)
        scores = told[row, real].float() @ head.words.weight[ids].float().T + head.words.bias[ids]
        for slot, word in match((-scores).tolist()):
            rows.append(row)
            slots.append(real[slot])
            chosen.append(wanted[word])
    pairs = torch.tensor([rows, slots, chosen], dtype=torch.long, device=told.device).view(3, -1)
    return pairs[0], pairs[1], pairs[2]
