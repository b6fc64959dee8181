"""Reference captions, counted once, so that an evaluation during training pays for the hypotheses only.

    references = References({"7": ["a cat sat", "the cat sat down"]}, tokenizer="simple")
    candidates = references.candidates({"7": "a cat"})      # every metric reads these two

Letters in shapes: I images, R references of all images, E n-gram entries, U (image, n-gram) pairs, G distinct n-grams.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limner.text.tokens import tokenizer as find_tokenizer

ORDERS = 4  # n-grams of 1..4 words, in BLEU and in CIDEr
UNSEEN = -1  # an n-gram no reference holds; indexes the last entry of `idf`

Ngram = tuple[Hashable, ...]


class Score(NamedTuple):
    """What a metric returns, as fractions (not x100)."""

    corpus: float
    segments: Float[np.ndarray, " I"]  # one per image, in the order of References.ids


@dataclass(frozen=True)
class Table:
    """n-gram counts of many sentences: one entry per sentence and distinct n-gram."""

    row: Int[np.ndarray, " E"]  # which sentence
    gram: Int[np.ndarray, " E"]  # which n-gram, or UNSEEN
    order: Int[np.ndarray, " E"]  # n - 1
    count: Int[np.ndarray, " E"]

    def total(self, weight: Float[np.ndarray, " E"] | Int[np.ndarray, " E"], rows: int) -> Float[np.ndarray, "rows 4"]:
        """Sum of `weight` per sentence and order."""
        return sums(self.row * ORDERS + self.order, weight, rows)

    def norms(self, idf: Float[np.ndarray, " G"], rows: int) -> Float[np.ndarray, "rows 4"]:
        """Euclidean length of each sentence's tf-idf vector, per order."""
        return np.sqrt(self.total((self.count * idf[self.gram]) ** 2, rows))


def sums(
    cell: Int[np.ndarray, " E"], weight: Float[np.ndarray, " E"] | Int[np.ndarray, " E"], rows: int
) -> Float[np.ndarray, "rows 4"]:
    """Sum of the weights that fall in each cell, `cell` being row * ORDERS + order."""
    # bincount of nothing is of integers, whatever the weights
    return np.bincount(cell, weight, minlength=rows * ORDERS).astype(np.float64).reshape(rows, ORDERS)


def ngrams(tokens: Sequence[Hashable]) -> Counter[Ngram]:
    """How often each n-gram of 1..4 tokens occurs; tokens may be words or ids."""
    return Counter(tuple(tokens[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(tokens) - n + 1))


def tabulate(sentences: Iterable[Sequence[Hashable]], index: Callable[[Ngram], int]) -> Table:
    """Count the n-grams of every sentence; `index` numbers an n-gram."""
    entries = [
        (row, index(gram), len(gram) - 1, count)
        for row, tokens in enumerate(sentences)
        for gram, count in ngrams(tokens).items()
    ]
    return Table(*np.array(entries, dtype=np.int64).reshape(-1, 4).T.copy())


def positions(words: Sequence[str]) -> dict[str, int]:
    """For every word an integer whose bit i is set where the sentence holds the word at place i (for ROUGE-L)."""
    masks: dict[str, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


@dataclass(frozen=True)
class Candidates:
    """Hypotheses in the order of `References.ids`, tokenised and counted; made by `References.candidates`."""

    texts: tuple[str, ...]
    lines: tuple[str, ...]  # tokens joined by one blank
    lengths: Int[np.ndarray, " I"]
    table: Table
    pair: Int[np.ndarray, " E"]  # where the image's references hold the entry's n-gram (into References.peak), or -1


class References:
    """Tokens, n-gram counts, document frequencies and lengths of the reference captions.

    ids        one per image, in the order given
    lines      per image its references as tokens joined by one blank
    owner      (R,) which image a reference belongs to;  `lengths` (R,) words in it;  `table` its n-grams
    per_image  (I,) how many references an image has
    idf        (G+1,) log(images) - log(images whose references hold the n-gram); last: an n-gram no reference holds
    norms      (R, 4) length of a reference's tf-idf vector, per order
    masks      per image and reference, for ROUGE-L: its length and the `positions` of its words
    peak       (U+1,) largest count of an n-gram in one reference of an image; last: 0, for an n-gram they lack
    start      (U+1,) the pair u is held by the references `posting[start[u]:start[u+1]]`, as entries of `table`
    """

    def __init__(self, texts: Mapping[str, Sequence[str]], tokenizer: str = "simple") -> None:
        """Raises ValueError for an unknown tokenizer, an empty mapping, or an image without a list of references."""
        tokenise = find_tokenizer(tokenizer)
        _check(texts)
        self.tokenizer = tokenizer
        self.ids = tuple(texts)
        lines = iter(tokenise([text for id in self.ids for text in texts[id]]))
        self.lines = tuple(tuple(islice(lines, len(texts[id]))) for id in self.ids)
        self.per_image = np.array([len(lines) for lines in self.lines])
        self.owner = np.repeat(np.arange(len(self.ids)), self.per_image)
        # A token may hold a no-break space (PTB's "4 1/2"): BLEU and CIDEr split there, ROUGE-L does not.
        words = [line.split() for lines in self.lines for line in lines]
        self.lengths = np.array([len(sentence) for sentence in words])
        self.masks = [[(len(w), positions(w)) for w in (line.split(" ") for line in lines)] for lines in self.lines]

        self._number: dict[Ngram, int] = {}
        self.table = tabulate(words, lambda gram: self._number.setdefault(gram, len(self._number)))
        keys = self._key(self.owner[self.table.row], self.table.gram)
        self.posting = np.argsort(keys, kind="stable")
        self._pairs, first = np.unique(keys[self.posting], return_index=True)
        self.start = np.append(first, len(keys))
        counts = self.table.count[self.posting]
        self.peak = np.append(np.maximum.reduceat(counts, first) if len(first) else counts, 0)
        df = np.bincount(self._pairs % max(1, len(self._number)), minlength=len(self._number) + 1)
        self.idf = np.log(len(self.ids)) - np.log(np.maximum(1, df))
        self.norms = self.table.norms(self.idf, len(self.lengths))

    def _key(self, image: Int[np.ndarray, " E"], gram: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
        return image * len(self._number) + gram

    def candidates(self, captions: Mapping[str, str]) -> Candidates:
        """Tokenise and count one caption per image.

        Raises ValueError when the ids are not exactly those of the references, or when a caption is not a string.
        """
        self._match(captions)
        tokenise = find_tokenizer(self.tokenizer)
        texts = tuple(captions[id] for id in self.ids)
        lines = tuple(tokenise(texts))
        words = [line.split() for line in lines]
        table = tabulate(words, lambda gram: self._number.get(gram, UNSEEN))
        pair = np.full(len(table.gram), -1)
        known = np.flatnonzero(table.gram != UNSEEN)
        wanted = self._key(table.row[known], table.gram[known])
        found = np.searchsorted(self._pairs, wanted)
        hit = self._pairs[np.minimum(found, len(self._pairs) - 1)] == wanted
        pair[known[hit]] = found[hit]
        return Candidates(texts, lines, np.array([len(sentence) for sentence in words]), table, pair)

    def _match(self, captions: Mapping[str, str]) -> None:
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


def _check(texts: Mapping[str, Sequence[str]]) -> None:
    if not texts:
        raise ValueError("no references: the mapping is empty; expected image id -> list of reference captions")
    for id, captions in texts.items():
        if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"the references of {id!r} are {captions!r}; expected a list of strings")
    without = [id for id, captions in texts.items() if not len(captions)]
    if without:
        raise ValueError(f"no reference caption for {_some(without)}; leave such images out, or give them one")


def _some(ids: Sequence[str]) -> str:
    """How many, and up to three examples."""
    if not ids:
        return "0 images"
    shown = ", ".join(repr(id) for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} image{'s' if len(ids) > 1 else ''} ({shown})"
