"""How well the words of the training split cover the other splits."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from limner.core.torch_free import Medium
from limner.data.checks.findings import Finding
from limner.text.word_classes import nouns_and_verbs

MOST_UNKNOWN = 0.1  # share of the words of a split from which on it is a finding that they are unknown


@dataclass(frozen=True)
class SplitWords:
    """The words of one split.

    media, captions  in it
    tokens           words in all captions
    types            different words
    unknown          tokens that the vocabulary lacks
    unseen           word class -> words that occur in no training caption, with their counts, the most frequent first;
                     the classes are noun, verb and other, found by the rules of `limner.text.word_classes`
    """

    media: int
    captions: int
    tokens: int
    types: int
    unknown: int
    unseen: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def unknown_rate(self) -> float:
        """The share of tokens that the vocabulary lacks, in [0, 1]."""
        return self.unknown / max(1, self.tokens)


def split_words(
    media: Sequence[Medium], tokenize: Callable[[Sequence[str]], list[str]], known: Collection[str]
) -> dict[str, SplitWords]:
    """The words of each split, train first.

    `tokenize` gives a line of words for each caption; `known` is the vocabulary.

    >>> media = [Medium("1", "", "train", ("a dog runs",)), Medium("2", "", "val", ("a zebra runs",))]
    >>> words = split_words(media, lambda captions: list(captions), {"a", "dog", "runs"})
    >>> words["val"].unknown, words["val"].unseen
    (1, {'noun': {'zebra': 1}})
    """
    by_split: dict[str, list[Medium]] = {"train": []}
    for medium in media:
        by_split.setdefault(medium.split, []).append(medium)
    trained: frozenset[str] = frozenset()
    tables = {}
    for split, members in by_split.items():
        lines = [line.split() for line in tokenize([text for medium in members for text in medium.references])]
        counts = Counter(word for line in lines for word in line)
        if split == "train":
            trained = frozenset(counts)
        unknown = sum(count for word, count in counts.items() if word not in known)
        unseen = _unseen(lines, trained) if split != "train" else {}
        tables[split] = SplitWords(len(members), len(lines), counts.total(), len(counts), unknown, unseen)
    return {split: table for split, table in tables.items() if table.media}


def _unseen(lines: Sequence[Sequence[str]], trained: Collection[str]) -> dict[str, dict[str, int]]:
    """Word class -> words that no training caption has, with their counts."""
    classes: dict[str, Counter[str]] = {"noun": Counter(), "verb": Counter(), "other": Counter()}
    for line in lines:
        new = [word for word in line if word not in trained]
        if new:
            nouns, verbs = nouns_and_verbs(list(line))
            for word in new:
                classes["verb" if word in verbs else "noun" if word in nouns else "other"][word] += 1
    return {name: dict(counts.most_common()) for name, counts in classes.items() if counts}


def word_findings(words: Mapping[str, SplitWords]) -> Iterator[Finding]:
    """A finding for each split of whose words a tenth or more is unknown."""
    for split, table in words.items():
        if table.unknown_rate >= MOST_UNKNOWN:
            detail = f"{split or 'no split'}: {table.unknown:,} of {table.tokens:,} words ({table.unknown_rate:.1%})"
            yield Finding("unknown-words", (), f"{detail} are not in the vocabulary")
