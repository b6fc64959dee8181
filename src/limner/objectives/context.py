"""What an objective is built from: the training media, the student, the teacher, and ways to ask for samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from limner.core.types import Batch, Features, Medium, Pixels
from limner.models.captioner import Captioner, FromPixels, TeacherForced
from limner.text.vocabulary import SPECIALS, Vocabulary


@dataclass(frozen=True)
class Teacher:
    """A captioner that a student learns from.  It may read the media in another way, and may number words otherwise."""

    name: str  # for messages
    model: Captioner
    read_media: Callable[[Batch], Features | Pixels]  # reads the media of a batch in the form this model needs
    word_ids: Int[Tensor, " V"] | None = None  # the teacher's id of each student word; None: it lacks some of them
    augmentations: tuple[str, ...] | None = None  # the stored ones; others are read as "full".  None: it has all
    fixed: bool = True  # False: it sees other frames of a clip each time

    def encode_media(self, batch: Batch) -> Features:
        """The features that the teacher reads for the media of a batch."""
        return to_features(self.model, self.read_media(batch))

    def forward_teacher_forced(self, features: Features, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        """Teacher forcing along the student's tokens (student ids); the logits are those of the student's V words."""
        assert self.word_ids is not None
        word_ids = self.word_ids.to(tokens.device)
        forced = self.model.forward_teacher_forced(self.model.encode(features), word_ids[tokens])
        same = len(word_ids) == forced.logits.shape[-1] and bool((word_ids.diff() == 1).all())
        return forced if same else forced._replace(logits=forced.logits[..., word_ids])


@dataclass(frozen=True)
class Context:
    """Everything that an objective may use when it is built.  Parameters that it creates are on the CPU."""

    hidden: int = 0  # width of the captioner's hidden states, used when there is no student to measure it on
    feature_dim: int = 0
    media: Sequence[Medium] = ()  # the training split
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary(SPECIALS))
    warn: Callable[[str], None] = print  # receives warnings about training that does not learn
    student: Captioner | None = None  # the captioner that is trained
    sample: Callable[[], Batch] | None = None  # reads one training medium with a caption, on the student's device
    augmentations: tuple[str, ...] = ("full",)  # the augmentations of the training media
    teacher: Teacher | None = None
    batches_done: int = 0  # batches of this stage that were trained on before training was resumed


def to_features(model: Captioner, inputs: Features | Pixels) -> Features:
    """The features that the captioner reads: pixels go through its encoder, features stay as they are."""
    if not isinstance(inputs, Pixels):
        return inputs
    features: Features = (
        model.features(inputs) if isinstance(model, FromPixels) else model.get_submodule("encoder")(inputs)
    )
    return features


@torch.no_grad()
def dry_run(model: Captioner, batch: Batch) -> tuple[Features, TeacherForced]:
    """Features and teacher-forced outputs of a batch in evaluation mode, for their shapes."""
    training = model.training
    model.eval()
    features = to_features(model, batch.inputs)
    forced = model.forward_teacher_forced(model.encode(features), batch.tokens[:, :-1])
    model.train(training)
    return features, forced
