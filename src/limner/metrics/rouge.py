"""ROUGE-L as coco-caption computes it.  Lin, "ROUGE", 2004, section 3: F of the longest common subsequence."""

from collections.abc import Mapping, Sequence

import numpy as np

from limner.metrics.references import Candidates, References, Score

BETA = 1.2  # weight of recall against precision


def rouge_l(candidates: Candidates, references: References) -> Score:
    """ROUGE-L, in [0, 1]; the corpus value is the mean over the images.

    Precision and recall take their best reference separately, so F may be that of no single reference.  Tokens are cut
    at single blanks: an empty caption is one empty word.
    """
    segments = np.array(
        [_segment(line.split(" "), masks) for line, masks in zip(candidates.lines, references.masks, strict=True)]
    )
    return Score(float(segments.mean()), segments)


def _segment(words: Sequence[str], references: Sequence[tuple[int, Mapping[str, int]]]) -> float:
    common = [(lcs(words, masks, length), length) for length, masks in references]
    precision = max(shared for shared, _ in common) / len(words)
    recall = max(shared / length for shared, length in common)
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)  # eq. 4


def lcs(words: Sequence[str], masks: Mapping[str, int], length: int) -> int:
    """Length of the longest common subsequence of `words` and a sentence given as `positions` and its length.

    Bit-parallel over the sentence (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004): bit i of `row` is 0
    where the dynamic programme's row steps up at place i.
    """
    full = (1 << length) - 1
    row = full
    for word in words:
        matched = row & masks.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return length - row.bit_count()
