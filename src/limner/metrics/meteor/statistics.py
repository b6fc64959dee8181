"""The counts of an alignment, and METEOR's score of these counts.

Denkowski and Lavie, "Meteor Universal", WMT 2014, equations 1-4, with the weights that were tuned for ranking English.

The counts are those of the SCORE line that METEOR's jar prints, in its order.  Sums are computed in the jar's order
too, so scores are equal to the last bit, and the same reference wins where two have nearly equal scores.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

COUNTS = 23
# Columns of the counts.  Each has a neighbour: the hypothesis' count comes first, the reference's second.
LENGTH, FUNCTION_WORDS = 0, 2  # words of the sentence, and function words among them
MATCHED = 4  # per module four counts: matched content words (of both sides), then matched function words
CHUNKS = 20  # only one number: chunks belong to both sides
WORDS_MATCHED = 21

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # exact, stem, synonym, paraphrase


def score_from_counts(counts: Sequence[int] | np.ndarray) -> float:
    """METEOR of one segment's counts or of `corpus_counts`, in [0, 1]; 0 where nothing matches.

    `kernel` compiles this function.

    An example: the hypothesis "a cat" and the reference "a dog".  The function word "a" matches and has the weight
    1 - DELTA = 0.25; the content words "cat" and "dog" have the weight 0.75.  Precision and recall are
    0.25 / (0.25 + 0.75).  The one match is one chunk, so the fragmentation is 1 / 1, and the score is
    0.25 * (1 - 0.6 * 1).

    >>> counts = np.zeros(COUNTS, dtype=np.int64)
    >>> counts[LENGTH : LENGTH + 2], counts[FUNCTION_WORDS : FUNCTION_WORDS + 2] = 2, 1
    >>> counts[MATCHED + 2 : MATCHED + 4] = 1                       # module EXACT, function words, both sides
    >>> counts[CHUNKS], counts[WORDS_MATCHED :] = 1, 1
    >>> round(score_from_counts(counts), 6)
    0.1
    """
    shares = np.zeros(2)  # weighted share of matched words: precision, recall
    for side in range(2):
        matched = 0.0
        for module in range(len(WEIGHTS)):
            matched += WEIGHTS[module] * counts[MATCHED + 4 * module + side] * DELTA
        for module in range(len(WEIGHTS)):
            matched += WEIGHTS[module] * counts[MATCHED + 4 * module + 2 + side] * (1 - DELTA)
        function = counts[FUNCTION_WORDS + side]
        total = DELTA * (counts[LENGTH + side] - function) + (1 - DELTA) * function
        if matched == 0 or total == 0:
            return 0.0
        shares[side] = matched / total
    mean = 1 / ((1 - ALPHA) / shares[0] + ALPHA / shares[1])
    matched = counts[WORDS_MATCHED] + counts[WORDS_MATCHED + 1]
    perfect = counts[CHUNKS] == 1 and matched == counts[LENGTH] + counts[LENGTH + 1]
    fragmentation = 0.0 if perfect else counts[CHUNKS] / (matched / 2)
    return float(mean * (1 - GAMMA * fragmentation**BETA))


def corpus_counts(segments: Int64[np.ndarray, "I 23"]) -> Int64[np.ndarray, "23"]:
    """The counts of a corpus: the sum of `corpus_summands`."""
    total: Int64[np.ndarray, "23"] = corpus_summands(segments).sum(0)
    return total


def corpus_summands(segments: Int64[np.ndarray, "I 23"]) -> Int64[np.ndarray, "I 23"]:
    """The counts of segments, but 0 chunks for a perfect segment: all of its words match, in a single chunk."""
    words, matched = segments[:, LENGTH] + segments[:, LENGTH + 1], segments[:, WORDS_MATCHED:].sum(1)
    counts = segments.copy()
    counts[(segments[:, CHUNKS] == 1) & (matched == words), CHUNKS] = 0
    return counts
