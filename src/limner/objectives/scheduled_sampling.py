"""Scheduled sampling (Bengio et al. 2015, arXiv:1506.03099): the model reads some of its own words in training.

Example: the caption is BOS a dog runs EOS, and the words after BOS are replaced with probability 1/2.  If the model
predicts "cat" after "a" and the coin says so, the decoder reads BOS a cat runs; the targets stay a dog runs EOS.
"""

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
    """The probability, by epoch (from 0), that the model's own word replaces the caption's word as decoder input.

    It is 0 before epoch `start_epoch`, and from there min(max_prob, initial_prob + increase_prob * floor((epoch -
    start_epoch) / increase_every)).  A constant teacher-forcing ratio r is `initial_prob: 1 - r`.
    ruotianluo/self-critical.pytorch uses increase_prob .05, increase_every 5 and max_prob .25.  BOS is never replaced,
    and the targets stay the caption's words.

    >>> schedule = ScheduledSampling(start_epoch=2, increase_prob=0.25, increase_every=2, max_prob=0.5)
    >>> [schedule.probability(epoch) for epoch in range(9)]
    [0.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.5]
    """

    start_epoch: Annotated[int, Field(ge=0)] = 0  # before this epoch the probability is 0
    initial_prob: Fraction = 0.0  # the probability in that epoch
    increase_prob: Fraction = 0.0  # added to it every `increase_every` epochs
    increase_every: PositiveInt = 5  # epochs
    max_prob: Fraction = 1.0  # the highest probability
    word: Literal["drawn", "likeliest"] = "drawn"  # how the model's word is chosen; SA-LSTM: likeliest
    coin: Literal["word", "step"] = "word"  # one coin per word, or one per step for all captions (SA-LSTM)

    def probability(self, epoch: int) -> float:
        """The probability of a replacement in `epoch`, in [0, 1]."""
        if epoch < self.start_epoch:
            return 0.0
        return min(
            self.max_prob, self.initial_prob + self.increase_prob * ((epoch - self.start_epoch) // self.increase_every)
        )

    def forward_teacher_forced(
        self, model: Captioner, memory: Any, tokens: Int[Tensor, "R L"], epoch: int
    ) -> TeacherForced:
        """`model.forward_teacher_forced` along `tokens`, some of which are replaced with this epoch's probability."""
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

        return unroll_with_sampling(model, memory, tokens, choose)


def unroll_with_sampling(
    model: Captioner, memory: Any, tokens: Int[Tensor, "R L"], choose: Callable[[Tensor, Tensor], Tensor]
) -> TeacherForced:
    """Run the decoder step by step along `tokens`; each input after BOS is `choose(tokens (n,), logits (n, V))`.

    `logits` are the model's last prediction for the n rows that have not ended.  As in `forward_teacher_forced`, a row
    ends where its given tokens end, and rows that have ended are not computed.
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
