"""METEOR's choice among the matches of two sentences: a beam search along the reference, in plain Python.

Denkowski and Lavie, "Meteor Universal", WMT 2014, section 2; ties and rounding as found on the jar.  `kernel` does the
same on arrays; a test holds them equal.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from limner.metrics.meteor.matches import EXACT, Match, Sentence
from limner.metrics.meteor.statistics import CHUNKS, COUNTS, FUNCTION_WORDS, LENGTH, MATCHED, WORDS_MATCHED

BEAM = 40
CLOSED = -1


class Path(NamedTuple):
    """A partial alignment of the reference's first words."""

    weight: int  # of the matches: see `weight`
    chunks: int  # that are over
    distance: int
    end: int  # where the open chunk ends in the hypothesis, or CLOSED
    used: int  # bit i: the hypothesis' word i is matched
    covered: int  # the same for the reference
    matches: tuple[Match, ...]

    @property
    def rank(self) -> tuple[int, int, int]:
        return -self.weight, self.chunks, self.distance


def align(matches: Sequence[Sequence[Match]]) -> tuple[tuple[Match, ...], int]:
    """The best alignment, as its matches and the number of its chunks; `matches` as from `Matcher.matches`."""
    sure = fixed(matches)
    beam = [Path(0, 0, 0, CLOSED, 0, 0, ())]
    for place, here in enumerate(matches):
        following: list[Path] = []
        for path in beam:
            if place in sure:
                match = sure[place]
                following.append(extend(path, match)._replace(distance=path.distance + _distance(match)))
            elif path.covered >> place & 1:
                following.append(path)
            else:
                following += branches(path, here)
        beam = sorted(following, key=lambda path: path.rank)[:BEAM]
    best = min((close(path) for path in beam), key=lambda path: path.rank)
    return best.matches, best.chunks


def fixed(matches: Sequence[Sequence[Match]]) -> dict[int, Match]:
    """By place, the matches without any rival: the only one there, and no other has a word of theirs."""
    all_matches = [match for here in matches for match in here]
    rivals = [0] * len(matches)
    hyp_rivals = [0] * max((match.hyp_place + match.hyp_span for match in all_matches), default=0)
    for match in all_matches:
        for i in range(match.place, match.place + match.span):
            rivals[i] += 1
        for i in range(match.hyp_place, match.hyp_place + match.hyp_span):
            hyp_rivals[i] += 1
    alone = (here[0] for here in matches if len(here) == 1)
    return {
        match.place: match
        for match in alone
        if all(rivals[i] == 1 for i in range(match.place, match.place + match.span))
        and all(hyp_rivals[i] == 1 for i in range(match.hyp_place, match.hyp_place + match.hyp_span))
    }


def branches(path: Path, here: Sequence[Match]) -> list[Path]:
    """The path with each match that it has room for, in their order, and last without any."""
    found = []
    for match in here:
        used, covered = _bits(match.hyp_place, match.hyp_span), _bits(match.place, match.span)
        if not path.used & used and not path.covered & covered:
            found.append(extend(path, match))
            # METEOR adds a branch's distance to the path it leaves, not to the branch
            path = path._replace(distance=path.distance + _distance(match))
    return [*found, close(path)]


def extend(path: Path, match: Match) -> Path:
    continues = path.end in (CLOSED, match.hyp_place)
    return Path(
        weight=path.weight + weight(match.module, match.span) + weight(match.module, match.hyp_span),
        chunks=path.chunks + (not continues),
        distance=path.distance,
        end=match.hyp_place + match.hyp_span,
        used=path.used | _bits(match.hyp_place, match.hyp_span),
        covered=path.covered | _bits(match.place, match.span),
        matches=(*path.matches, match),
    )


def close(path: Path) -> Path:
    """The path after a word without a match, which ends a chunk."""
    return path._replace(chunks=path.chunks + (path.end != CLOSED), end=CLOSED)


def weight(module: int, words: int) -> int:
    """What a side of a match counts in the search: 1 per word if exact, else half, cut to an integer."""
    return words if module == EXACT else words // 2


def _distance(match: Match) -> int:
    return abs(match.place - match.hyp_place)


def _bits(place: int, span: int) -> int:
    return ((1 << span) - 1) << place


def count(
    hypothesis: Sentence, reference: Sentence, matches: Sequence[Sequence[Match]], function: Sequence[bool]
) -> Int64[np.ndarray, "23"]:
    """The counts of the best alignment, as in `statistics`; `function` says which words are function words."""
    counts = np.zeros(COUNTS, dtype=np.int64)
    alignment, counts[CHUNKS] = align(matches)
    for side, sentence in enumerate((hypothesis, reference)):
        counts[LENGTH + side] = len(sentence.words)
        counts[FUNCTION_WORDS + side] = sum(function[word] for word in sentence.words)
    for match in alignment:
        spans = ((match.hyp_place, match.hyp_span), (match.place, match.span))
        for side, (sentence, (place, span)) in enumerate(zip((hypothesis, reference), spans, strict=True)):
            for word in sentence.words[place : place + span]:
                counts[MATCHED + 4 * match.module + 2 * function[word] + side] += 1
                counts[WORDS_MATCHED + side] += 1
    return counts
