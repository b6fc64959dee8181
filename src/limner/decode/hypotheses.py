"""A beam of fixed width: W slots per medium, which grouped and constrained beam searches divide among themselves.

All media stay in the batch to the end and every slot has a row of decoder states, also when it is empty.  This is
simpler than the beam of `decode.search`, and slower.
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
    """B media with W hypotheses each.

    `total` (B, W) is the log-probability of each hypothesis, -inf where a slot is empty; `tokens` (B * W, t) are their
    words so far; `attention` (B * W, t, N) is their attention; `best` collects the captions that have ended.
    """

    def __init__(self, model: Captioner, inputs: Inputs, options: Beam, width: int, first: list[int]):
        """Only the slots in `first` hold a hypothesis before the first word, the empty one."""
        B, self.width, device = len(inputs), width, inputs.device
        self.decoding_step, self.options = model.decoding_step(), options
        self.memory: Any = model.encode(inputs)  # type: ignore[arg-type]
        self.state: Any = map_tensors(lambda x: x.repeat_interleave(width, 0), model.init_state(self.memory))
        self.token = torch.full((B * width,), BOS, device=device)
        self.tokens = torch.empty(B * width, 0, dtype=torch.long, device=device)
        self.attention: Tensor | None = None
        self.total = torch.full((B, width), -torch.inf, device=device)
        self.total[:, first] = 0.0
        self.best = NBest(B, options.n_best)

    def score_next_words(self) -> Float[Tensor, "B W V"]:
        """Log-probability of every hypothesis extended by every word; -inf where a rule forbids the word.

        Raises FloatingPointError when a model's scores are nan, or all -inf at the first word.
        """
        out = self.decoding_step(self.token, self.state, self.memory)
        self.state = out.state
        newest = out.attention[:, None]
        self.attention = newest if self.attention is None else torch.cat([self.attention, newest], 1)
        logp = apply_rules(self.options.rules, out.logits.float().log_softmax(-1), self.tokens)
        scores = self.total[..., None] + logp.view(*self.total.shape, -1)
        if scores.isnan().any() or (self.tokens.shape[1] == 0 and not scores.isfinite().flatten(1).any(1).all()):
            bad = scores.isnan().flatten(1).any(1) | ~scores.isfinite().flatten(1).any(1)
            raise FloatingPointError(
                f"the model's scores for media {bad.nonzero().flatten().tolist()[:5]} of the batch are nan or all -inf"
            )
        return scores

    def extend(self, parent: Int[Tensor, "B W"], word: Int[Tensor, "B W"], total: Float[Tensor, "B W"]) -> None:
        """Fill every slot with the hypothesis from slot `parent` of the same medium, extended by `word`."""
        assert self.attention is not None
        rows = (torch.arange(len(parent), device=parent.device)[:, None] * self.width + parent).flatten()
        self.state = map_tensors(lambda x: x.index_select(0, rows), self.state)
        self.token = word.flatten()
        self.tokens = torch.cat([self.tokens[rows], self.token[:, None]], 1)
        self.attention, self.total = self.attention[rows], total

    def collect_ended(self, among: Bool[Tensor, "B W"]) -> Bool[Tensor, "B W"]:
        """Move the hypotheses of the slots `among` whose newest word is EOS to `best` -> which slots these were."""
        ended = among & self.total.isfinite() & (self.token.view_as(self.total) == EOS)
        divisor = self.options.divisor(self.tokens.shape[1])
        for medium, slot in ended.nonzero().tolist():
            hypothesis = self._hypothesis(medium, slot, divisor)
            if hypothesis.score > self.best.worst(medium):
                self.best.add(medium, hypothesis)
        self.total = self.total.masked_fill(ended, -torch.inf)
        return ended

    def finish(self, slot_groups: list[Int[Tensor, " _"]]) -> Captions:
        """The best captions per medium.

        Where fewer than `n_best` have ended, the likeliest unfinished hypotheses of the first of `slot_groups` follow.
        A medium without any ended caption uses the first group that holds a hypothesis.
        """
        for medium, captions in enumerate(self.best.hypotheses):
            for slots in slot_groups[:1] if captions else slot_groups:
                order = slots[self.total[medium, slots].argsort(descending=True, stable=True)]
                for slot in order[self.total[medium, order].isfinite()].tolist():
                    hypothesis = self._hypothesis(medium, slot, 1.0)
                    if len(captions) < self.options.n_best and not any(
                        torch.equal(hypothesis.tokens, old.tokens) for old in captions
                    ):
                        captions.append(hypothesis)
                if captions:
                    break
        return self.best.captions()

    def _hypothesis(self, medium: int, slot: int, divisor: float) -> BeamHypothesis:
        assert self.attention is not None
        logprob, row = self.total[medium, slot].item(), medium * self.width + slot
        return BeamHypothesis(logprob / divisor, logprob, self.tokens[row].clone(), self.attention[row].clone())
