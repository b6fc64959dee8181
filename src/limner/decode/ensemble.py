"""Ensembles: several captioners write one caption together, and their predictions are averaged at every word."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from limner.core.types import Features, Pixels
from limner.decode.options import EQUAL_WEIGHTS, Averaging
from limner.models.captioner import Captioner, Step, TeacherForced, unroll
from limner.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class EnsembleInputs:
    """The inputs of an ensemble: the same B media as each of its members reads them, one entry per member."""

    parts: tuple[Features | Pixels, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    def to(self, device: torch.device | str) -> "EnsembleInputs":
        return EnsembleInputs(tuple(part.map(lambda x: x.to(device)) for part in self.parts))


Inputs = Features | Pixels | EnsembleInputs


class Ensemble(Captioner):
    """A captioner whose next-word distribution is the weighted mean of its members' distributions.

    Every search can use it like a single captioner.  Its attention is the weighted mean of the members' attention when
    all have the same number of cells; otherwise it is that of the first member.  Memory and state are tuples with an
    entry per member.
    """

    weights: Tensor

    def __init__(self, members: Sequence[Captioner], averaging: Averaging = EQUAL_WEIGHTS):
        """Raises ValueError unless there is one weight per member, each 0 or more and finite, and not all of them 0."""
        super().__init__()
        given = [1.0] * len(members) if averaging.weights is None else list(averaging.weights)
        if not members or len(given) != len(members) or not (min(given) >= 0 and 0 < sum(given) < inf):
            raise ValueError(
                f"{len(members)} members need as many weights, each 0 or more and not all of them 0; got {given}"
            )
        self.members = nn.ModuleList(members)
        self.average = averaging.of
        self.register_buffer("weights", torch.tensor(given) / sum(given), persistent=False)

    @property
    def _each(self) -> list[Captioner]:
        return [member for member in self.members if isinstance(member, Captioner)]

    def encode(self, inputs: Inputs) -> Any:
        """Each member reads its own part of `EnsembleInputs`; other inputs are read by all members."""
        parts = inputs.parts if isinstance(inputs, EnsembleInputs) else (inputs,) * len(self.members)
        assert len(parts) == len(self.members), "one part per member"
        return tuple(member.encode(part) for member, part in zip(self._each, parts, strict=True))

    def init_state(self, memory: Any) -> Any:
        return tuple(member.init_state(part) for member, part in zip(self._each, memory, strict=True))

    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        steps = [
            member.step(token, own_state, own_memory)
            for member, own_state, own_memory in zip(self._each, state, memory, strict=True)
        ]
        logits = self._average([step.logits for step in steps])
        return Step(logits, tuple(step.state for step in steps), self._attention([step.attention for step in steps]))

    def start_logits(self, state: Any) -> Float[Tensor, "R V"] | None:
        parts = [member.start_logits(own) for member, own in zip(self._each, state, strict=True)]
        known = [part for part in parts if part is not None]
        return self._average(known) if len(known) == len(parts) else None

    def _average(self, logits: list[Float[Tensor, "R V"]]) -> Float[Tensor, "R V"]:
        """The members' logits as those of one model."""
        logp = torch.stack([part.float().log_softmax(-1) for part in logits])  # (M, R, V)
        weights = self.weights[:, None, None]
        if self.average == "probabilities":
            return (logp + weights.log()).logsumexp(0)
        return logp.mul(weights).masked_fill(weights == 0, 0.0).sum(0).log_softmax(-1)  # 0 * -inf is nan

    def forward_teacher_forced(self, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        return unroll(self, memory, tokens)

    def _attention(self, maps: list[Float[Tensor, "R _"]]) -> Float[Tensor, "R N"]:
        if len({part.shape[1] for part in maps}) > 1:
            return maps[0]
        return (torch.stack([part.float() for part in maps]) * self.weights[:, None, None]).sum(0)


def check_same_vocabulary(vocabularies: Sequence[tuple[str, Vocabulary]]) -> None:
    """Check that all (name, vocabulary) pairs have the same words with the same ids.

    Raises ValueError that names the first id at which two vocabularies differ.
    """
    (first, words), *others = [(name, vocabulary.words) for name, vocabulary in vocabularies]
    for name, other in others:
        if other != words:
            at = next((i for i, (a, b) in enumerate(zip(words, other, strict=False)) if a != b), -1)
            where = f"id {at} is '{words[at]}' and '{other[at]}'" if at >= 0 else "one has the other's words and more"
            raise ValueError(
                f"an ensemble averages predictions word by word, so its members need one vocabulary; {first} has "
                f"{len(words)} words, {name} has {len(other)}: {where}. Train the second with `start: {first}`"
            )
