"""The n best captions of every medium that a beam search has found."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from limner.core.types import PAD, Captions


class BeamHypothesis(NamedTuple):
    """One caption of a beam search, ended or not."""

    score: float  # what the search compares: the log-probability, normalised by length
    logprob: float  # natural logarithm, not normalised
    tokens: Tensor  # (L,) without BOS; EOS is the last one when the caption has ended
    attention: Tensor  # (L, N)


class NBest:
    """Up to `n_best` hypotheses per medium, sorted by score.  Of equal scores the first one added comes first; the
    same caption is stored once."""

    def __init__(self, media: int, n_best: int):
        self.n_best = n_best
        self.hypotheses: list[list[BeamHypothesis]] = [[] for _ in range(media)]

    def add(self, medium: int, new: BeamHypothesis) -> None:
        """Store `new`, and drop the worst one when there are more than `n_best`."""
        hypotheses = self.hypotheses[medium]
        if self.n_best == 1 or not any(torch.equal(new.tokens, old.tokens) for old in hypotheses):
            hypotheses.append(new)
            hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
            del hypotheses[self.n_best :]

    def worst(self, medium: int) -> float:
        """The score that a new hypothesis must exceed: that of the n-th best; -inf while there are fewer than n."""
        hypotheses = self.hypotheses[medium]
        return hypotheses[-1].score if len(hypotheses) == self.n_best else float("-inf")

    def captions(self) -> Captions:
        """`n_best` rows per medium, best first.  Missing rows are empty: PAD tokens, log-probability -inf."""
        example = next(hypothesis for hypotheses in self.hypotheses for hypothesis in hypotheses)
        empty = BeamHypothesis(float("-inf"), float("-inf"), example.tokens[:0], example.attention[:0])
        rows = [
            hypothesis
            for hypotheses in self.hypotheses
            for hypothesis in [*hypotheses, *[empty] * (self.n_best - len(hypotheses))]
        ]
        length = max(len(row.tokens) for row in rows)
        tokens = torch.stack([pad(row.tokens, (0, length - len(row.tokens)), value=PAD) for row in rows])
        maps = torch.stack([pad(row.attention, (0, 0, 0, length - len(row.tokens))) for row in rows])
        return Captions(tokens, torch.tensor([row.logprob for row in rows], device=tokens.device), maps)
