"""Many hypotheses per medium that go on together, W places for each: what grouped and constrained beams share.

All media stay to the end, and every place has a row of states: simpler than `decode.search`'s beam, and slower.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limner.core.types import BOS, EOS, Captions
from limner.decode.ensemble import Inputs
from limner.decode.logits import apply_rules
from limner.decode.nbest import BeamHypothesis, NBest
from limner.decode.options import Beam
from limner.models.captioner import Captioner, map_tensors


class FixedWidthBeam:
    """`total` (B, W) is the log-probability of each, -inf where a place is empty."""

    def __init__(self, model: Captioner, inputs: Inputs, options: Beam, width: int, first: list[int]):
        """`first` are the places that begin with the empty hypothesis."""
        B, self.width, device = len(inputs), width, inputs.device
        self.model, self.options = model, options
        self.memory: Any = model.encode(inputs)  # type: ignore[arg-type]
        self.state: Any = map_tensors(lambda x: x.repeat_interleave(width, 0), model.init_state(self.memory))
        self.token = torch.full((B * width,), BOS, device=device)
        self.tokens = torch.empty(B * width, 0, dtype=torch.long, device=device)
        self.attention: Tensor | None = None
        self.total = torch.full((B, width), -torch.inf, device=device)
        self.total[:, first] = 0.0
        self.best = NBest(B, options.n_best)

    def score_next_words(self) -> Float[Tensor, "B W V"]:
        """Log-probabilities of every hypothesis with one more word; what the rules forbid is -inf."""
        out = self.model.step(self.token, self.state, self.memory)
        self.state = out.state
        seen = out.attention[:, None]
        self.attention = seen if self.attention is None else torch.cat([self.attention, seen], 1)
        logp = apply_rules(self.options.rules, out.logits.float().log_softmax(-1), self.tokens)
        scores = self.total[..., None] + logp.view(*self.total.shape, -1)
        if scores.isnan().any() or (self.tokens.shape[1] == 0 and not scores.isfinite().flatten(1).any(1).all()):
            bad = scores.isnan().flatten(1).any(1) | ~scores.isfinite().flatten(1).any(1)
            raise FloatingPointError(
                f"the model's scores for media {bad.nonzero().flatten().tolist()[:5]} of the batch are nan or all -inf"
            )
        return scores

    def extend(self, parent: Int[Tensor, "B W"], word: Int[Tensor, "B W"], total: Float[Tensor, "B W"]) -> None:
        """The places are taken by `word` after the hypothesis in place `parent`."""
        assert self.attention is not None
        rows = (torch.arange(len(parent), device=parent.device)[:, None] * self.width + parent).flatten()
        self.state = map_tensors(lambda x: x.index_select(0, rows), self.state)
        self.token = word.flatten()
        self.tokens = torch.cat([self.tokens[rows], self.token[:, None]], 1)
        self.attention, self.total = self.attention[rows], total

    def collect_ended(self, among: Bool[Tensor, "B W"]) -> Bool[Tensor, "B W"]:
        """Those `among` the places that have just ended leave the beam and may be among the best -> which did."""
        ended = among & self.total.isfinite() & (self.token.view_as(self.total) == EOS)
        divisor = self.options.divisor(self.tokens.shape[1])
        for medium, place in ended.nonzero().tolist():
            found = self._hypothesis(medium, place, divisor)
            if found.score > self.best.worst(medium):
                self.best.add(medium, found)
        self.total = self.total.masked_fill(ended, -torch.inf)
        return ended

    def finish(self, places: list[Int[Tensor, " _"]]) -> Captions:
        """The best per medium.  What no ended one has taken goes to the likeliest unfinished hypotheses of the first
        `places`, or where there is nothing at all, of the next ones."""
        for medium, mine in enumerate(self.best.hypotheses):
            for some in places[:1] if mine else places:
                order = some[self.total[medium, some].argsort(descending=True, stable=True)]
                for place in order[self.total[medium, order].isfinite()].tolist():
                    found = self._hypothesis(medium, place, 1.0)
                    if len(mine) < self.options.n_best and not any(
                        torch.equal(found.tokens, old.tokens) for old in mine
                    ):
                        mine.append(found)
                if mine:
                    break
        return self.best.captions()

    def _hypothesis(self, medium: int, place: int, divisor: float) -> BeamHypothesis:
        assert self.attention is not None
        logprob, row = self.total[medium, place].item(), medium * self.width + place
        return BeamHypothesis(logprob / divisor, logprob, self.tokens[row].clone(), self.attention[row].clone())
