"""ROUGE-L as coco-caption computes it.

Lin, "ROUGE: A package for automatic evaluation of summaries", 2004, section 3: the F-measure of the longest common
subsequence.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from limner.metrics.references import Candidates, References, Score

BETA = 1.2  # weight of recall against precision


def rouge_l(candidates: Candidates, references: References) -> Score:
    """ROUGE-L, in [0, 1]; the corpus value is the mean over the media.

    Precision and recall are each the best over the references, so they may come from two different references.  Tokens
    are split at single blanks: an empty caption is one empty word.

    The common subsequence of "the cat sat" and "the cat sat down" has 3 words: precision 3 / 3, recall 3 / 4.

    >>> references = References({"x": ["the cat sat down"]}, "split")
    >>> score = rouge_l(references.candidates({"x": "the cat sat"}), references)
    >>> precision, recall = 1, 3 / 4
    >>> round(score.corpus, 6), round((1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision), 6)
    (0.835616, 0.835616)
    """
    segments = np.array(
        [
            _segment_score(line.split(" "), masks)
            for line, masks in zip(candidates.tokenized, references.position_masks, strict=True)
        ]
    )
    return Score(float(segments.mean()), segments)


def _segment_score(words: Sequence[str], references: Sequence[tuple[int, Mapping[str, int]]]) -> float:
    """ROUGE-L of one caption; a reference is given as its length and its `position_masks`."""
    common = [(lcs_length(words, masks, length), length) for length, masks in references]
    precision = max(shared for shared, _ in common) / len(words)
    recall = max(shared / length for shared, length in common)
    return f_measure(precision, recall)


def f_measure(precision: float, recall: float) -> float:
    """ROUGE-L of a precision and a recall (eq. 4); 0 where one of them is 0.

    >>> f_measure(0.5, 0.5), f_measure(0.0, 1.0)
    (0.5, 0.0)
    """
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def lcs_length(words: Sequence[str], masks: Mapping[str, int], length: int) -> int:
    """The length of the longest common subsequence of `words` and a sentence.

    The sentence is given by its `position_masks` and its length.  All its places are treated at once, as the bits of an
    integer (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).  Let row i of the usual table hold the
    lengths for the first i words and every beginning of the sentence: it grows by 0 or 1 from place to place.  In `row`
    a bit is 0 where it grows by 1, so that the number of zero bits is the length.

    For the sentence "a b c" and the words "a", "c" (the lowest bit, the first place, is on the right):

        start       row = 111
        word "a"    row = 110     "a" is at place 0: one common word from there on
        word "c"    row = 010     "c" is at place 2: two common words from there on

    >>> from limner.metrics.references import position_masks
    >>> lcs_length(["a", "c"], position_masks(["a", "b", "c"]), 3)
    2
    """
    full = (1 << length) - 1
    row = full
    for word in words:
        matched = row & masks.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return length - row.bit_count()
