"""The best captions of every medium that a search has found so far."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from limner.core.types import PAD, Captions


class BeamHypothesis(NamedTuple):
    score: float  # what the search compares: the log-probability, normalised by length
    logprob: float
    tokens: Tensor  # (L,)
    attention: Tensor  # (L, N)


class NBest:
    """The `n_best` best of each medium, best first; of equal ones the first to come, of two alike only one."""

    def __init__(self, media: int, n_best: int):
        self.n_best = n_best
        self.hypotheses: list[list[BeamHypothesis]] = [[] for _ in range(media)]

    def add(self, medium: int, new: BeamHypothesis) -> None:
        mine = self.hypotheses[medium]
        if self.n_best == 1 or not any(torch.equal(new.tokens, old.tokens) for old in mine):
            mine.append(new)
            mine.sort(key=lambda found: -found.score)
            del mine[self.n_best :]

    def worst(self, medium: int) -> float:
        """What a caption must beat to be kept."""
        mine = self.hypotheses[medium]
        return mine[-1].score if len(mine) == self.n_best else float("-inf")

    def captions(self) -> Captions:
        """`n_best` rows per medium.  Rows that a medium lacks are empty, of log-probability -inf."""
        some = next(found for mine in self.hypotheses for found in mine)
        nothing = BeamHypothesis(float("-inf"), float("-inf"), some.tokens[:0], some.attention[:0])
        rows = [found for mine in self.hypotheses for found in [*mine, *[nothing] * (self.n_best - len(mine))]]
        length = max(len(found.tokens) for found in rows)
        tokens = torch.stack([pad(found.tokens, (0, length - len(found.tokens)), value=PAD) for found in rows])
        maps = torch.stack([pad(found.attention, (0, 0, 0, length - len(found.tokens))) for found in rows])
        return Captions(tokens, torch.tensor([found.logprob for found in rows], device=tokens.device), maps)
