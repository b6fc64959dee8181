"""Greedy, sampling and beam search over any Captioner.  One protocol: (model, inputs, options) -> Captions.

Log-probabilities are the model's own (rules forbid words, they do not rescale the others), except in `sample`, where
the distribution that is drawn from, rules included, is the one that is reported: the one self-critical training
must differentiate.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from limner.decode.rules import Rules
from limner.models.captioner import Captioner, map_tensors
from limner.types import BOS, EOS, PAD, Captions, Features, Pixels


@dataclass(frozen=True)
class Beam:
    """`size` hypotheses per medium; one that ends is set aside and the beam shrinks by one (Xu et al.'s own search).

    The best ended hypothesis wins by logprob / length ** length_penalty, EOS counted; when none has ended at
    `rules.max_length` the best unfinished one is returned.  With `contest` it is SA-LSTM's search, for parity: an ended
    hypothesis keeps its place only until better ones take all places, and in the end the unfinished ones compete.
    """

    size: int = 5
    length_penalty: float = 0.0
    rules: Rules = field(default_factory=Rules)
    contest: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a beam has at least one hypothesis, got size {self.size}")
        if self.contest and self.length_penalty:
            raise ValueError("contest compares plain log-probabilities: set length_penalty to 0")


@dataclass(frozen=True)
class Sample:
    """`count` captions per medium drawn from softmax(logits / temperature)."""

    count: int = 1
    temperature: float = 1.0
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.count < 1:
            raise ValueError(
                f"expected temperature > 0 and count >= 1, got {self.temperature} and {self.count}; "
                "for the likeliest words use greedy()"
            )


@torch.no_grad()
def greedy(model: Captioner, inputs: Features | Pixels, rules: Rules = Rules()) -> Captions:
    """The likeliest word at every step."""
    return _walk(model, inputs, 1, rules, None)


@torch.no_grad()  # not inference_mode: self-critical training feeds these tokens back through the model
def sample(model: Captioner, inputs: Features | Pixels, options: Sample = Sample()) -> Captions:
    """Random captions; rows `count * i ... count * i + count - 1` belong to medium i."""
    return _walk(model, inputs, options.count, options.rules, options.temperature)


def _walk(model: Captioner, inputs: Features | Pixels, count: int, rules: Rules, temperature: float | None) -> Captions:
    """One path per row; `temperature` None takes the likeliest word."""
    memory = model.encode(inputs)
    state = map_tensors(lambda x: x.repeat_interleave(count, 0), model.init_state(memory))
    rows, device = len(inputs) * count, inputs.device
    token = torch.full((rows,), BOS, device=device)
    tokens = torch.empty(rows, 0, dtype=torch.long, device=device)
    alive, total, maps = torch.ones(rows, dtype=torch.bool, device=device), torch.zeros(rows, device=device), []
    for _ in range(rules.max_length):
        out = model.step(token, state, memory)
        logits, state, attention = out.logits, out.state, out.attention
        if temperature is None:
            logp = logits.float().log_softmax(-1)
            token = rules.apply(logp, tokens).argmax(-1)
        else:
            logp = (rules.apply(logits.float(), tokens) / temperature).log_softmax(-1)
            _check(~logp.isnan().any(1))
            token = torch.multinomial(logp.exp(), 1).squeeze(1)
        spoken = logp.gather(1, token[:, None]).squeeze(1)
        total = total + spoken.where(alive, 0.0)  # `spoken * alive` would give -inf * 0 = nan
        token = token.masked_fill(~alive, PAD)
        tokens = torch.cat([tokens, token[:, None]], 1)
        maps.append(attention.where(alive[:, None], 0.0))
        alive = alive & (token != EOS)
        if not alive.any():
            break
    _check(total.isfinite())
    return Captions(tokens, total, torch.stack(maps, 1))


def _check(sound: Bool[Tensor, " R"]) -> None:
    if not sound.all():
        rows = (~sound).nonzero().flatten().tolist()
        raise FloatingPointError(f"the model's scores for rows {rows[:5]} of the batch are nan or all -inf")


@torch.no_grad()
def beam(model: Captioner, inputs: Features | Pixels, options: Beam = Beam()) -> Captions:
    """The best of `options.size` hypotheses per medium.  Beam 1 is greedy; a beam of V^L is exhaustive search."""
    search = _BeamSearch(model, inputs, options)
    for _ in range(options.rules.max_length):
        if not search.step():
            break
    return search.finish()


class _BeamSearch:
    """All media at once: B' media still searching, K hypotheses each.  Media that are done leave the batch."""

    def __init__(self, model: Captioner, inputs: Features | Pixels, options: Beam):
        B, K, device = len(inputs), options.size, inputs.device
        self.model, self.options = model, options
        self.memory: Any = model.encode(inputs)
        self.state: Any = model.init_state(self.memory)
        self.media = torch.arange(B, device=device)
        self.best: list[tuple[float, Tensor, Tensor] | None] = [None] * B  # logprob, tokens (L,), attention (L, N)
        self.best_score = torch.full((B,), -torch.inf, device=device)
        self.score = torch.zeros(B, 1, device=device)  # one hypothesis, the empty one, until the first word
        self.slots = torch.full((B,), K, device=device)  # hypotheses that may still end
        self.token = torch.full((B,), BOS, device=device)
        self.tokens = torch.empty(B, 0, dtype=torch.long, device=device)
        self.attention: Tensor | None = None

    def step(self) -> bool:
        """One more word for every hypothesis; False when no medium is searching any more."""
        B, width = self.score.shape
        spoken = self.model.step(self.token, self.state, self.memory)
        logits, state, attention = spoken.logits, spoken.state, spoken.attention
        logp = self.options.rules.apply(logits.float().log_softmax(-1), self.tokens)
        scores = logp.view(B, width, -1).add_(self.score[..., None]).flatten(1)
        K = min(self.options.size, scores.shape[1])  # a beam larger than the vocabulary fills over several words
        score, best = scores.topk(K)
        parents = (torch.arange(B, device=best.device)[:, None] * width + best // logp.shape[-1]).flatten()
        self.token = (best % logp.shape[-1]).flatten()
        self.tokens = torch.cat([self.tokens[parents], self.token[:, None]], 1)
        history = attention[:, None] if self.attention is None else torch.cat([self.attention, attention[:, None]], 1)
        self.attention = history[parents]
        if self.options.contest and self.options.size == K:  # the best ended one is pushed out when all are better
            self.best_score.masked_fill_((score > self.best_score[:, None]).all(1), -torch.inf)
        usable = (torch.arange(K, device=best.device) < self.slots[:, None]) & score.isfinite()
        ended = usable & (self.token.view(B, K) == EOS)
        self._set_aside(score.masked_fill(~ended, -torch.inf))
        if not self.options.contest:
            self.slots = self.slots - ended.sum(1)
        self.score = score.masked_fill(~usable | ended, -torch.inf)
        hopeless = self._bound() <= self.best_score[:, None]
        self.score.masked_fill_(hopeless, -torch.inf)
        # a slot without a hypothesis repeats its medium's best one, which costs models that know siblings nothing
        best = torch.where(
            self.score.isfinite(), torch.arange(K, device=self.score.device), self.score.argmax(1, keepdim=True)
        )
        parents = parents.view(B, K).gather(1, best).flatten()
        self.state = map_tensors(lambda x: x.index_select(0, parents), state)
        return self._drop_done()

    def _set_aside(self, ended: Float[Tensor, "B K"]) -> None:
        """Keep the best ended hypothesis of each medium."""
        top, which = ended.max(1)
        normalised = top / self.tokens.shape[1] ** self.options.length_penalty
        for i in (normalised > self.best_score).nonzero().flatten().tolist():
            self.best_score[i] = normalised[i]
            self._remember(i, which[i].item(), top[i].item())

    def _remember(self, i: int, slot: int | float, logprob: float) -> None:
        assert self.attention is not None
        row = i * (len(self.tokens) // len(self.media)) + int(slot)
        self.best[int(self.media[i])] = (logprob, self.tokens[row].clone(), self.attention[row].clone())

    def _bound(self) -> Float[Tensor, "B K"]:
        """The best normalised score a hypothesis can still reach: log-probabilities only fall."""
        return self.score / self.options.rules.max_length ** max(self.options.length_penalty, 0.0)

    def _drop_done(self) -> bool:
        """A medium is done when no hypothesis is left that could still beat its best ended one."""
        live = self.score.isfinite().any(1)
        if live.all():
            return True
        lost = [int(self.media[i]) for i in (~live).nonzero().flatten() if self.best[int(self.media[i])] is None]
        if lost:
            raise FloatingPointError(f"the model's scores for media {lost[:5]} of the batch are nan or all -inf")
        rows = live.repeat_interleave(self.score.shape[1])
        if (
            live.sum() <= 0.9 * len(live) or not live.any()
        ):  # copying the memory each time would cost more than it saves
            self.media, self.slots, self.score = self.media[live], self.slots[live], self.score[live]
            self.best_score, self.token, self.tokens = self.best_score[live], self.token[rows], self.tokens[rows]
            self.attention = None if self.attention is None else self.attention[rows]
            self.memory = map_tensors(lambda x: x[live], self.memory)
            self.state = map_tensors(lambda x: x[rows], self.state)
        return bool(live.any())

    def finish(self) -> Captions:
        """The best per medium; one that never ended gives its likeliest unfinished hypothesis."""
        top, which = self.score.max(1) if len(self.media) else (self.score, self.score)
        for i, medium in enumerate(self.media.tolist()):
            better = self.options.contest and bool(top[i] > self.best_score[i])
            if self.best[medium] is None or better:
                self._remember(i, which[i].item(), top[i].item())
        found = [item for item in self.best if item is not None]
        assert len(found) == len(self.best), "every medium has a caption"
        length = max(len(tokens) for _, tokens, _ in found)
        tokens = torch.stack(
            [torch.nn.functional.pad(tokens, (0, length - len(tokens)), value=PAD) for _, tokens, _ in found]
        )
        maps = torch.stack([torch.nn.functional.pad(maps, (0, 0, 0, length - len(maps))) for _, _, maps in found])
        return Captions(tokens, torch.tensor([logprob for logprob, _, _ in found], device=tokens.device), maps)
