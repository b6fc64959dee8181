"""Scheduled sampling (Bengio et al. 2015, arXiv:1506.03099): in training some words read are the model's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from limner.core.fields import Count, Share
from limner.models.captioner import Captioner, Taught, first_tensor, map_tensors, running


@dataclass(frozen=True)
class ScheduledSampling:
    """How likely the word that is read is the model's instead of the caption's, by epoch (from 0).

    From epoch `start` on it is min(highest, first + increase * floor((epoch - start) / every)), before that 0.  A
    constant teacher-forcing ratio r is `first: 1 - r`; ruotianluo/self-critical.pytorch takes increase .05, every 5,
    highest .25.  BOS is always read; the words to predict stay the caption's.
    """

    start: Annotated[int, Field(ge=0)] = 0
    first: Share = 0.0
    increase: Share = 0.0
    every: Count = 5
    highest: Share = 1.0
    word: Literal["drawn", "likeliest"] = "drawn"  # from the last prediction; SA-LSTM takes the likeliest
    coin: Literal["word", "step"] = "word"  # thrown for every word, or for all captions of a step at once (SA-LSTM)

    def probability(self, epoch: int) -> float:
        if epoch < self.start:
            return 0.0
        return min(self.highest, self.first + self.increase * ((epoch - self.start) // self.every))

    def teach(self, model: Captioner, memory: Any, tokens: Int[Tensor, "R L"], epoch: int) -> Taught:
        """`model.teach`, with the inputs of this epoch."""
        probability = self.probability(epoch)
        if probability == 0:
            return model.teach(memory, tokens)

        def choose(given: Int[Tensor, " n"], logits: Float[Tensor, "n V"]) -> Int[Tensor, " n"]:
            coins = torch.rand(len(given) if self.coin == "word" else 1, device=given.device)
            if self.word == "likeliest":
                own = logits.argmax(-1)
            else:
                own = torch.multinomial(logits.float().softmax(-1), 1).squeeze(1)
            return torch.where(coins < probability, own, given)

        return rehearse(model, memory, tokens, choose)


def rehearse(
    model: Captioner, memory: Any, tokens: Int[Tensor, "R L"], choose: Callable[[Tensor, Tensor], Tensor]
) -> Taught:
    """Step by step along `tokens`, of which those after BOS are replaced by `choose(tokens (n,), logits (n, V))`.

    As in `teach`, a row ends where its given tokens end, and the rows that have ended are not computed.
    """
    alive = running(tokens)
    order = alive.sum(1).argsort(descending=True, stable=True)
    state = model.init_state(memory)
    captions = len(tokens) // len(first_tensor(memory))
    memory, state = (map_tensors(lambda x: x[order // captions], tree) for tree in (memory, state))
    steps: list[list[Tensor]] = []
    counts = [n for n in alive.sum(0).tolist() if n]
    for t, n in enumerate(counts):
        memory, state = (map_tensors(lambda x, n=n: x[:n], tree) for tree in (memory, state))
        token = tokens[order[:n], t]
        if steps:
            with torch.no_grad():
                token = choose(token, steps[-1][0][:n].detach())
        out = model.step(token, state, memory)
        state = out.state
        steps.append([x for x in (out.logits, out.attention, model.hidden(state)) if x is not None])
    row = torch.cat([order[:n] for n in counts])
    time = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(order)
    packed = [torch.cat(column) for column in zip(*steps, strict=True)]
    return Taught(*(x.new_zeros(*tokens.shape, x.shape[-1]).index_put((row, time), x) for x in packed))
