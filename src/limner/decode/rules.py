"""Rules that forbid words while decoding: functions (scores, tokens so far) -> scores with -inf where forbidden."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.types import EOS, UNK

Rule = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rules:
    """What a caption may not do."""

    min_length: int = 1  # words before EOS is allowed
    max_length: int = 20  # tokens, EOS included; a longer caption stays unfinished
    no_repeat: bool = True  # the same word twice in a row
    unknown: bool = False  # may the unknown word be spoken?

    def __post_init__(self) -> None:
        if not 0 <= self.min_length < self.max_length:
            raise ValueError(f"expected 0 <= min_length < max_length, got {self.min_length} and {self.max_length}")

    def apply(self, scores: Float[Tensor, "R V"], tokens: Int[Tensor, "R t"]) -> Float[Tensor, "R V"]:
        """Logits or log-probabilities of the next word after `tokens` (without BOS)."""
        forbidden = [] if self.unknown else [UNK]
        if tokens.shape[1] < self.min_length:
            forbidden.append(EOS)
        repeated = tokens[:, -1:] if self.no_repeat else tokens[:, :0]
        if forbidden or repeated.numel():
            scores = scores.clone()
            scores[:, forbidden] = -torch.inf
            scores.scatter_(1, repeated, -torch.inf)
        return scores
