"""All matches between the words and phrases of a hypothesis and of one reference, in METEOR's order.

This and `align` are the plain twin of `kernel`, which does the same on arrays.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from limner.metrics.meteor.records import Sentences, Words
from limner.metrics.meteor.tables import Tables

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
MODULES = 4


class Match(NamedTuple):
    """`span` words of the reference from `place` on match `hyp_span` words of the hypothesis from `hyp_place` on."""

    place: int
    span: int
    hyp_place: int
    hyp_span: int
    module: int


class Sentence(NamedTuple):
    """Word numbers, and the known phrases in it as (phrase, begin, length)."""

    words: list[int]
    phrases: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Matcher:
    """Finds matches; `words` and `tables` as plain Python values."""

    words: Words
    tables: Tables

    def sentence(self, sentences: Sentences, row: int) -> Sentence:
        words = slice(sentences.start[row], sentences.start[row + 1])
        phrases = slice(sentences.phrase_start[row], sentences.phrase_start[row + 1])
        columns = (sentences.phrase[phrases], sentences.begin[phrases], sentences.length[phrases])
        return Sentence(
            sentences.word[words].tolist(), list(zip(*(column.tolist() for column in columns), strict=True))
        )

    def matches(self, hypothesis: Sentence, reference: Sentence) -> list[list[Match]]:
        """Per place of the reference the matches that begin there: module by module."""
        found: list[list[Match]] = [[] for _ in reference.words]
        for match in self._matches(hypothesis, reference):
            found[match.place].append(match)
        return found

    def _matches(self, hypothesis: Sentence, reference: Sentence) -> Iterator[Match]:
        pairs = [(i, j, a, b) for i, a in enumerate(reference.words) for j, b in enumerate(hypothesis.words)]
        key, stem, synsets = self._key, self._stem, self._synsets
        yield from (Match(i, 1, j, 1, EXACT) for i, j, a, b in pairs if key[a] == key[b])
        if [key[w] for w in hypothesis.words] == [key[w] for w in reference.words]:
            return
        others = [(i, j, a, b) for i, j, a, b in pairs if key[a] != key[b]]
        yield from (Match(i, 1, j, 1, STEM) for i, j, a, b in others if stem[a] == stem[b])
        yield from (Match(i, 1, j, 1, SYNONYM) for i, j, a, b in others if synsets[a] & synsets[b])
        yield from self._paraphrases(hypothesis, reference)

    def _paraphrases(self, hypothesis: Sentence, reference: Sentence) -> Iterator[Match]:
        """First those whose entry leads from the reference's phrase to the hypothesis', then the others; each by the
        place and length of the entry's phrase, then in the order of the file."""
        places = _places(hypothesis)
        for phrase, begin, length in reference.phrases:
            for other in self._paraphrases_of(phrase):
                yield from (Match(begin, length, place, span, PARAPHRASE) for place, span in places.get(other, ()))
        places = _places(reference)
        for phrase, begin, length in hypothesis.phrases:
            for other in self._paraphrases_of(phrase):
                yield from (Match(place, span, begin, length, PARAPHRASE) for place, span in places.get(other, ()))

    def _paraphrases_of(self, phrase: int) -> list[int]:
        start = self.tables.paraphrase_start
        found: list[int] = self.tables.paraphrase[start[phrase] : start[phrase + 1]].tolist()
        return found

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


def _places(sentence: Sentence) -> dict[int, list[tuple[int, int]]]:
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for phrase, begin, length in sentence.phrases:
        places[phrase].append((begin, length))
    return places
