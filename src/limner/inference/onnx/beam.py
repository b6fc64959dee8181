"""Beam search over one medium in NumPy: the captions of `decode.search`, whose rules it repeats.

A slot whose hypothesis has ended or is hopeless has no row: a beam that shrinks gets faster.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limner.core.torch_free import BOS, EOS, UNK
from limner.decode.options import Beam, Decoding
from limner.decode.rules import Rules, ids_of

State = list[np.ndarray]  # R rows each
OnnxStepOutput = tuple[np.ndarray, np.ndarray, State]  # logits (R, V), attention (R, N), the new state
StepFunction = Callable[[Int[np.ndarray, " R"], State], OnnxStepOutput]


class OnnxHypothesis(NamedTuple):
    """A caption; the token after BOS comes first."""

    score: float  # what the search compares: the log-probability, normalised by length
    logprob: float
    tokens: np.ndarray  # (L,)
    attention: np.ndarray  # (L, N)


def require_supported(options: Decoding) -> Beam:
    """The same options.  Raises ValueError for searches that the engine does not know."""
    if not isinstance(options, Beam):
        raise ValueError("the ONNX engine searches; drawing captions (--sample) needs the PyTorch engine")
    if options.groups > 1 or options.must:
        raise ValueError("the ONNX engine has no diverse and no constrained beams (--groups, --must): use PyTorch's")
    return options


def beam(step: StepFunction, state: State, options: Beam) -> list[OnnxHypothesis]:
    """The `options.n_best` best captions, best first (fewer when there are not so many).  `state` has one row.

    Raises FloatingPointError when the scores are nan, or all -inf.
    """
    search = _Search(step, state, options)
    for _ in range(options.rules.max_length):
        if not search.step():
            break
    return search.finish()


class _Search:
    """One medium; R rows, one for every hypothesis that may still win."""

    def __init__(self, step: StepFunction, state: State, options: Beam):
        self.say, self.state, self.options = step, state, options
        self.score = np.zeros(1, np.float32)
        self.slots = options.size  # hypotheses that may still end
        self.token = np.full(1, BOS, np.int64)
        self.tokens = np.empty((1, 0), np.int64)
        self.attention: np.ndarray | None = None  # (R, L, N)
        self.found: list[OnnxHypothesis] = []
        self.best = -inf  # the last of the `keep` best: what is to beat

    def step(self) -> bool:
        """One more word for every hypothesis; False when none is left."""
        logits, attention, state = self.say(self.token, self.state)
        logp = mask_forbidden(self.options.rules, log_softmax(logits), self.tokens)
        scores = (logp + self.score[:, None]).ravel()
        if np.isnan(scores).any() or not (self.found or np.isfinite(scores).any()):
            raise FloatingPointError("the model's scores are nan or all -inf")
        best = top_k(scores, min(self.options.size, len(scores)))
        score, parents, self.token = scores[best], best // logp.shape[1], best % logp.shape[1]
        self.tokens = np.concatenate([self.tokens[parents], self.token[:, None]], 1)
        seen = attention[:, None]
        self.attention = (seen if self.attention is None else np.concatenate([self.attention, seen], 1))[parents]
        if self.options.finished_compete and len(score) == self.options.size and (score > self.best).all():
            self.best = -inf  # the best ended one is pushed out when all are better
        usable = (np.arange(len(score)) < self.slots) & np.isfinite(score)
        ended = usable & (self.token == EOS)
        self._set_aside(ended, score)
        if not (self.options.finished_compete or self.options.keep_beam_full):
            self.slots -= int(ended.sum())
        bound = score / max(1.0, self.options.divisor(self.options.rules.max_length))
        self._keep(usable & ~ended & (bound > self.best), score, parents, state)
        return len(self.score) > 0

    def _keep(self, live: np.ndarray, score: np.ndarray, parents: np.ndarray, state: State) -> None:
        """Rows that are not `live` are gone."""
        assert self.attention is not None
        self.score, self.token, self.tokens = score[live], self.token[live], self.tokens[live]
        self.attention = self.attention[live]
        self.state = [x[parents[live]] for x in state]

    def _set_aside(self, ended: np.ndarray, score: np.ndarray) -> None:
        """Keep the best ended hypotheses."""
        assert self.attention is not None
        divisor, before = self.options.divisor(self.tokens.shape[1]), self.best
        for row in np.flatnonzero(ended)[: self.options.n_best]:  # which come best first
            normalised = float(score[row] / divisor)
            if normalised > before:
                logprob = float(score[row])
                if self.options.finished_compete:
                    self.found.clear()
                self._add(OnnxHypothesis(logprob / divisor, logprob, self.tokens[row], self.attention[row]))

    def _add(self, new: OnnxHypothesis) -> None:
        """Of equal ones the first to come stays before; of two alike only one is kept."""
        if self.options.n_best == 1 or not any(np.array_equal(new.tokens, old.tokens) for old in self.found):
            self.found.append(new)
            self.found.sort(key=lambda found: -found.score)
            del self.found[self.options.n_best :]
        self.best = self.found[-1].score if len(self.found) == self.options.n_best else -inf

    def finish(self) -> list[OnnxHypothesis]:
        """Unfinished hypotheses take the places that no ended one has, or compete for all."""
        order = np.argsort(-self.score, kind="stable")
        if self.options.finished_compete:
            order = order[:1] if len(order) and self.score[order[0]] > self.best else order[:0]
            if len(order):
                self.found.clear()
        if not self.options.keep_beam_full:
            order = order[: self.options.n_best - len(self.found)]
        for row in order:
            assert self.attention is not None
            logprob = float(self.score[row])
            score = logprob / self.options.divisor(self.tokens.shape[1]) if self.options.keep_beam_full else -inf
            self._add(OnnxHypothesis(score, logprob, self.tokens[row], self.attention[row]))
        return self.found


def log_softmax(logits: Float[np.ndarray, "R V"]) -> Float[np.ndarray, "R V"]:
    with np.errstate(invalid="ignore"):  # scores that are all -inf are told by whoever asked
        shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def top_k(scores: Float[np.ndarray, " M"], count: int) -> Int[np.ndarray, " K"]:
    """The places of the `count` largest, in falling order; of equal ones the first."""
    some = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    return some[np.lexsort((some, -scores[some]))]


def mask_forbidden(
    rules: Rules, scores: Float[np.ndarray, "R V"], tokens: Int[np.ndarray, "R t"]
) -> Float[np.ndarray, "R V"]:
    """`decode.mask_forbidden.mask_forbidden`: -inf for what the rules forbid after `tokens`; a row in which they would
    leave nothing keeps its scores."""
    said, rows = tokens.shape[1], np.arange(len(tokens))
    forbidden = [
        *([] if rules.allow_unknown else [UNK]),
        *([EOS] if said < rules.min_length else []),
        *ids_of(rules.never),
    ]
    forbidden += ids_of(rules.bad_endings) if said == rules.max_length - 1 else []
    changed = scores.copy()
    changed[:, forbidden] = -inf
    if said and rules.no_repeat_word:
        changed[rows, tokens[:, -1]] = -inf
    if said and rules.bad_endings:
        changed[np.isin(tokens[:, -1], ids_of(rules.bad_endings)), EOS] = -inf
    if rules.no_repeat_trigram and said > 2:
        trigrams = np.lib.stride_tricks.sliding_window_view(tokens, 3, axis=1)  # (R, t - 2, 3)
        row, place = np.nonzero((trigrams[..., :2] == tokens[:, None, -2:]).all(-1))
        changed[row, trigrams[row, place, 2]] = -inf
    nothing = changed.max(1, keepdims=True) == -inf
    return np.where(nothing, scores, changed)
