"""What an objective is built from: what it may ask of the training that it is part of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from limner.core.types import Batch, Features, Medium, Pixels
from limner.models.captioner import Captioner, TeacherForced
from limner.text.vocabulary import SPECIALS, Vocabulary


@dataclass(frozen=True)
class Teacher:
    """A captioner to learn from.  It reads media in its own way, and is asked in the words of the one that learns."""

    name: str  # for errors
    model: Captioner
    read: Callable[[Batch], Features | Pixels]  # the batch's media as this model reads them
    words: Int[Tensor, " V"] | None = None  # its id for each of the student's words; None: it has other words
    augmentations: tuple[str, ...] | None = None  # those it can read a medium in, else it reads "full"; None: all
    fixed: bool = True  # it sees the same of a medium and view each time

    def see(self, batch: Batch) -> Features:
        return seen(self.model, self.read(batch))

    def say(self, features: Features, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """Teacher forcing along the student's tokens; the logits are of the student's words."""
        assert self.words is not None
        words = self.words.to(tokens.device)
        forced = self.model.forward_teacher_forced(self.model.encode(features), words[tokens])
        same = len(words) == forced.logits.shape[-1] and bool((words.diff() == 1).all())
        return forced if same else forced._replace(logits=forced.logits[..., words])


@dataclass(frozen=True)
class Context:
    """What is freshly initialised from it is on the CPU."""

    hidden: int = 0  # width of the captioner's hidden states, where there is no student to ask
    feature_dim: int = 0
    media: Sequence[Medium] = ()  # the training split
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary(SPECIALS))
    warn: Callable[[str], None] = print  # hears of training that does not learn
    student: Captioner | None = None  # what is trained
    sample: Callable[[], Batch] | None = None  # some training medium and caption, where the student lies
    augmentations: tuple[str, ...] = ("full",)  # in which training media are read
    teacher: Teacher | None = None
    called: int = 0  # batches of this stage that were learnt from before training was resumed


def seen(model: Captioner, inputs: Features | Pixels) -> Features:
    """What the captioner reads: through the encoder in front of it, when it is pixels."""
    return model.get_submodule("encoder")(inputs) if isinstance(inputs, Pixels) else inputs


@torch.no_grad()
def probe(model: Captioner, batch: Batch) -> tuple[Features, TeacherForced]:
    """What the captioner makes of a batch, as it will when it is used; for its shapes."""
    training = model.training
    model.eval()
    features = seen(model, batch.inputs)
    forced = model.forward_teacher_forced(model.encode(features), batch.tokens[:, :-1])
    model.train(training)
    return features, forced
