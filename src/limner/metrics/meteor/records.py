"""What METEOR asks about words and sentences, answered once per distinct word and per distinct sentence.

Letters in shapes: W distinct words, S distinct sentences, T words of all of them, G phrases found in them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt64

from limner.metrics.meteor.keys import LONGEST, extend, sifted, word_keys
from limner.metrics.meteor.normalise import normalise
from limner.metrics.meteor.stemmer import stem
from limner.metrics.meteor.tables import Tables

# WordNet's rules from a form to its base; of the bases that WordNet knows, METEOR takes the first.
ENDINGS = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man")),
    *(("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)
INFLECTED = tuple({ending for ending, _ in ENDINGS})
MOST_WORDS = 1 << 20  # places in a sentence have 21 bits in `kernel`

Array = np.ndarray


class Words(NamedTuple):
    """Facts about words, by their number."""

    key: Int32[Array, " W"]  # equal keys are an exact match: Java's hash of the word, collisions included
    stem: Int32[Array, " W"]  # the same of its stem
    function: Bool[Array, " W"]
    synset_start: Int64[Array, " W+1"]  # word w is in the synonym sets synset[start[w]:start[w+1]]
    synset: Int32[Array, " _"]  # sorted within a word
    phrase_key: UInt64[Array, " W"]


class Sentences(NamedTuple):
    """Words and phrases of sentences.  Phrases are those of the paraphrase table, by place and then by length."""

    start: Int64[Array, " S+1"]  # sentence s has the words word[start[s]:start[s+1]]
    word: Int64[Array, " T"]
    phrase_start: Int64[Array, " S+1"]  # and the phrases phrase[phrase_start[s]:phrase_start[s+1]]
    phrase: Int64[Array, " G"]
    begin: Int64[Array, " G"]  # place of the phrase's first word in its sentence
    length: Int64[Array, " G"]


class Lexicon:
    """Numbers words in the order they come, and keeps what METEOR asks about them."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.words = _facts([], tables)
        self._number: dict[str, int] = {}

    def sentences(self, lines: Sequence[str]) -> tuple[Int64[Array, " N"], Sentences]:
        """The row of each line in the distinct sentences, and those."""
        row = {line: i for i, line in enumerate(dict.fromkeys(lines))}
        number = self._number
        texts = [normalise(line, self.tables.prefixes) for line in row]
        longest = max(map(len, texts), default=0)
        if longest > MOST_WORDS:
            raise ValueError(f"METEOR: a caption of {longest} words; expected at most {MOST_WORDS}")
        word = np.array([number.setdefault(w, len(number)) for text in texts for w in text], dtype=np.int64)
        self._learn()
        start = np.cumsum([0] + [len(text) for text in texts])
        rows = np.array([row[line] for line in lines], dtype=np.int64)
        return rows, Sentences(start, word, *_phrases(self.words.phrase_key[word], start, self.tables))

    def _learn(self) -> None:
        """Look up the words that came since."""
        known = len(self.words.key)
        if known == len(self._number):
            return
        new = _facts(list(self._number)[known:], self.tables)
        old = self.words
        self.words = Words(
            key=np.concatenate([old.key, new.key]),
            stem=np.concatenate([old.stem, new.stem]),
            function=np.concatenate([old.function, new.function]),
            synset_start=np.concatenate([old.synset_start, old.synset_start[-1] + new.synset_start[1:]]),
            synset=np.concatenate([old.synset, new.synset]),
            phrase_key=np.concatenate([old.phrase_key, new.phrase_key]),
        )


def java_hash(word: str) -> int:
    """Java's String.hashCode, by which METEOR compares words and stems."""
    value = 0
    units = word.encode("ascii") if word.isascii() else np.frombuffer(word.encode("utf-16-le", "surrogatepass"), "<u2")
    for unit in units:
        value = (31 * value + int(unit)) & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def ranges(start: Int[Array, " N"], length: Int[Array, " N"]) -> Int64[Array, " _"]:
    """start[0], start[0]+1, ... (length[0] of them), start[1], ..."""
    skipped = np.cumsum(length) - length
    return np.repeat(start - skipped, length) + np.arange(int(length.sum()), dtype=np.int64)


def find(table: UInt64[Array, " N"], keys: UInt64[Array, " M"]) -> Int64[Array, " M"]:
    """Where a sorted table holds each key, or -1."""
    place = np.searchsorted(table, keys)
    place[place == len(table)] = 0
    return np.where(table[place] == keys, place, -1)


def _facts(words: Sequence[str], tables: Tables) -> Words:
    keys = word_keys(words)
    start, synset = _synsets(words, keys, tables)
    return Words(
        key=np.array([java_hash(word) for word in words], dtype=np.int32),
        stem=np.array([java_hash(stem(word)) for word in words], dtype=np.int32),
        function=np.array([word in tables.function for word in words], dtype=bool),
        synset_start=start,
        synset=synset,
        phrase_key=keys,
    )


def _synsets(
    words: Sequence[str], keys: UInt64[Array, " W"], tables: Tables
) -> tuple[Int64[Array, " W+1"], Int32[Array, " _"]]:
    """The synonym sets of words and of their bases: those that the exceptions list names, else the one by rule."""
    row = find(tables.word, keys)
    listed = np.flatnonzero(row >= 0)
    ruled = np.ones(len(words), dtype=bool)
    ruled[listed] = ~tables.exception[row[listed]]
    form, bases = _bases(words, ruled)
    base = find(tables.word, word_keys(bases))
    known = np.flatnonzero(base >= 0)
    known = known[tables.own[base[known]] > 0]
    form, first = np.unique(form[known], return_index=True)
    base = base[known[first]]

    owner = np.concatenate([listed, form])
    begin, count = tables.synset_start[:-1], np.diff(tables.synset_start)
    begin = np.concatenate([begin[row[listed]], begin[base]])
    count = np.concatenate([count[row[listed]], tables.own[base]])
    synset = tables.synset[ranges(begin, count)]
    both = np.unique(np.repeat(owner, count) << 32 | synset)  # by word, then by synset, each pair once
    start = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum(np.bincount(both >> 32, minlength=len(words)), out=start[1:])
    return start, both.astype(np.int32)


def _bases(words: Sequence[str], ruled: Bool[Array, " W"]) -> tuple[Int64[Array, " N"], list[str]]:
    """Whatever the rules make of the words, in the rules' order, and which word each is from."""
    form: list[int] = []
    bases: list[str] = []
    for i in np.flatnonzero(ruled).tolist():
        word = words[i]
        if len(word) > 2 and word.endswith(INFLECTED) and not word.endswith("ss"):
            made = [word[: len(word) - len(ending)] + base for ending, base in ENDINGS if word.endswith(ending)]
            form += [i] * len(made)
            bases += made
    return np.array(form, dtype=np.int64), bases


def _phrases(
    key: UInt64[Array, " T"], start: Int64[Array, " starts"], tables: Tables
) -> tuple[Int64[Array, " starts"], Int64[Array, " G"], Int64[Array, " G"], Int64[Array, " G"]]:
    """All phrases of 1..7 words that the paraphrase table holds: phrase_start, phrase, begin, length of `Sentences`."""
    end = np.repeat(start[1:], np.diff(start))
    place = np.arange(len(key))
    phrase = np.zeros(len(key), dtype=np.uint64)
    keys, orders = [], []
    for length in range(1, LONGEST + 1):
        inside = place + length <= end[place]
        place = place[inside]
        phrase = extend(phrase[inside], key[place + length - 1])
        bit = sifted(phrase)
        likely = np.flatnonzero(tables.sieve[bit >> 3] >> (bit & 7) & 1)
        keys.append(phrase[likely])
        orders.append(place[likely] << 3 | length)
    distinct, which = np.unique(np.concatenate(keys), return_inverse=True)
    found, order = find(tables.phrase, distinct)[which], np.concatenate(orders)
    known = np.flatnonzero(found >= 0)
    known = known[np.argsort(order[known])]
    place, length = order[known] >> 3, order[known] & 7
    owner = np.searchsorted(start, place, side="right") - 1
    return np.searchsorted(place, start), found[known], place - start[owner], length
