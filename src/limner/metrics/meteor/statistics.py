"""What METEOR counts in an alignment, and the score it makes of the counts.

Denkowski and Lavie, "Meteor Universal", WMT 2014, equations 1-4, with the weights tuned for ranking English.

The counts are those of the jar's SCORE line, in its order.  Sums are in the jar's order too: scores are equal to the
last bit, and ties between references fall the same way.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

COUNTS = 23
# Columns; every second one is of the reference.
LENGTH, FUNCTION_WORDS = 0, 2  # words of the sentence, and function words among them
MATCHED = 4  # per module: matched content words, then matched function words
CHUNKS = 20
WORDS_MATCHED = 21

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # exact, stem, synonym, paraphrase


def score(counts: Sequence[int] | np.ndarray) -> float:
    """METEOR of one segment's counts, or of `total`'s; in [0, 1], 0 where nothing matches.  `kernel` compiles it."""
    shares = np.zeros(2)  # of weighted words that are matched: precision and recall
    for side in range(2):
        matched = 0.0
        for module in range(len(WEIGHTS)):
            matched += WEIGHTS[module] * counts[MATCHED + 4 * module + side] * DELTA
        for module in range(len(WEIGHTS)):
            matched += WEIGHTS[module] * counts[MATCHED + 4 * module + 2 + side] * (1 - DELTA)
        function = counts[FUNCTION_WORDS + side]
        whole = DELTA * (counts[LENGTH + side] - function) + (1 - DELTA) * function
        if matched == 0 or whole == 0:
            return 0.0
        shares[side] = matched / whole
    mean = 1 / ((1 - ALPHA) / shares[0] + ALPHA / shares[1])
    matched = counts[WORDS_MATCHED] + counts[WORDS_MATCHED + 1]
    perfect = counts[CHUNKS] == 1 and matched == counts[LENGTH] + counts[LENGTH + 1]
    fragmentation = 0.0 if perfect else counts[CHUNKS] / (matched / 2)
    return float(mean * (1 - GAMMA * fragmentation**BETA))


def total(segments: Int64[np.ndarray, "I 23"]) -> Int64[np.ndarray, "23"]:
    """The corpus' counts: sums, in which the chunk of a perfect segment (all words in one chunk) does not count."""
    total: Int64[np.ndarray, "23"] = summands(segments).sum(0)
    return total


def summands(segments: Int64[np.ndarray, "I 23"]) -> Int64[np.ndarray, "I 23"]:
    """What `total` adds up."""
    words, matched = segments[:, LENGTH] + segments[:, LENGTH + 1], segments[:, WORDS_MATCHED:].sum(1)
    counts = segments.copy()
    counts[(segments[:, CHUNKS] == 1) & (matched == words), CHUNKS] = 0
    return counts
