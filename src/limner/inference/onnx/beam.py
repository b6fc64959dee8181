"""Beam search over one medium in NumPy; it returns the same captions as `limner.decode.search`.

Hypotheses that have ended, or that can no longer be among the best, have no row in the decoder's batch: later steps are
faster.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limner.core.torch_free import BOS, EOS, UNK
from limner.decode.options import Beam, Decoding
from limner.decode.rules import Rules, bound_ids

State = list[np.ndarray]  # the decoder's state: arrays of R rows
OnnxStepOutput = tuple[np.ndarray, np.ndarray, State]  # logits (R, V), attention (R, N), the new state
StepFunction = Callable[[Int[np.ndarray, " R"], State], OnnxStepOutput]


class OnnxHypothesis(NamedTuple):
    """A caption of the search, ended or cut off at the maximal length."""

    score: float  # log-probability divided by the length normalisation; the search compares it
    logprob: float  # natural log
    tokens: np.ndarray  # (L,) token ids without BOS
    attention: np.ndarray  # (L, N); each row sums to 1


def require_supported(options: Decoding) -> Beam:
    """Return the options.  Raises ValueError for a search that the ONNX engine does not have."""
    if not isinstance(options, Beam):
        raise ValueError("the ONNX engine has beam search only; sampling (--sample) needs the PyTorch engine")
    if options.groups > 1 or options.must:
        raise ValueError(
            "the ONNX engine has no diverse and no constrained beams (--decoding.groups, --must): use PyTorch's"
        )
    if options.predict_start:
        raise ValueError(
            "an exported model does not predict its first token (--decoding.predict_start): use the PyTorch engine"
        )
    return options


def beam(step: StepFunction, state: State, options: Beam) -> list[OnnxHypothesis]:
    """Return the `options.n_best` best captions, best first; fewer when the search finds fewer.  `state` has one row.

    Raises FloatingPointError when the scores are nan, or all -inf.
    """
    search = _BeamSearch(step, state, options)
    for _ in range(options.rules.max_length):
        if not search.step():
            break
    return search.finish()


class _BeamSearch:
    """Search over one medium: R unfinished hypotheses, one row each, and the best ended ones."""

    def __init__(self, step: StepFunction, state: State, options: Beam):
        self.decode, self.state, self.options = step, state, options
        self.score = np.zeros(1, np.float32)  # (R,) log-probabilities of the unfinished hypotheses
        self.slots = options.size  # hypotheses that may still end
        self.token = np.full(1, BOS, np.int64)  # (R,) their last tokens
        self.tokens = np.empty((1, 0), np.int64)  # (R, L)
        self.attention: np.ndarray | None = None  # (R, L, N)
        self.ended: list[OnnxHypothesis] = []  # at most n_best, best first
        self.threshold = -inf  # the score of the last of n_best ended hypotheses; only better ones are added

    def step(self) -> bool:
        """Extend every hypothesis by one token; False when no unfinished one is left."""
        logits, attention, state = self.decode(self.token, self.state)
        logp = mask_forbidden(self.options.rules, log_softmax(logits), self.tokens)
        scores = (logp + self.score[:, None]).ravel()
        if np.isnan(scores).any() or not (self.ended or np.isfinite(scores).any()):
            raise FloatingPointError("the model's scores are nan or all -inf")
        best = top_k(scores, min(self.options.size, len(scores)))
        score, parents, self.token = scores[best], best // logp.shape[1], best % logp.shape[1]
        self.tokens = np.concatenate([self.tokens[parents], self.token[:, None]], 1)
        new = attention[:, None]
        self.attention = (new if self.attention is None else np.concatenate([self.attention, new], 1))[parents]
        if self.options.finished_compete and len(score) == self.options.size and (score > self.threshold).all():
            self.threshold = -inf  # the best ended hypothesis leaves the beam when all others are better
        in_beam = (np.arange(len(score)) < self.slots) & np.isfinite(score)
        ended = in_beam & (self.token == EOS)
        self._add_ended(ended, score)
        if not (self.options.finished_compete or self.options.keep_beam_full):
            self.slots -= int(ended.sum())
        # the highest normalised score that a hypothesis can still reach: log-probabilities only fall
        bound = score / max(1.0, self.options.divisor(self.options.rules.max_length))
        hopeless = bound <= self.threshold if self.options.drop_hopeless else np.zeros(len(score), bool)
        self._select(in_beam & ~ended & ~hopeless, score, parents, state)
        return len(self.score) > 0

    def _select(self, live: np.ndarray, score: np.ndarray, parents: np.ndarray, state: State) -> None:
        """Keep the rows that are `live`."""
        assert self.attention is not None
        self.score, self.token, self.tokens = score[live], self.token[live], self.tokens[live]
        self.attention = self.attention[live]
        self.state = [x[parents[live]] for x in state]

    def _add_ended(self, ended: np.ndarray, score: np.ndarray) -> None:
        """Add hypotheses that have just ended to the best ones."""
        assert self.attention is not None
        divisor, threshold = self.options.divisor(self.tokens.shape[1]), self.threshold
        for row in np.flatnonzero(ended)[: self.options.n_best]:  # rows are in falling order of their scores
            normalised = float(score[row] / divisor)
            if normalised > threshold:
                logprob = float(score[row])
                if self.options.finished_compete:
                    self.ended.clear()
                self._add(OnnxHypothesis(logprob / divisor, logprob, self.tokens[row], self.attention[row]))

    def _add(self, new: OnnxHypothesis) -> None:
        """Insert a hypothesis by its score, after equal scores; one with the same tokens as another is left out."""
        if self.options.n_best == 1 or not any(np.array_equal(new.tokens, old.tokens) for old in self.ended):
            self.ended.append(new)
            self.ended.sort(key=lambda hypothesis: -hypothesis.score)
            del self.ended[self.options.n_best :]
        self.threshold = self.ended[-1].score if len(self.ended) == self.options.n_best else -inf

    def finish(self) -> list[OnnxHypothesis]:
        """Return the best captions.

        Unfinished hypotheses take the places that ended ones leave free; with `keep_beam_full` or `finished_compete`
        they compete for all places.
        """
        order = np.argsort(-self.score, kind="stable")
        if self.options.finished_compete:
            order = order[:1] if len(order) and self.score[order[0]] > self.threshold else order[:0]
            if len(order):
                self.ended.clear()
        if not self.options.keep_beam_full:
            order = order[: self.options.n_best - len(self.ended)]
        for row in order:
            assert self.attention is not None
            logprob = float(self.score[row])
            score = logprob / self.options.divisor(self.tokens.shape[1]) if self.options.keep_beam_full else -inf
            self._add(OnnxHypothesis(score, logprob, self.tokens[row], self.attention[row]))
        return self.ended


def log_softmax(logits: Float[np.ndarray, "R V"]) -> Float[np.ndarray, "R V"]:
    """Return log-probabilities over the vocabulary; nan for a row of -inf."""
    with np.errstate(invalid="ignore"):  # the search itself raises an error for rows of -inf
        shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def top_k(scores: Float[np.ndarray, " M"], count: int) -> Int[np.ndarray, " K"]:
    """Return the indices of the `count` largest scores, in falling order; of equal scores the smaller index first."""
    indices = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    return indices[np.lexsort((indices, -scores[indices]))]


def mask_forbidden(
    rules: Rules, scores: Float[np.ndarray, "R V"], tokens: Int[np.ndarray, "R t"]
) -> Float[np.ndarray, "R V"]:
    """Set the scores of tokens that the rules forbid after `tokens` to -inf, as `decode.logits.apply_rules` does.

    A row in which all tokens would be forbidden keeps its scores.
    """
    length, rows = tokens.shape[1], np.arange(len(tokens))
    forbidden = [
        *([] if rules.allow_unknown else [UNK]),
        *([EOS] if length < rules.min_length else []),
        *bound_ids(rules.never),
    ]
    forbidden += bound_ids(rules.bad_endings) if length == rules.max_length - 1 else []
    masked = scores.copy()
    masked[:, forbidden] = -inf
    if length and rules.no_repeat_word:
        masked[rows, tokens[:, -1]] = -inf
    if length and rules.bad_endings:
        masked[np.isin(tokens[:, -1], bound_ids(rules.bad_endings)), EOS] = -inf
    if rules.no_repeat_trigram and length > 2:
        trigrams = np.lib.stride_tricks.sliding_window_view(tokens, 3, axis=1)  # (R, t - 2, 3)
        row, position = np.nonzero((trigrams[..., :2] == tokens[:, None, -2:]).all(-1))
        masked[row, trigrams[row, position, 2]] = -inf
    all_forbidden = masked.max(1, keepdims=True) == -inf
    return np.where(all_forbidden, scores, masked)
