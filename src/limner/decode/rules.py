"""Rules that forbid words while decoding: their scores become -inf."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.types import EOS, UNK


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
        """Logits or log-probabilities of the next word after `tokens` (without BOS).

        A row in which the rules would leave nothing keeps its scores, so that there always is a next word.
        """
        forbidden = [] if self.unknown else [UNK]
        if tokens.shape[1] < self.min_length:
            forbidden.append(EOS)
        repeated = tokens[:, -1:] if self.no_repeat else tokens[:, :0]
        if forbidden or repeated.numel():
            ruled = scores.clone()
            ruled[:, forbidden] = -torch.inf
            ruled.scatter_(1, repeated, -torch.inf)
            return torch.where(ruled.amax(1, keepdim=True) == -torch.inf, scores, ruled)  # amax keeps nan
        return scores
