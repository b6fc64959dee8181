"""All matches between the words and phrases of a hypothesis and of one reference, in METEOR's order.

This module and `align` are the plain Python version of `kernel` and `search`, which do the same on arrays.  It is used
where numba is not installed, and a test checks that both agree.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from limner.metrics.meteor.records import SentenceTable, WordTable
from limner.metrics.meteor.tables import Tables

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)  # METEOR's modules: what two words or phrases have in common
MODULES = 4


class Match(NamedTuple):
    """`ref_length` words of the reference, from `ref_start` on, match `hyp_length` words of the hypothesis."""

    ref_start: int
    ref_length: int
    hyp_start: int
    hyp_length: int
    module: int


class SentenceRecord(NamedTuple):
    """One sentence: the numbers of its words, and its phrases of the paraphrase table as (phrase, start, length)."""

    words: list[int]
    phrases: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Matcher:
    """Finds the matches of two sentences; `words` is the table of their words."""

    words: WordTable
    tables: Tables

    def sentence(self, sentences: SentenceTable, row: int) -> SentenceRecord:
        """A row of a table of sentences."""
        words = slice(sentences.start[row], sentences.start[row + 1])
        phrases = slice(sentences.phrase_start[row], sentences.phrase_start[row + 1])
        columns = (sentences.phrase[phrases], sentences.begin[phrases], sentences.length[phrases])
        return SentenceRecord(
            sentences.word[words].tolist(), list(zip(*(column.tolist() for column in columns), strict=True))
        )

    def find_matches(self, hypothesis: SentenceRecord, reference: SentenceRecord) -> list[list[Match]]:
        """For each word of the reference the matches that begin there, module by module."""
        matches: list[list[Match]] = [[] for _ in reference.words]
        for match in self._all_matches(hypothesis, reference):
            matches[match.ref_start].append(match)
        return matches

    def _all_matches(self, hypothesis: SentenceRecord, reference: SentenceRecord) -> Iterator[Match]:
        pairs = [(i, j, a, b) for i, a in enumerate(reference.words) for j, b in enumerate(hypothesis.words)]
        key, stem, synsets = self._key, self._stem, self._synsets
        yield from (Match(i, 1, j, 1, EXACT) for i, j, a, b in pairs if key[a] == key[b])
        if [key[w] for w in hypothesis.words] == [key[w] for w in reference.words]:
            return  # METEOR looks no further where the sentences are equal
        others = [(i, j, a, b) for i, j, a, b in pairs if key[a] != key[b]]
        yield from (Match(i, 1, j, 1, STEM) for i, j, a, b in others if stem[a] == stem[b])
        yield from (Match(i, 1, j, 1, SYNONYM) for i, j, a, b in others if synsets[a] & synsets[b])
        yield from self._paraphrases(hypothesis, reference)

    def _paraphrases(self, hypothesis: SentenceRecord, reference: SentenceRecord) -> Iterator[Match]:
        """The paraphrase matches.

        An entry of the table leads from a phrase to its paraphrase.  First come the entries that lead from the
        reference to the hypothesis, then those in the other direction.  Both are sorted by place and length of the
        entry's phrase, then as in METEOR's file.
        """
        places = _places(hypothesis)
        for phrase, start, length in reference.phrases:
            for other in self._paraphrases_of(phrase):
                yield from (Match(start, length, i, n, PARAPHRASE) for i, n in places.get(other, ()))
        places = _places(reference)
        for phrase, start, length in hypothesis.phrases:
            for other in self._paraphrases_of(phrase):
                yield from (Match(i, n, start, length, PARAPHRASE) for i, n in places.get(other, ()))

    def _paraphrases_of(self, phrase: int) -> list[int]:
        start = self.tables.paraphrase_start
        paraphrases: list[int] = self.tables.paraphrase[start[phrase] : start[phrase + 1]].tolist()
        return paraphrases

    @cached_property
    def _key(self) -> list[int]:
        return list(self.words.key.tolist())

    @cached_property
    def _stem(self) -> list[int]:
        return list(self.words.stem.tolist())

    @cached_property
    def _synsets(self) -> list[frozenset[int]]:
        synset, start = self.words.synset.tolist(), self.words.synset_start.tolist()
        return [frozenset(synset[a:b]) for a, b in pairwise(start)]


def _places(sentence: SentenceRecord) -> dict[int, list[tuple[int, int]]]:
    """{phrase: its places in the sentence, as (start, length)}."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for phrase, start, length in sentence.phrases:
        places[phrase].append((start, length))
    return places
