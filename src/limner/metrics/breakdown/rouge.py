"""ROUGE-L of one caption: the longest common subsequence with every reference."""

from collections.abc import Sequence
from dataclasses import dataclass

from limner.metrics.rouge import f_measure


@dataclass(frozen=True)
class CommonSubsequence:
    """The longest common subsequence of the caption and one reference.

    words      of the reference
    pairs      places of the common words: (in the caption, in the reference)
    precision  common words / words of the caption
    recall     common words / words of the reference
    """

    words: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    precision: float
    recall: float


@dataclass(frozen=True)
class RougeBreakdown:
    """ROUGE-L: the F-measure of the best precision and the best recall, which may be of two references."""

    words: tuple[str, ...]
    references: tuple[CommonSubsequence, ...]
    precision: float
    recall: float
    score: float


def break_down_rouge(words: Sequence[str], references: Sequence[Sequence[str]]) -> RougeBreakdown:
    """ROUGE-L of one caption, given as its words; equal to `metrics.rouge.rouge_l`.

    An empty caption is one empty word, as coco-caption has it: [""].

    >>> found = break_down_rouge("the cat sat".split(), ["the fat cat sat down".split()])
    >>> found.references[0].pairs, found.precision, found.recall
    (((0, 0), (1, 2), (2, 3)), 1.0, 0.6)
    """
    each = []
    for reference in references:
        pairs = common_subsequence(words, reference)
        each.append(CommonSubsequence(tuple(reference), pairs, len(pairs) / len(words), len(pairs) / len(reference)))
    precision, recall = max(it.precision for it in each), max(it.recall for it in each)
    return RougeBreakdown(tuple(words), tuple(each), precision, recall, f_measure(precision, recall))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The places of the words of a longest common subsequence, in both sentences; of several, one of them.

    >>> common_subsequence("a b c".split(), "b a c".split())
    ((0, 1), (2, 2))
    """
    # length[i][j] is that of first[i:] and second[j:]
    length = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in reversed(range(len(first))):
        for j in reversed(range(len(second))):
            if first[i] == second[j]:
                length[i][j] = length[i + 1][j + 1] + 1
            else:
                length[i][j] = max(length[i + 1][j], length[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif length[i][j + 1] >= length[i + 1][j]:
            j += 1
        else:
            i += 1
    return tuple(pairs)
