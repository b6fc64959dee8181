"""Words and sentences as METEOR sees them: tables with a row per distinct word and per distinct sentence.

Letters in shapes: W distinct words, S distinct sentences, T words of all sentences, G phrases in all sentences.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt64

from limner.metrics.meteor.keys import MAX_PHRASE_WORDS, extend_key, sieve_bit, word_keys
from limner.metrics.meteor.normalise import normalise
from limner.metrics.meteor.stemmer import stem
from limner.metrics.meteor.tables import Tables
from limner.metrics.ngrams import concatenated_ranges, sorted_lookup

# WordNet's rules from an inflected form to its base: ("ies", "y") makes "pony" of "ponies".  METEOR takes the first
# base that WordNet knows.
INFLECTION_RULES = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man")),
    *(("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)
INFLECTED_ENDINGS = tuple({ending for ending, _ in INFLECTION_RULES})
MAX_WORDS = 1 << 20  # places in a sentence have 21 bits in `kernel`

Array = np.ndarray


class WordTable(NamedTuple):
    """What METEOR compares of words; a word is given by its row.

    key           Java's hash of the word; equal keys are an exact match, as in METEOR, collisions included
    stem          the same of its stem
    function      whether it is a function word
    synset_start  word w is in the synonym sets synset[synset_start[w]:synset_start[w+1]], which are sorted
    phrase_key    the key of the word in `keys`
    """

    key: Int32[Array, " W"]
    stem: Int32[Array, " W"]
    function: Bool[Array, " W"]
    synset_start: Int64[Array, " W+1"]
    synset: Int32[Array, " _"]
    phrase_key: UInt64[Array, " W"]


class SentenceTable(NamedTuple):
    """Sentences as the rows of their words, and the phrases of METEOR's paraphrase table that they contain.

    start         sentence s has the words word[start[s]:start[s+1]]
    phrase_start  sentence s has the phrases phrase[phrase_start[s]:phrase_start[s+1]], sorted by place, then by length
    begin         place of the phrase's first word in its sentence
    length        number of the phrase's words
    """

    start: Int64[Array, " S+1"]
    word: Int64[Array, " T"]
    phrase_start: Int64[Array, " S+1"]
    phrase: Int64[Array, " G"]
    begin: Int64[Array, " G"]
    length: Int64[Array, " G"]


class Lexicon:
    """A growing table of words, in the order in which they first occur in the sentences that are given."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.words = _word_table([], tables)
        self._row: dict[str, int] = {}

    def sentences(self, lines: Sequence[str]) -> tuple[Int64[Array, " N"], SentenceTable]:
        """The table of the distinct lines, and the row of each line in it.  New words are added to the table of words.

        Raises ValueError for a line of more than MAX_WORDS words.
        """
        sentence_row = {line: i for i, line in enumerate(dict.fromkeys(lines))}
        word_row = self._row
        texts = [normalise(line, self.tables.prefixes) for line in sentence_row]
        longest = max(map(len, texts), default=0)
        if longest > MAX_WORDS:
            raise ValueError(f"METEOR: a caption of {longest} words; expected at most {MAX_WORDS}")
        word = np.array([word_row.setdefault(w, len(word_row)) for text in texts for w in text], dtype=np.int64)
        self._add_new_words()
        start = np.cumsum([0] + [len(text) for text in texts])
        rows = np.array([sentence_row[line] for line in lines], dtype=np.int64)
        return rows, SentenceTable(start, word, *_find_phrases(self.words.phrase_key[word], start, self.tables))

    def _add_new_words(self) -> None:
        """Extend the table by the words that have a row number and no row yet."""
        known = len(self.words.key)
        if known == len(self._row):
            return
        new = _word_table(list(self._row)[known:], self.tables)
        old = self.words
        self.words = WordTable(
            key=np.concatenate([old.key, new.key]),
            stem=np.concatenate([old.stem, new.stem]),
            function=np.concatenate([old.function, new.function]),
            synset_start=np.concatenate([old.synset_start, old.synset_start[-1] + new.synset_start[1:]]),
            synset=np.concatenate([old.synset, new.synset]),
            phrase_key=np.concatenate([old.phrase_key, new.phrase_key]),
        )


def java_hash(word: str) -> int:
    """Java's String.hashCode, by which METEOR compares words and stems.

    h = 31 h + code for each UTF-16 unit, in 32 signed bits.

    >>> java_hash("an"), 31 * ord("a") + ord("n")
    (3117, 3117)
    """
    value = 0
    units = word.encode("ascii") if word.isascii() else np.frombuffer(word.encode("utf-16-le", "surrogatepass"), "<u2")
    for unit in units:
        value = (31 * value + int(unit)) & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _word_table(words: Sequence[str], tables: Tables) -> WordTable:
    keys = word_keys(words)
    start, synset = _synsets(words, keys, tables)
    return WordTable(
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
    """The synonym sets of words and of their base forms: `synset_start` and `synset` of `WordTable`.

    The base forms of a word are those of WordNet's list of exceptions, and for a word that is not on the list the first
    one that an inflection rule gives.
    """
    row = sorted_lookup(tables.word, keys)
    listed = np.flatnonzero(row >= 0)
    by_rule = np.ones(len(words), dtype=bool)
    by_rule[listed] = ~tables.exception[row[listed]]
    form, bases = _bases_by_rule(words, by_rule)
    base = sorted_lookup(tables.word, word_keys(bases))
    known = np.flatnonzero(base >= 0)
    known = known[tables.own[base[known]] > 0]
    form, first = np.unique(form[known], return_index=True)
    base = base[known[first]]

    owner = np.concatenate([listed, form])
    begin, count = tables.synset_start[:-1], np.diff(tables.synset_start)
    begin = np.concatenate([begin[row[listed]], begin[base]])
    count = np.concatenate([count[row[listed]], tables.own[base]])
    synset = tables.synset[concatenated_ranges(begin, count)]
    pairs = np.unique(np.repeat(owner, count) << 32 | synset)  # by word, then by synset, each pair once
    start = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum(np.bincount(pairs >> 32, minlength=len(words)), out=start[1:])
    return start, pairs.astype(np.int32)


def _bases_by_rule(words: Sequence[str], by_rule: Bool[Array, " W"]) -> tuple[Int64[Array, " N"], list[str]]:
    """All base forms that the inflection rules give for the chosen words, and the word of each.

    >>> form, bases = _bases_by_rule(["dogs", "ponies"], np.array([True, True]))
    >>> form.tolist(), bases
    ([0, 1, 1, 1, 1], ['dog', 'ponie', 'pony', 'ponie', 'poni'])
    """
    form: list[int] = []
    bases: list[str] = []
    for i in np.flatnonzero(by_rule).tolist():
        word = words[i]
        if len(word) > 2 and word.endswith(INFLECTED_ENDINGS) and not word.endswith("ss"):
            made = [
                word[: len(word) - len(ending)] + base for ending, base in INFLECTION_RULES if word.endswith(ending)
            ]
            form += [i] * len(made)
            bases += made
    return np.array(form, dtype=np.int64), bases


def _find_phrases(
    key: UInt64[Array, " T"], start: Int64[Array, " starts"], tables: Tables
) -> tuple[Int64[Array, " starts"], Int64[Array, " G"], Int64[Array, " G"], Int64[Array, " G"]]:
    """All phrases of 1..7 words that METEOR's table has: phrase_start, phrase, begin and length of `SentenceTable`.

    `key` has the key of every word of the sentences, and `start` says where the sentences begin.  The phrases of one
    length are looked at together, for all places at once.  The sieve, a bitmap of the first 25 bits of the table's
    keys, rejects most of them before the binary search.
    """
    end = np.repeat(start[1:], np.diff(start))
    place = np.arange(len(key))
    phrase = np.zeros(len(key), dtype=np.uint64)
    keys, orders = [], []
    for length in range(1, MAX_PHRASE_WORDS + 1):
        inside = place + length <= end[place]
        place = place[inside]
        phrase = extend_key(phrase[inside], key[place + length - 1])
        bit = sieve_bit(phrase)
        likely = np.flatnonzero(tables.sieve[bit >> 3] >> (bit & 7) & 1)
        keys.append(phrase[likely])
        orders.append(place[likely] << 3 | length)
    distinct, which = np.unique(np.concatenate(keys), return_inverse=True)
    row, order = sorted_lookup(tables.phrase, distinct)[which], np.concatenate(orders)
    known = np.flatnonzero(row >= 0)
    known = known[np.argsort(order[known])]
    place, length = order[known] >> 3, order[known] & 7
    owner = np.searchsorted(start, place, side="right") - 1
    return np.searchsorted(place, start), row[known], place - start[owner], length
