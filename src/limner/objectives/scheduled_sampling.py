"""Scheduled sampling (Bengio et al. 2015, arXiv:1506.03099): in training some words read are the model's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from limner.core.fields import Fraction, PositiveInt
from limner.models.captioner import Captioner, TeacherForced, first_tensor, map_tensors, not_ended


@dataclass(frozen=True)
class ScheduledSampling:
    """How likely the word that is read is the model's instead of the caption's, by epoch (from 0).

    From epoch `start_epoch` on it is min(max_prob, initial_prob + increase_prob * floor((epoch - start_epoch) /
    increase_every)), before that 0.  A constant teacher-forcing ratio r is `initial_prob: 1 - r`;
    ruotianluo/self-critical.pytorch takes increase_prob .05, increase_every 5, max_prob .25.  BOS is always read;
    the words to predict stay the caption's.
    """

    start_epoch: Annotated[int, Field(ge=0)] = 0  # before it the probability is 0
    initial_prob: Fraction = 0.0  # in that epoch
    increase_prob: Fraction = 0.0  # added ...
    increase_every: PositiveInt = 5  # ... after so many epochs
    max_prob: Fraction = 1.0  # never more
    word: Literal["drawn", "likeliest"] = "drawn"  # from the last prediction; SA-LSTM takes the likeliest
    coin: Literal["word", "step"] = "word"  # thrown for every word, or for all captions of a step at once (SA-LSTM)

    def probability(self, epoch: int) -> float:
        if epoch < self.start_epoch:
            return 0.0
        return min(
            self.max_prob, self.initial_prob + self.increase_prob * ((epoch - self.start_epoch) // self.increase_every)
        )

    def forward_teacher_forced(
        self, model: Captioner, memory: Any, tokens: Int[Tensor, "R L"], epoch: int
    ) -> TeacherForced:
        """`model.forward_teacher_forced`, with the inputs of this epoch."""
        probability = self.probability(epoch)
        if probability == 0:
            return model.forward_teacher_forced(memory, tokens)

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
) -> TeacherForced:
    """Step by step along `tokens`, of which those after BOS are replaced by `choose(tokens (n,), logits (n, V))`.

    As in `forward_teacher_forced`, a row ends where its given tokens end, and the rows that have ended are not
    computed.
    """
    alive = not_ended(tokens)
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
    return TeacherForced(*(x.new_zeros(*tokens.shape, x.shape[-1]).index_put((row, time), x) for x in packed))
