"""Reference captions, tokenised and counted once, and the candidate captions that are scored against them.

    references = References({"7": ["a cat sat", "the cat sat down"]})
    candidates = references.candidates({"7": "a cat"})      # every metric reads these two objects

A model that is evaluated many times on the same references pays for counting them only once.

Letters in shapes: I media, R references of all media, E entries (an n-gram and a sentence that contains it), G distinct
n-grams.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.ngrams import UNSEEN, NgramCounts, Postings, count_ngrams
from limner.text.tokens import get_tokenizer

T = TypeVar("T")


class Score(NamedTuple):
    """The result of a metric, as fractions (not x100)."""

    corpus: float
    segments: Float[np.ndarray, " I"]  # one per medium, in the order of `References.ids`


class _WordIds(dict[str, int]):
    """A dictionary that gives every new word the next id: 0, 1, 2, ..."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def position_masks(words: Sequence[str]) -> dict[str, int]:
    """For every word an integer in which bit i is set where the sentence has the word at place i (for ROUGE-L).

    >>> {word: bin(mask) for word, mask in position_masks(["the", "cat", "the", "mat"]).items()}
    {'the': '0b101', 'cat': '0b10', 'mat': '0b1000'}
    """
    masks: dict[str, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


@dataclass(frozen=True, eq=False)
class Candidates:
    """One candidate caption per medium, tokenised and counted; `References.candidates` makes it.

    texts      the captions, in the order of `References.ids`
    tokenized  their tokens, joined by one blank
    lengths    (I,) words in each caption
    counts     n-gram counts.  The n-grams have the numbers of `References.postings.index`, or UNSEEN where no reference
               of any medium contains them
    pair       (E,) for each entry of `counts` its pair in `References.postings`, or UNSEEN where the references of its
               own medium lack the n-gram
    """

    texts: tuple[str, ...]
    tokenized: tuple[str, ...]
    lengths: Int[np.ndarray, " I"]
    counts: NgramCounts
    pair: Int[np.ndarray, " E"]


class References:
    """Tokens, n-gram counts, document frequencies and lengths of the reference captions.

    ids             one per medium, in the order given
    texts           per medium its references, as given
    tokenized       per medium its references, as tokens joined by one blank
    lengths         (R,) words in each reference
    medium_of       (R,) the place in `ids` of the medium of each reference
    per_medium      (I,) number of references of each medium
    position_masks  per medium and reference: its length, and the `position_masks` of its words (for ROUGE-L)
    postings        n-gram counts, and an index of the media and references that contain an n-gram
    idf             (G+1,) log(I) - log(number of media whose references contain the n-gram); the last value is that of
                    an n-gram that no reference contains, so that idf[UNSEEN] is right
    tfidf_norms     (R, 4) Euclidean length of each reference's tf-idf vector, per n-gram order

    An object is equal to itself only.  A metric may therefore cache what it knows about it in a WeakKeyDictionary.

    Two media with two references and one.  "a" and "cat" occur in the references of both media, so their idf is 0.  The
    unigrams are numbered in the order in which their words first occur: a, cat, the, sat.

    >>> references = References({"x": ["a cat", "the cat"], "y": ["a cat sat"]}, "split")
    >>> references.per_medium.tolist(), references.medium_of.tolist(), references.lengths.tolist()
    ([2, 1], [0, 0, 1], [2, 2, 3])
    >>> references.idf[:4].round(3).tolist()
    [0.0, 0.0, 0.693, 0.693]

    In the index of the references, the candidates' unigram (a) has the number 0 and (cat) has 1; the index lacks (dog)
    and (a dog).

    >>> candidates = references.candidates({"x": "a dog", "y": "cat"})
    >>> candidates.counts.sentence.tolist(), candidates.counts.ngram.tolist()
    ([0, 1, 0, 0], [0, 1, -1, -1])
    """

    def __init__(
        self, texts: Mapping[str, Sequence[str]] | Mapping[int, Sequence[str]], tokenizer: str = "ptb"
    ) -> None:
        """Tokenise and count the references; `texts` is {id: list of captions}.

        An integer id is the same as the string of its digits, here and in `candidates`.  Raises ValueError for an
        unknown tokenizer, an empty mapping, a medium without a list of references, ids that are neither strings nor
        integers, and the ids 7 and "7" together.
        """
        self.tokenizer = tokenizer
        by_id = _with_string_ids(texts)
        _check_references(by_id)
        self.ids = tuple(by_id)
        self.texts = tuple(tuple(by_id[id]) for id in self.ids)
        lines = iter(_tokenize(get_tokenizer(tokenizer), [*chain.from_iterable(self.texts)]))
        self.tokenized = tuple(tuple(islice(lines, len(by_id[id]))) for id in self.ids)
        self.per_medium = np.array([len(lines) for lines in self.tokenized])
        self.medium_of = np.repeat(np.arange(len(self.ids)), self.per_medium)
        # A token may hold a no-break space (PTB's "4 1/2"): BLEU and CIDEr split there, ROUGE-L does not.
        self.position_masks = [
            [(len(words), position_masks(words)) for words in (line.split(" ") for line in lines)]
            for lines in self.tokenized
        ]
        self._word_ids = _WordIds()
        tokens, self.lengths = _encode(chain.from_iterable(self.tokenized), self._word_ids)
        self.postings = Postings(tokens, self.lengths, self.per_medium)
        self.idf = np.log(len(self.ids)) - np.log(np.maximum(1, np.append(self.postings.document_frequency, 0)))
        counts = self.postings.counts
        self.tfidf_norms = counts.tfidf_norms(self.idf[counts.ngram], len(self.lengths))

    def candidates(self, captions: Mapping[str, str] | Mapping[int, str]) -> Candidates:
        """Tokenise and count one caption per medium; `captions` is {id: caption}.

        Raises ValueError when the ids are not exactly those of the references, or when a caption is not a string.
        """
        by_id = _with_string_ids(captions)
        self._check_candidates(by_id)
        texts = tuple(by_id[id] for id in self.ids)
        lines = tuple(_tokenize(get_tokenizer(self.tokenizer), texts))
        word_ids = _WordIds(self._word_ids)
        tokens, lengths = _encode(lines, word_ids)
        index, counts = count_ngrams(tokens, lengths)
        ngram = self.postings.index.lookup(index)[counts.ngram]
        pair = self.postings.lookup(ngram, counts.sentence)
        return Candidates(texts, lines, lengths, NgramCounts(counts.sentence, ngram, counts.order, counts.count), pair)

    def document_frequency(self, ngrams: Sequence[Sequence[str]]) -> Int[np.ndarray, " G"]:
        """The number of media whose references contain each n-gram, which is given as 1 to 4 words.

        >>> references = References({"x": ["a cat", "a dog"], "y": ["a cat sat"]}, "split")
        >>> references.document_frequency([["a", "cat"], ["dog"]])
        array([2, 1])
        """
        tokens, lengths = _encode((" ".join(words) for words in ngrams), _WordIds(self._word_ids))
        index, counts = count_ngrams(tokens, lengths)
        whole = counts.order == lengths[counts.sentence] - 1  # one entry for each n-gram: itself
        number = np.full(len(lengths), UNSEEN)
        number[counts.sentence[whole]] = self.postings.index.lookup(index)[counts.ngram[whole]]
        return np.append(self.postings.document_frequency, 0)[number]

    def _check_candidates(self, captions: Mapping[str, Any]) -> None:
        wanted = set(self.ids)
        missing = [id for id in self.ids if id not in captions]
        extra = [id for id in captions if id not in wanted]
        if missing or extra:
            raise ValueError(
                f"captions and references are not of the same media; references but no caption: {_examples(missing)}; "
                f"caption but no references: {_examples(extra)}; caption every medium, or build References from the "
                "media that are evaluated"
            )
        for id, caption in captions.items():
            if not isinstance(caption, str):
                raise ValueError(f"the caption of {id!r} is {caption!r}; expected one string per medium")


def _with_string_ids(by_id: Mapping[Any, T]) -> dict[str, T]:
    """The same mapping with all ids as strings."""
    named: dict[str, T] = {}
    for id, value in by_id.items():
        if not isinstance(id, str | Integral):
            raise ValueError(f"the id of a medium is {id!r}; expected a string or an integer")
        if str(id) in named:
            raise ValueError(f"the id {str(id)!r} is given twice, as a string and as an integer; keep one of the two")
        named[str(id)] = value
    return named


def _check_references(texts: Mapping[str, Any]) -> None:
    if not texts:
        raise ValueError("no references: the mapping is empty; expected {id of a medium: list of reference captions}")
    for id, captions in texts.items():
        if (
            isinstance(captions, str)
            or not isinstance(captions, Sequence)
            or not all(isinstance(caption, str) for caption in captions)
        ):
            raise ValueError(f"the references of {id!r} are {captions!r}; expected a list of strings")
    empty = [id for id, captions in texts.items() if not len(captions)]
    if empty:
        raise ValueError(f"no reference caption for {_examples(empty)}; leave them out, or give each a reference")


def _tokenize(tokenize: Callable[[Sequence[str]], list[str]], texts: Sequence[str]) -> list[str]:
    lines = tokenize(texts)
    assert len(lines) == len(texts), f"{len(texts)} captions became {len(lines)} lines of tokens"
    return lines


def _encode(lines: Iterable[str], word_ids: _WordIds) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
    """The ids of the words of all lines, and the number of words of each line."""
    words = [line.split() for line in lines]
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ids = map(word_ids.__getitem__, chain.from_iterable(words))
    return np.fromiter(ids, np.int64, int(lengths.sum())), lengths


def _examples(ids: Sequence[str]) -> str:
    """The number of ids, and up to three of them: "2 media ('y', 'z')"."""
    if not ids:
        return "0 media"
    shown = ", ".join(repr(id) for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} {'media' if len(ids) > 1 else 'medium'} ({shown})"
