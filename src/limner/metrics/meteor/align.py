"""METEOR's alignment of two sentences in plain Python: a beam search chooses among their matches.

Denkowski and Lavie, "Meteor Universal", WMT 2014, section 2.  Ties and rounding are those of METEOR's jar, found by
asking it.  The search goes along the reference, word by word.  It keeps the 40 best partial alignments: those with the
highest weight of matched words, then the fewest chunks, then the smallest distance between matched places.  A chunk is
a run of matches that is contiguous in both sentences.

`search` does the same on arrays; a test checks that both agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from limner.metrics.meteor.matches import EXACT, Match, SentenceRecord
from limner.metrics.meteor.statistics import CHUNKS, COUNTS, FUNCTION_WORDS, LENGTH, MATCHED, WORDS_MATCHED

BEAM_SIZE = 40
NO_CHUNK = -1


class AlignmentPath(NamedTuple):
    """A partial alignment: a choice of matches for the first words of the reference.

    weight     of the matched words, see `match_weight`
    chunks     number of finished chunks
    distance   sum of the distances that METEOR adds, see `branches`
    chunk_end  the place in the hypothesis where the current chunk ends, or NO_CHUNK
    hyp_used   bit i is set where word i of the hypothesis is matched
    ref_used   bit i is set where word i of the reference is matched
    matches    the chosen matches
    """

    weight: int
    chunks: int
    distance: int
    chunk_end: int
    hyp_used: int
    ref_used: int
    matches: tuple[Match, ...]

    @property
    def rank(self) -> tuple[int, int, int]:
        """The key by which paths are sorted, the best first."""
        return -self.weight, self.chunks, self.distance


def best_alignment(matches: Sequence[Sequence[Match]]) -> tuple[tuple[Match, ...], int]:
    """The matches of the best alignment, and the number of its chunks; `matches` come from `Matcher.find_matches`.

    Hypothesis "the x the dog", reference "the dog".  The reference's "the" can match place 0 or 2; "dog" can only match
    place 3.  Places 2 and 3 are neighbours and make one chunk, places 0 and 3 would make two.

    >>> the = [Match(0, 1, 0, 1, EXACT), Match(0, 1, 2, 1, EXACT)]
    >>> dog = [Match(1, 1, 3, 1, EXACT)]
    >>> chosen, chunks = best_alignment([the, dog])
    >>> [(match.ref_start, match.hyp_start) for match in chosen], chunks
    ([(0, 2), (1, 3)], 1)
    """
    sure = uncontested(matches)
    beam = [AlignmentPath(0, 0, 0, NO_CHUNK, 0, 0, ())]
    for place, matches_here in enumerate(matches):
        following: list[AlignmentPath] = []
        for path in beam:
            if place in sure:
                match = sure[place]
                following.append(extend(path, match)._replace(distance=path.distance + _distance(match)))
            elif path.ref_used >> place & 1:
                following.append(path)
            else:
                following += branches(path, matches_here)
        beam = sorted(following, key=lambda path: path.rank)[:BEAM_SIZE]
    best = min((end_chunk(path) for path in beam), key=lambda path: path.rank)
    return best.matches, best.chunks


def uncontested(matches: Sequence[Sequence[Match]]) -> dict[int, Match]:
    """{place: match} of the matches without a rival.

    Such a match is the only one at its place, and no other match contains one of its words.
    """
    all_matches = [match for matches_here in matches for match in matches_here]
    ref_count = [0] * len(matches)  # matches that contain each word
    hyp_count = [0] * max((match.hyp_start + match.hyp_length for match in all_matches), default=0)
    for match in all_matches:
        for i in range(match.ref_start, match.ref_start + match.ref_length):
            ref_count[i] += 1
        for i in range(match.hyp_start, match.hyp_start + match.hyp_length):
            hyp_count[i] += 1
    alone = (matches_here[0] for matches_here in matches if len(matches_here) == 1)
    return {
        match.ref_start: match
        for match in alone
        if all(ref_count[i] == 1 for i in range(match.ref_start, match.ref_start + match.ref_length))
        and all(hyp_count[i] == 1 for i in range(match.hyp_start, match.hyp_start + match.hyp_length))
    }


def branches(path: AlignmentPath, matches_here: Sequence[Match]) -> list[AlignmentPath]:
    """The path extended by each match that only has free words, in their order; last the path without a match."""
    paths = []
    for match in matches_here:
        hyp_bits, ref_bits = _bits(match.hyp_start, match.hyp_length), _bits(match.ref_start, match.ref_length)
        if not path.hyp_used & hyp_bits and not path.ref_used & ref_bits:
            paths.append(extend(path, match))
            # METEOR adds the distance of a branch to the path from which it branches, not to the branch
            path = path._replace(distance=path.distance + _distance(match))
    return [*paths, end_chunk(path)]


def extend(path: AlignmentPath, match: Match) -> AlignmentPath:
    """The path with one more match, which continues the current chunk or ends it."""
    continues = path.chunk_end in (NO_CHUNK, match.hyp_start)
    return AlignmentPath(
        weight=path.weight
        + match_weight(match.module, match.ref_length)
        + match_weight(match.module, match.hyp_length),
        chunks=path.chunks + (not continues),
        distance=path.distance,
        chunk_end=match.hyp_start + match.hyp_length,
        hyp_used=path.hyp_used | _bits(match.hyp_start, match.hyp_length),
        ref_used=path.ref_used | _bits(match.ref_start, match.ref_length),
        matches=(*path.matches, match),
    )


def end_chunk(path: AlignmentPath) -> AlignmentPath:
    """The path after a word without a match, which ends the current chunk."""
    return path._replace(chunks=path.chunks + (path.chunk_end != NO_CHUNK), chunk_end=NO_CHUNK)


def match_weight(module: int, words: int) -> int:
    """The weight in the search of one side of a match: 1 per word if exact, else one half, rounded down.

    A stem or synonym match of one word therefore has the weight 0.

    >>> match_weight(EXACT, 1), match_weight(module=1, words=1), match_weight(module=3, words=3)
    (1, 0, 1)
    """
    return words if module == EXACT else words // 2


def _distance(match: Match) -> int:
    return abs(match.ref_start - match.hyp_start)


def _bits(start: int, length: int) -> int:
    """An integer with the bits start .. start + length - 1 set."""
    return ((1 << length) - 1) << start


def count_alignment(
    hypothesis: SentenceRecord,
    reference: SentenceRecord,
    matches: Sequence[Sequence[Match]],
    is_function_word: Sequence[bool],
) -> Int64[np.ndarray, "23"]:
    """The counts of the best alignment, with the columns of `statistics`; `is_function_word` is indexed by word."""
    counts = np.zeros(COUNTS, dtype=np.int64)
    alignment, counts[CHUNKS] = best_alignment(matches)
    for side, sentence in enumerate((hypothesis, reference)):
        counts[LENGTH + side] = len(sentence.words)
        counts[FUNCTION_WORDS + side] = sum(is_function_word[word] for word in sentence.words)
    for match in alignment:
        spans = ((match.hyp_start, match.hyp_length), (match.ref_start, match.ref_length))
        for side, (sentence, (start, length)) in enumerate(zip((hypothesis, reference), spans, strict=True)):
            for word in sentence.words[start : start + length]:
                counts[MATCHED + 4 * match.module + 2 * is_function_word[word] + side] += 1
                counts[WORDS_MATCHED + side] += 1
    return counts
