"""Beam search in NumPy, each medium for itself: the same captions as the search over batches in `limner.decode.search`.

For one medium, a tensor library's bookkeeping takes longer than the model: a step is some thirty operations on a few
numbers.  It needs no PyTorch, so both engines use it.  Hypotheses that have ended, or that can no longer be among the
best, have no row in the decoder's batch: later steps are faster.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from limner.core.torch_free import BOS, EOS, UNK
from limner.decode.options import Beam
from limner.decode.rules import Rules, bound_ids

StepOutput = tuple[np.ndarray, np.ndarray, Any]  # log-probabilities (B, K, V), attention (B, K, N), the new state
StepFunction = Callable[[Int[np.ndarray, "B K"], Any], StepOutput]  # (last tokens, state) -> StepOutput
# (state, media, rows) -> the state of `media` (b,), with the hypotheses `rows` (b, k) of each
SelectRows = Callable[[Any, Int[np.ndarray, " b"], Int[np.ndarray, "b k"]], Any]

SMALL_BEAM = 16  # hypotheses


class FoundCaption(NamedTuple):
    """A caption of the search, ended or cut off at the maximal length."""

    score: float  # log-probability divided by the length normalisation; the search compares it
    logprob: float  # natural log
    tokens: np.ndarray  # (L,) token ids without BOS
    attention: np.ndarray  # (L, N); each row sums to 1


Fate = Literal["kept", "ended", "hopeless", "outside"]


class BeamStep(NamedTuple):
    """One step of the search: the C likeliest extensions of the hypotheses, best first, and what became of each.

    parent   (C,) the hypothesis that is extended, counted among the kept ones of the step before
    token    (C,) the token by which it is extended
    logprob  (C,) natural log of the probability of the extended hypothesis, not normalised
    fate     kept: it is extended in the next step.  ended: the token is EOS.  hopeless: it cannot become better than
             the ended ones (`Beam.drop_hopeless`).  outside: the beam has no place for it
    """

    parent: np.ndarray
    token: np.ndarray
    logprob: np.ndarray
    fate: tuple[Fate, ...]


def beam(
    step: StepFunction,
    state: Any,
    options: Beam,
    select: SelectRows,
    media: int = 1,
    traces: Sequence[list[BeamStep]] | None = None,
) -> list[list[FoundCaption]]:
    """Return the `options.n_best` best captions of each medium, best first; fewer when the search finds fewer.

    All media take their steps together, with K rows each: a medium with fewer hypotheses repeats some.  One that has
    ended leaves the batch.  `state` has B = `media` rows, with K = 1.  Raises FloatingPointError when the scores of a
    medium are nan, or all -inf.  `traces` has a list for each medium, to which its steps are added.
    """
    searches = [SingleBeam(options, None if traces is None else traces[i]) for i in range(media)]
    live = searches
    token: np.ndarray = np.full((media, 1), BOS)
    for _ in range(options.rules.max_length):
        logp, attention, state = step(token, state)
        counts = [len(search.token) for search in live]
        parents = [
            search.extend(logp[i, :count], attention[i, :count])
            for i, (search, count) in enumerate(zip(live, counts, strict=True))
        ]
        going = [i for i, rows in enumerate(parents) if len(rows)]
        if not going:
            break
        width = max(len(parents[i]) for i in going)
        state = select(state, np.array(going), np.stack([np.resize(parents[i], width) for i in going]))
        live = [live[i] for i in going]
        token = np.stack([np.resize(search.token, width) for search in live])
    return [search.finish() for search in searches]


class SingleBeam:
    """The hypotheses of one medium: R unfinished ones, with a row of the decoder each, and the best ended ones."""

    def __init__(self, options: Beam, trace: list[BeamStep] | None = None):
        self.options, self.trace = options, trace
        self.score = np.zeros(1, np.float32)  # (R,) log-probabilities of the unfinished hypotheses
        self.slots = options.size  # hypotheses that may still end
        self.token = np.full(1, BOS, np.int64)  # (R,) their last tokens
        self.tokens = np.empty((1, 0), np.int64)  # (R, L)
        self.attention: np.ndarray | None = None  # (R, L, N)
        self.ended: list[FoundCaption] = []  # at most n_best, best first
        self.threshold = -inf  # the score of the last of n_best ended hypotheses; only better ones are added

    def extend(self, logp: Float[np.ndarray, "R V"], attention: Float[np.ndarray, "R N"]) -> Int[np.ndarray, " S"]:
        """Extend every hypothesis by one token -> the rows that the new unfinished ones continue; none when done.

        `logp` are the log-probabilities of the next tokens.
        """
        scores = (mask_forbidden(self.options.rules, logp, self.tokens) + self.score[:, None]).ravel()
        highest = scores.max()  # nan if any score is
        if np.isnan(highest) or (highest == -inf and not self.ended):
            raise FloatingPointError("the model's scores for the medium are nan or all -inf")
        best = top_k(scores, min(self.options.size, len(scores)))
        score, parents, self.token = scores[best], best // logp.shape[1], best % logp.shape[1]
        self.tokens = np.concatenate([self.tokens[parents], self.token[:, None]], 1)
        new = attention[:, None]
        self.attention = (new if self.attention is None else np.concatenate([self.attention, new], 1))[parents]
        if self.options.finished_compete and len(score) == self.options.size and (score > self.threshold).all():
            self.threshold = -inf  # the best ended hypothesis leaves the beam when all others are better
        in_beam = score > -inf
        in_beam[self.slots :] = False
        ended = in_beam & (self.token == EOS)
        if ended.any():
            self._add_ended(ended, score)
            if not (self.options.finished_compete or self.options.keep_beam_full):
                self.slots -= int(ended.sum())
        live = in_beam & ~ended
        if self.options.drop_hopeless and self.threshold > -inf:
            # the highest normalised score that a hypothesis can still reach: log-probabilities only fall
            live &= score / max(1.0, self.options.divisor(self.options.rules.max_length)) > self.threshold
        if self.trace is not None:
            self.trace.append(_trace_step(scores, logp.shape[1], in_beam, ended, live))
        return self._keep(live, score, parents)

    def _keep(self, live: Bool[np.ndarray, " K"], score: np.ndarray, parents: np.ndarray) -> Int[np.ndarray, " S"]:
        """Keep the hypotheses that are `live` -> the rows that they continue."""
        assert self.attention is not None
        if live.all():
            self.score = score
            return parents
        self.score, self.token, self.tokens = score[live], self.token[live], self.tokens[live]
        self.attention = self.attention[live]
        return parents[live]

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
                self._add(FoundCaption(logprob / divisor, logprob, self.tokens[row], self.attention[row]))

    def _add(self, new: FoundCaption) -> None:
        """Insert a hypothesis by its score, after equal scores; one with the same tokens as another is left out."""
        if self.options.n_best == 1 or not any(np.array_equal(new.tokens, old.tokens) for old in self.ended):
            self.ended.append(new)
            self.ended.sort(key=lambda hypothesis: -hypothesis.score)
            del self.ended[self.options.n_best :]
        self.threshold = self.ended[-1].score if len(self.ended) == self.options.n_best else -inf

    def finish(self) -> list[FoundCaption]:
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
            self._add(FoundCaption(score, logprob, self.tokens[row], self.attention[row]))
        return self.ended


def _trace_step(
    scores: Float[np.ndarray, " M"],
    words: int,
    in_beam: Bool[np.ndarray, " K"],
    ended: Bool[np.ndarray, " K"],
    live: Bool[np.ndarray, " K"],
) -> BeamStep:
    """The step that chose the K highest of `scores`, with as many of the next best ones."""
    size = len(in_beam)
    best = top_k(scores, min(2 * size, len(scores)))
    best = best[scores[best] > -inf]
    fates: list[Fate] = ["outside"] * len(best)
    for k in range(min(size, len(best))):
        if in_beam[k]:
            fates[k] = "ended" if ended[k] else "kept" if live[k] else "hopeless"
    return BeamStep(best // words, best % words, scores[best], tuple(fates))


def log_softmax(logits: Float[np.ndarray, "*B V"]) -> Float[np.ndarray, "*B V"]:
    """Return log-probabilities over the vocabulary; nan for a row of -inf."""
    with np.errstate(invalid="ignore"):  # the search itself raises an error for rows of -inf
        shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def top_k(scores: Float[np.ndarray, " M"], count: int) -> Int[np.ndarray, " K"]:
    """Return the indices of the `count` largest scores, in falling order; of equal scores the smaller index first."""
    if count <= SMALL_BEAM:  # a pass per index is faster than a partition
        left, found = scores.copy(), np.empty(count, np.int64)
        for k in range(count):
            found[k] = place = left.argmax()
            if left[place] == -inf:  # among these it would find the same index again
                break
            left[place] = -inf
        else:
            return found
    indices: np.ndarray = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
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
    if forbidden:
        masked[:, forbidden] = -inf
    if length and rules.no_repeat_word:
        masked[rows, tokens[:, -1]] = -inf
    if length and rules.bad_endings:
        masked[(tokens[:, -1:] == np.array(bound_ids(rules.bad_endings))).any(1), EOS] = -inf
    if rules.no_repeat_trigram and length > 2:
        trigrams = np.lib.stride_tricks.sliding_window_view(tokens, 3, axis=1)  # (R, t - 2, 3)
        row, position = np.nonzero((trigrams[..., :2] == tokens[:, None, -2:]).all(-1))
        masked[row, trigrams[row, position, 2]] = -inf
    all_forbidden = masked.max(1, keepdims=True) == -inf
    return np.where(all_forbidden, scores, masked) if all_forbidden.any() else masked
