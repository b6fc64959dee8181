"""Reference captions, counted once, so that an evaluation during training pays for the hypotheses only.

    references = References({"7": ["a cat sat", "the cat sat down"]})
    candidates = references.candidates({"7": "a cat"})      # every metric reads these two

Letters in shapes: I images, R references of all images, E n-gram entries, G distinct n-grams.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

from limner.metrics.ngrams import Postings, Table, tabulate
from limner.text.tokens import get_tokenizer

T = TypeVar("T")


class Score(NamedTuple):
    """What a metric returns, as fractions (not x100)."""

    corpus: float
    segments: Float[np.ndarray, " I"]  # one per image, in the order of References.ids


class _Numbers(dict[str, int]):
    """Numbers words in the order they are asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def positions(words: Sequence[str]) -> dict[str, int]:
    """For every word an integer whose bit i is set where the sentence holds the word at place i (for ROUGE-L)."""
    masks: dict[str, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


@dataclass(frozen=True, eq=False)
class Candidates:
    """Hypotheses in the order of `References.ids`, tokenised and counted; made by `References.candidates`."""

    texts: tuple[str, ...]
    lines: tuple[str, ...]  # tokens joined by one blank
    lengths: Int[np.ndarray, " I"]
    table: Table  # n-grams by their number in `References.postings`, or UNSEEN
    pair: Int[np.ndarray, " E"]  # where the image's references hold the entry's n-gram (see Postings), or UNSEEN


class References:
    """Tokens, n-gram counts, document frequencies and lengths of the reference captions.

    ids        one per image, in the order given
    lines      per image its references as tokens joined by one blank
    owner      (R,) which image a reference belongs to;  `lengths` (R,) words in it
    per_image  (I,) how many references an image has
    masks      per image and reference, for ROUGE-L: its length and the `positions` of its words
    postings   n-gram counts, and which references of an image hold an n-gram
    idf        (G+1,) log(images) - log(images whose references hold the n-gram); last: an n-gram no reference holds
    norms      (R, 4) length of a reference's tf-idf vector, per order

    An object is equal to itself only, so that a metric may keep what it knows of it in a WeakKeyDictionary.
    """

    def __init__(
        self, texts: Mapping[str, Sequence[str]] | Mapping[int, Sequence[str]], tokenizer: str = "ptb"
    ) -> None:
        """Ids are strings; an integer id is taken as its digits, here and in `candidates`.

        Raises ValueError for an unknown tokenizer, an empty mapping, an image without a list of references, ids that
        are neither strings nor integers, or 7 beside "7".
        """
        self.tokenizer = tokenizer
        named = _named(texts)
        _check(named)
        self.ids = tuple(named)
        lines = iter(_tokenise(get_tokenizer(tokenizer), [text for id in self.ids for text in named[id]]))
        self.lines = tuple(tuple(islice(lines, len(named[id]))) for id in self.ids)
        self.per_image = np.array([len(lines) for lines in self.lines])
        self.owner = np.repeat(np.arange(len(self.ids)), self.per_image)
        # A token may hold a no-break space (PTB's "4 1/2"): BLEU and CIDEr split there, ROUGE-L does not.
        self.masks = [[(len(w), positions(w)) for w in (line.split(" ") for line in lines)] for lines in self.lines]
        self._words = _Numbers()
        tokens, self.lengths = _count(chain.from_iterable(self.lines), self._words)
        self.postings = Postings(tokens, self.lengths, self.per_image)
        self.idf = np.log(len(self.ids)) - np.log(np.maximum(1, np.append(self.postings.frequency, 0)))
        table = self.postings.table
        self.norms = table.norms(self.idf[table.gram], len(self.lengths))

    def candidates(self, captions: Mapping[str, str] | Mapping[int, str]) -> Candidates:
        """Tokenise and count one caption per image.

        Raises ValueError when the ids are not exactly those of the references, or when a caption is not a string.
        """
        named = _named(captions)
        self._match(named)
        texts = tuple(named[id] for id in self.ids)
        lines = tuple(_tokenise(get_tokenizer(self.tokenizer), texts))
        words = _Numbers(self._words)
        tokens, lengths = _count(lines, words)
        ngrams, table = tabulate(tokens, lengths)
        gram = self.postings.ngrams.find(ngrams)[table.gram]
        pair = self.postings.find(gram, table.row)
        return Candidates(texts, lines, lengths, Table(table.row, gram, table.order, table.count), pair)

    def _match(self, captions: Mapping[str, Any]) -> None:
        wanted = set(self.ids)
        without = [id for id in self.ids if id not in captions]
        extra = [id for id in captions if id not in wanted]
        if without or extra:
            raise ValueError(
                f"captions and references are not of the same images; references but no caption: {_some(without)}; "
                f"caption but no references: {_some(extra)}; caption every image, or build References from the images "
                "that are evaluated"
            )
        for id, caption in captions.items():
            if not isinstance(caption, str):
                raise ValueError(f"the caption of {id!r} is {caption!r}; expected one string per image")


def _named(by_id: Mapping[Any, T]) -> dict[str, T]:
    """The same under ids that are strings."""
    named: dict[str, T] = {}
    for id, value in by_id.items():
        if not isinstance(id, str | Integral):
            raise ValueError(f"an image id is {id!r}; expected a string or an integer")
        if str(id) in named:
            raise ValueError(f"image id {str(id)!r} is there twice, as a string and as an integer; keep one")
        named[str(id)] = value
    return named


def _check(texts: Mapping[str, Any]) -> None:
    if not texts:
        raise ValueError("no references: the mapping is empty; expected image id -> list of reference captions")
    for id, captions in texts.items():
        if (
            isinstance(captions, str)
            or not isinstance(captions, Sequence)
            or not all(isinstance(caption, str) for caption in captions)
        ):
            raise ValueError(f"the references of {id!r} are {captions!r}; expected a list of strings")
    without = [id for id, captions in texts.items() if not len(captions)]
    if without:
        raise ValueError(f"no reference caption for {_some(without)}; leave such images out, or give them one")


def _tokenise(tokenise: Callable[[Sequence[str]], list[str]], texts: Sequence[str]) -> list[str]:
    lines = tokenise(texts)
    assert len(lines) == len(texts), f"{len(texts)} captions became {len(lines)} lines of tokens"
    return lines


def _count(lines: Iterable[str], numbers: _Numbers) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " S"]]:
    """The words of all lines as numbers, and how many each line has."""
    words = [line.split() for line in lines]
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    each = map(numbers.__getitem__, chain.from_iterable(words))
    return np.fromiter(each, np.int64, int(lengths.sum())), lengths


def _some(ids: Sequence[str]) -> str:
    """How many, and up to three examples."""
    if not ids:
        return "0 images"
    shown = ", ".join(repr(id) for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} image{'s' if len(ids) > 1 else ''} ({shown})"
