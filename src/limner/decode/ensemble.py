"""Several captioners that say one caption together: at every word their predictions are averaged."""

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
    """The same media as each member sees them: one entry per member, as many rows in each."""

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
    """A captioner like any other, for every search.  Its attention is the mean of its members' where they look at as
    many cells, otherwise the first one's."""

    weights: Tensor

    def __init__(self, members: Sequence[Captioner], averaging: Averaging = EQUAL_WEIGHTS):
        """Raises ValueError for weights that are not one per member, 0 or more and not all 0."""
        super().__init__()
        given = [1.0] * len(members) if averaging.weights is None else list(averaging.weights)
        if not members or len(given) != len(members) or not (min(given) >= 0 and 0 < sum(given) < inf):
            raise ValueError(f"{len(members)} members need as many weights, 0 or more and not all 0; got {given}")
        self.members = nn.ModuleList(members)
        self.average = averaging.of
        self.register_buffer("weights", torch.tensor(given) / sum(given), persistent=False)

    @property
    def _each(self) -> list[Captioner]:
        return [member for member in self.members if isinstance(member, Captioner)]

    def encode(self, inputs: Inputs) -> Any:
        """Members read their own part of `EnsembleInputs`, or all the same features."""
        parts = inputs.parts if isinstance(inputs, EnsembleInputs) else (inputs,) * len(self.members)
        assert len(parts) == len(self.members), "one part per member"
        return tuple(member.encode(part) for member, part in zip(self._each, parts, strict=True))

    def init_state(self, memory: Any) -> Any:
        return tuple(member.init_state(mine) for member, mine in zip(self._each, memory, strict=True))

    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        steps = [
            member.step(token, mine, theirs) for member, mine, theirs in zip(self._each, state, memory, strict=True)
        ]
        logp = torch.stack([step.logits.float().log_softmax(-1) for step in steps])  # (M, R, V)
        weights = self.weights[:, None, None]
        if self.average == "probabilities":
            logits = (logp + weights.log()).logsumexp(0)
        else:
            logits = logp.mul(weights).masked_fill(weights == 0, 0.0).sum(0).log_softmax(-1)  # 0 * -inf is nan
        return Step(logits, tuple(step.state for step in steps), self._attention([step.attention for step in steps]))

    def forward_teacher_forced(self, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        return unroll(self, memory, tokens)

    def _attention(self, maps: list[Float[Tensor, "R _"]]) -> Float[Tensor, "R N"]:
        if len({part.shape[1] for part in maps}) > 1:
            return maps[0]
        return (torch.stack([part.float() for part in maps]) * self.weights[:, None, None]).sum(0)


def check_same_vocabulary(vocabularies: Sequence[tuple[str, Vocabulary]]) -> None:
    """Raises ValueError, telling where they part, unless all (name, vocabulary) have the same words by the same ids."""
    (first, words), *others = [(name, vocabulary.words) for name, vocabulary in vocabularies]
    for name, theirs in others:
        if theirs != words:
            at = next((i for i, (a, b) in enumerate(zip(words, theirs, strict=False)) if a != b), -1)
            where = f"id {at} is '{words[at]}' and '{theirs[at]}'" if at >= 0 else "one has the other's words and more"
            raise ValueError(
                f"an ensemble averages predictions word by word, so its members need one vocabulary; {first} has "
                f"{len(words)} words, {name} has {len(theirs)}: {where}. Train the second with `start: {first}`"
            )
