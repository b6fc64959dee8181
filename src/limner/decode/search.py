"""Greedy search, sampling and beam search for any captioner: (model, inputs, options) -> Captions.

Log-probabilities are the model's own: rules forbid words and do not rescale the others.  `sample` is the exception: it
reports the distribution that it draws from, rules included, because self-critical training must differentiate that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limner.core.registry import Registry
from limner.core.types import BOS, EOS, PAD, Captions
from limner.decode import single_beam
from limner.decode.constrained import constrained_beam
from limner.decode.diverse import diverse_beam
from limner.decode.ensemble import Inputs
from limner.decode.logits import apply_rules, warp_logits
from limner.decode.nbest import BeamHypothesis, NBest
from limner.decode.options import Beam, Decoding, Sample
from limner.decode.rules import Rules
from limner.decode.start import with_predicted_start
from limner.models.captioner import Captioner, first_tensor, map_tensors

__all__ = ["SEARCHES", "Beam", "Sample", "beam", "greedy", "rollout", "sample", "search", "traced_beam"]


@torch.no_grad()
def greedy(model: Captioner, inputs: Inputs, rules: Rules = Rules()) -> Captions:
    """The likeliest word at every step -> B rows."""
    return rollout(model, model.encode(inputs), rules)  # type: ignore[arg-type]


@torch.no_grad()  # not inference_mode: self-critical training feeds these tokens back through the model
def sample(model: Captioner, inputs: Inputs, options: Sample = Sample()) -> Captions:  # noqa: B008  # frozen
    """Sampled captions -> B * count rows; rows `count * i ... count * i + count - 1` belong to medium i."""
    return rollout(model, model.encode(inputs), options)  # type: ignore[arg-type]  # an `Ensemble` reads EnsembleInputs


def search(model: Captioner, inputs: Inputs, options: Decoding) -> Captions:
    """Run the search that `options.name` registers -> `options.n_best` neighbouring rows per medium."""
    return SEARCHES[options.name].run(model, inputs, options)


@torch.no_grad()
def rollout(model: Captioner, memory: Any, options: Sample | Rules) -> Captions:
    """`sample` (given `Sample`) or `greedy` (given `Rules`) for media that are encoded already.

    Raises FloatingPointError when the scores of a row are nan or all -inf.
    """
    sampling = options if isinstance(options, Sample) else None
    rules, count = (options.rules, options.count) if isinstance(options, Sample) else (options, 1)
    state = map_tensors(lambda x: x.repeat_interleave(count, 0), model.init_state(memory))
    rows, device = len(first_tensor(state)), first_tensor(state).device
    token = torch.full((rows,), BOS, device=device)
    tokens = torch.empty(rows, 0, dtype=torch.long, device=device)
    alive, total, maps = torch.ones(rows, dtype=torch.bool, device=device), torch.zeros(rows, device=device), []
    decoding_step = model.decoding_step()
    for _ in range(rules.max_length):
        out = decoding_step(token, state, memory)
        logits, state, attention = out.logits, out.state, out.attention
        if sampling is None:
            logp = logits.float().log_softmax(-1)
            token = apply_rules(rules, logp, tokens).argmax(-1)
        else:
            logp = warp_logits(sampling, logits.float(), tokens).log_softmax(-1)
            _check_finite(~logp.isnan().any(1))
            token = torch.multinomial(logp.exp(), 1).squeeze(1)
        chosen = logp.gather(1, token[:, None]).squeeze(1)
        total = total + chosen.where(alive, 0.0)  # `chosen * alive` would give -inf * 0 = nan
        token = token.masked_fill(~alive, PAD)
        tokens = torch.cat([tokens, token[:, None]], 1)
        maps.append(attention.where(alive[:, None], 0.0))
        alive = alive & (token != EOS)
        if not alive.any():
            break
    _check_finite(total.isfinite())
    return Captions(tokens, total, torch.stack(maps, 1))


def _check_finite(sound: Bool[Tensor, " R"]) -> None:
    if not sound.all():
        rows = (~sound).nonzero().flatten().tolist()
        raise FloatingPointError(f"the model's scores for rows {rows[:5]} of the batch are nan or all -inf")


@torch.no_grad()
def beam(model: Captioner, inputs: Inputs, options: Beam = Beam()) -> Captions:  # noqa: B008  # frozen
    """The `options.n_best` best captions per medium -> B * n_best rows, best first; rows `n_best * i ...` belong to
    medium i.

    A beam of size 1 is greedy search; a beam of size V^L, for captions of up to L of V words, is exhaustive search.
    Raises FloatingPointError when a medium's scores are nan or all -inf, ValueError for `predict_start` with a model
    that does not predict its first token.
    """
    if options.predict_start:
        return beam(*with_predicted_start(model, inputs, options))
    if options.must:
        return constrained_beam(model, inputs, options)
    if options.groups > 1:
        return diverse_beam(model, inputs, options)
    if len(inputs) == 1 and inputs.device.type == "cpu":
        return _beam_of_one(model, inputs, options)
    search = _BeamSearch(model, inputs, options)
    for _ in range(options.rules.max_length):
        if not search.step():
            break
    return search.finish()


@torch.no_grad()
def traced_beam(model: Captioner, inputs: Inputs, options: Beam) -> tuple[Captions, list[single_beam.BeamStep]]:
    """`beam` for a single medium, and the steps of its search (`beam_tree` makes a tree of them).

    Raises ValueError for several media, and for constrained and diverse beams, which are several beams.
    """
    if options.must or options.groups > 1:
        raise ValueError(f"the steps of a {'constrained' if options.must else 'diverse'} beam are not recorded")
    if len(inputs) != 1:
        raise ValueError(f"the steps of one medium's search are recorded at a time, got {len(inputs)} media")
    if options.predict_start:
        model, inputs, options = with_predicted_start(model, inputs, options)
    steps: list[single_beam.BeamStep] = []
    return _beam_of_one(model, inputs, options, steps), steps


def _beam_of_one(
    model: Captioner, inputs: Inputs, options: Beam, trace: list[single_beam.BeamStep] | None = None
) -> Captions:
    """Beam search over a single medium, with the bookkeeping of `single_beam`; its steps are added to `trace`."""
    memory = model.encode(inputs)  # type: ignore[arg-type]
    decoding_step, device = model.decoding_step(), inputs.device

    def step(token: Int[np.ndarray, "1 K"], state: Any) -> single_beam.StepOutput:
        out = decoding_step(torch.from_numpy(token[0]).to(device), state, memory)
        logp = out.logits.float().log_softmax(-1)
        return logp.cpu().numpy()[None], out.attention.float().cpu().numpy()[None], out.state

    def select(state: Any, media: Int[np.ndarray, " 1"], rows: Int[np.ndarray, "1 K"]) -> Any:
        index = torch.from_numpy(rows[0]).to(device)
        return map_tensors(lambda x: x.index_select(0, index), state)

    traces = None if trace is None else [trace]
    (found,) = single_beam.beam(step, model.init_state(memory), options, select, traces=traces)
    best = NBest(1, options.n_best)
    best.hypotheses[0] = [
        BeamHypothesis(each.score, each.logprob, torch.from_numpy(each.tokens), torch.from_numpy(each.attention))
        for each in found
    ]
    return best.captions()


class _BeamSearch:
    """Beam search over a batch: B' media that still search, K hypotheses each.  Finished media leave the batch."""

    def __init__(self, model: Captioner, inputs: Inputs, options: Beam):
        B, K, device = len(inputs), options.size, inputs.device
        self.decoding_step, self.options = model.decoding_step(), options
        self.memory: Any = model.encode(inputs)  # type: ignore[arg-type]
        self.state: Any = model.init_state(self.memory)
        self.media = torch.arange(B, device=device)
        self.best = NBest(B, options.n_best)
        self.best_score = torch.full((B,), -torch.inf, device=device)  # what a new caption must exceed
        self.score = torch.zeros(B, 1, device=device)  # one hypothesis, the empty one, until the first word
        self.slots = torch.full((B,), K, device=device)  # hypotheses that may still end
        self.token = torch.full((B,), BOS, device=device)
        self.tokens = torch.empty(B, 0, dtype=torch.long, device=device)
        self.attention: Tensor | None = None

    def step(self) -> bool:
        """Extend every hypothesis by one word -> False when no medium is searching any more."""
        B, width = self.score.shape
        out = self.decoding_step(self.token, self.state, self.memory)
        logits, state, attention = out.logits, out.state, out.attention
        logp = apply_rules(self.options.rules, logits.float().log_softmax(-1), self.tokens)
        scores = logp.view(B, width, -1).add_(self.score[..., None]).flatten(1)
        K = min(self.options.size, scores.shape[1])  # a beam larger than the vocabulary fills over several words
        score, best = scores.topk(K)
        parents = (torch.arange(B, device=best.device)[:, None] * width + best // logp.shape[-1]).flatten()
        self.token = (best % logp.shape[-1]).flatten()
        self.tokens = torch.cat([self.tokens[parents], self.token[:, None]], 1)
        history = attention[:, None] if self.attention is None else torch.cat([self.attention, attention[:, None]], 1)
        self.attention = history[parents]
        if self.options.finished_compete and self.options.size == K:
            # the ended caption loses its slot when all hypotheses are better
            self.best_score.masked_fill_((score > self.best_score[:, None]).all(1), -torch.inf)
        usable = (torch.arange(K, device=best.device) < self.slots[:, None]) & score.isfinite()
        ended = usable & (self.token.view(B, K) == EOS)
        self._collect_ended(score.masked_fill(~ended, -torch.inf))
        if not (self.options.finished_compete or self.options.keep_beam_full):
            self.slots = self.slots - ended.sum(1)
        self.score = score.masked_fill(~usable | ended, -torch.inf)
        if self.options.drop_hopeless:
            self.score.masked_fill_(self._bound() <= self.best_score[:, None], -torch.inf)
        self._continue(state, parents.view(B, K))
        return self._drop_done()

    def _continue(self, state: Any, parents: Int[Tensor, "B K"]) -> None:
        """Give every slot the state of its parent, a row of `state`; slots that no medium needs any more are dropped.

        For example, when two of five hypotheses have ended in every medium, the next step computes three rows each.
        """
        live = self.score.isfinite()
        width = max(1, int(live.sum(1).max()))
        if width < live.shape[1]:
            slots = live.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
            rows = (torch.arange(len(live), device=live.device)[:, None] * live.shape[1] + slots).flatten()
            self.score, parents, live = (x.gather(1, slots) for x in (self.score, parents, live))
            self.token, self.tokens = self.token[rows], self.tokens[rows]
            self.attention = None if self.attention is None else self.attention[rows]
        # an empty slot repeats its medium's best hypothesis; models that share work among equal rows pay nothing for it
        own = torch.arange(live.shape[1], device=live.device)
        slots = torch.where(live, own, self.score.argmax(1, keepdim=True))
        rows = parents.gather(1, slots).flatten()
        self.state = map_tensors(lambda x: x.index_select(0, rows), state)

    def _collect_ended(self, ended: Float[Tensor, "B K"]) -> None:
        """Store the best ended hypotheses of each medium; `ended` is their log-probability, -inf elsewhere."""
        top, which = ended.topk(min(self.options.n_best, ended.shape[1]))
        normalised = top / self.options.divisor(self.tokens.shape[1])
        for i, place in (normalised > self.best_score[:, None]).nonzero().tolist():
            self._store(i, which[i, place].item(), top[i, place].item())

    def _store(self, i: int, slot: int | float, logprob: float) -> None:
        assert self.attention is not None
        row = i * (len(self.tokens) // len(self.media)) + int(slot)
        medium = int(self.media[i])
        if self.options.finished_compete:
            self.best.hypotheses[medium].clear()
        score = logprob / self.options.divisor(self.tokens.shape[1])
        self.best.add(medium, BeamHypothesis(score, logprob, self.tokens[row].clone(), self.attention[row].clone()))
        self.best_score[i] = self.best.worst(medium)

    def _bound(self) -> Float[Tensor, "B K"]:
        """An upper bound of the normalised score that a hypothesis can still reach: log-probabilities only fall."""
        return self.score / max(1.0, self.options.divisor(self.options.rules.max_length))

    def _drop_done(self) -> bool:
        """Remove media without a live hypothesis from the batch -> False when none is left.

        A medium is finished when no hypothesis could still beat its ended ones.
        """
        live = self.score.isfinite().any(1)
        if live.all():
            return True
        failed = [
            int(self.media[i]) for i in (~live).nonzero().flatten() if not self.best.hypotheses[int(self.media[i])]
        ]
        if failed:
            raise FloatingPointError(f"the model's scores for media {failed[:5]} of the batch are nan or all -inf")
        rows = live.repeat_interleave(self.score.shape[1])
        if live.sum() <= 0.9 * len(live) or not live.any():
            # copying the memory for every single medium would cost more than it saves
            self.media, self.slots, self.score = self.media[live], self.slots[live], self.score[live]
            self.best_score, self.token, self.tokens = self.best_score[live], self.token[rows], self.tokens[rows]
            self.attention = None if self.attention is None else self.attention[rows]
            self.memory = map_tensors(lambda x: x[live], self.memory)
            self.state = map_tensors(lambda x: x[rows], self.state)
        return bool(live.any())

    def finish(self) -> Captions:
        """The best captions per medium.

        Unfinished hypotheses fill what is left of `n_best`; with `finished_compete` or `keep_beam_full` they compete
        with the ended ones.
        """
        for i, medium in enumerate(self.media.tolist()):
            captions = self.best.hypotheses[medium]
            order = [
                slot for slot in self.score[i].argsort(descending=True, stable=True).tolist() if self._is_live(i, slot)
            ]
            if self.options.finished_compete:
                order = [slot for slot in order[:1] if self.score[i, slot] > self.best_score[i]]
                captions[: len(order)] = []
            if not self.options.keep_beam_full:
                order = order[: self.options.n_best - len(captions)]
            for slot in order:
                row = i * self.score.shape[1] + slot
                logprob = self.score[i, slot].item()
                assert self.attention is not None
                # an unfinished caption ranks below every ended one, unless they compete
                score = (
                    logprob / self.options.divisor(self.tokens.shape[1]) if self.options.keep_beam_full else -torch.inf
                )
                self.best.add(medium, BeamHypothesis(score, logprob, self.tokens[row], self.attention[row]))
        return self.best.captions()

    def _is_live(self, i: int, slot: int) -> bool:
        return bool(self.score[i, slot].isfinite())


class Search(NamedTuple):
    """An entry of `SEARCHES`: a search and the class of its options."""

    config: type  # a `SearchOptions`
    run: Callable[..., Captions]  # (model, inputs, options)


SEARCHES: Registry[Search] = Registry("search", {"beam": Search(Beam, beam), "sample": Search(Sample, sample)})
