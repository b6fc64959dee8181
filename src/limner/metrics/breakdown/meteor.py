"""METEOR of one caption: the alignment with every reference, with the kind of each match and the chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from limner.metrics.meteor import statistics
from limner.metrics.meteor.align import best_alignment, count_alignment
from limner.metrics.meteor.evaluation import SEPARATOR
from limner.metrics.meteor.matches import Match, Matcher
from limner.metrics.meteor.normalise import normalise
from limner.metrics.meteor.records import Lexicon
from limner.metrics.meteor.statistics import (
    ALPHA,
    BETA,
    CHUNKS,
    DELTA,
    FUNCTION_WORDS,
    GAMMA,
    LENGTH,
    MATCHED,
    WEIGHTS,
    WORDS_MATCHED,
)
from limner.metrics.meteor.tables import Tables, load_tables

Stage = Literal["exact", "stem", "synonym", "paraphrase"]
STAGES: tuple[Stage, ...] = ("exact", "stem", "synonym", "paraphrase")


@dataclass(frozen=True)
class AlignedPair:
    """`words` of the caption from `place` on match `reference_words` of the reference from `reference_place` on.

    chunk   the number of the run of matches that is contiguous in both sentences, from 0
    weight  of the stage: 1 for exact, 0.6 stem, 0.8 synonym, 0.6 paraphrase
    """

    words: tuple[str, ...]
    place: int
    reference_words: tuple[str, ...]
    reference_place: int
    stage: Stage
    weight: float
    chunk: int


@dataclass(frozen=True)
class MeteorReference:
    """The alignment with one reference (equations 1-4).

    precision      weighted share of the caption's words that match; function words weigh 0.25, others 0.75
    recall         the same of the reference's words
    mean           1 / (0.15 / precision + 0.85 / recall)
    fragmentation  chunks / (mean number of matched words of both sentences); 0 for a perfect match
    penalty        0.6 * fragmentation^0.2
    score          mean * (1 - penalty)
    """

    words: tuple[str, ...]
    pairs: tuple[AlignedPair, ...]
    chunks: int
    precision: float
    recall: float
    mean: float
    fragmentation: float
    penalty: float
    score: float


@dataclass(frozen=True)
class MeteorBreakdown:
    """METEOR: the score of the best reference, which is number `best`.  `words` are as METEOR splits the caption."""

    words: tuple[str, ...]
    function_words: tuple[str, ...]
    references: tuple[MeteorReference, ...]
    best: int
    score: float


def break_down_meteor(caption: str, references: Sequence[str]) -> MeteorBreakdown:
    """METEOR of one caption, given as its tokens joined by blanks; equal to `metrics.meteor.meteor`.

    Raises MissingTablesError when METEOR's tables are missing.
    """
    tables = load_tables()
    lexicon = Lexicon(tables)
    lines = [caption.replace(SEPARATOR, ""), *(part for line in references for part in line.split(SEPARATOR))]
    rows, sentences = lexicon.sentences(lines)
    matcher, function = Matcher(lexicon.words, tables), lexicon.words.function.tolist()
    words = [normalise(line, tables.prefixes) for line in lines]
    hypothesis = matcher.sentence(sentences, int(rows[0]))
    each = []
    for row, own in zip(rows[1:].tolist(), words[1:], strict=True):
        reference = matcher.sentence(sentences, row)
        matches = matcher.find_matches(hypothesis, reference)
        counts = count_alignment(hypothesis, reference, matches, function).tolist()
        alignment, _ = best_alignment(matches)
        each.append(_reference(tuple(own), _pairs(alignment, words[0], own), counts))
    best = max(range(len(each)), key=lambda i: each[i].score)  # the first of equals
    return MeteorBreakdown(tuple(words[0]), _function_words(words[0], tables), tuple(each), best, each[best].score)


def _function_words(words: Sequence[str], tables: Tables) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word in tables.function))


def _reference(words: tuple[str, ...], pairs: tuple[AlignedPair, ...], counts: Sequence[int]) -> MeteorReference:
    """The numbers of an alignment, from its counts (see `metrics.meteor.statistics`)."""
    score = statistics.score_from_counts(counts)
    chunks = counts[CHUNKS]
    if not pairs or score == 0:
        return MeteorReference(words, pairs, chunks, 0.0, 0.0, 0.0, 0.0, 0.0, score)
    precision, recall = (_weighted_share(counts, side) for side in range(2))
    mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
    matched = counts[WORDS_MATCHED] + counts[WORDS_MATCHED + 1]
    perfect = chunks == 1 and matched == counts[LENGTH] + counts[LENGTH + 1]
    fragmentation = 0.0 if perfect else chunks / (matched / 2)
    return MeteorReference(
        words, pairs, chunks, precision, recall, mean, fragmentation, GAMMA * fragmentation**BETA, score
    )


def _weighted_share(counts: Sequence[int], side: int) -> float:
    """The share of matched words of the caption (side 0, precision) or of the reference (side 1, recall)."""
    content = sum(weight * counts[MATCHED + 4 * k + side] for k, weight in enumerate(WEIGHTS))
    function = sum(weight * counts[MATCHED + 4 * k + 2 + side] for k, weight in enumerate(WEIGHTS))
    function_words = counts[FUNCTION_WORDS + side]
    total = DELTA * (counts[LENGTH + side] - function_words) + (1 - DELTA) * function_words
    return (DELTA * content + (1 - DELTA) * function) / total


def _pairs(alignment: Sequence[Match], words: Sequence[str], reference: Sequence[str]) -> tuple[AlignedPair, ...]:
    """The matches with their words and their chunk: one begins where a match does not go on in both sentences."""
    pairs: list[AlignedPair] = []
    chunk, ends = -1, (-1, -1)
    for match in sorted(alignment, key=lambda it: it.ref_start):
        chunk += (match.ref_start, match.hyp_start) != ends
        ends = match.ref_start + match.ref_length, match.hyp_start + match.hyp_length
        pairs.append(
            AlignedPair(
                tuple(words[match.hyp_start : ends[1]]),
                match.hyp_start,
                tuple(reference[match.ref_start : ends[0]]),
                match.ref_start,
                STAGES[match.module],
                WEIGHTS[match.module],
                chunk,
            )
        )
    return tuple(pairs)
