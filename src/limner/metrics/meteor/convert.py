"""Reads METEOR's tables from the files of pycocoevalcap: paraphrases, synonyms, function words and prefixes, as arrays.

The paraphrase file is a gzip with three lines per pair: probability, phrase, paraphrase.  The other tables are in the
jar, which is a zip.  No Java is needed.  METEOR's data is not shipped with limner: `tables` converts it into the user's
cache.
"""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from limner.metrics.meteor.keys import SIEVE_BITS, extend_key, sieve_bit, span_keys, word_keys

BLOCK = 1 << 20  # compressed bytes that are read at once
NEWLINE, BLANK = ord("\n"), ord(" ")
RANK_BITS = 10  # METEOR's longest row has 934 paraphrases

Array = np.ndarray
Arrays = Mapping[str, Array]


def read_paraphrase_tables(path: Path, advance: Callable[[int], None] = lambda count: None) -> Arrays:
    """The paraphrase table as arrays.  `advance` is called with the number of compressed bytes of each block.

    phrase            (P,) uint64, sorted: the keys of all phrases of the file, on either side
    sieve             a bitmap: bit k is set if the first SIEVE_BITS bits of some key are k.  Most phrases of a caption
                      are not in the table, and this bitmap shows it without a binary search
    paraphrase_start  (P+1,) phrase p has the paraphrases paraphrase[paraphrase_start[p]:paraphrase_start[p+1]], in the
                      order of the file
    source_start      (P+1,) the phrases source[source_start[p]:source_start[p+1]] have p as a paraphrase
    source_rank       (N,) the place of p among all paraphrases of such a phrase

    For the lines ".5 / a dog / a hound" and ".4 / a dog / a pet", let "a dog" be phrase 0, "a hound" 1 and "a pet" 2.
    Then paraphrase_start is 0 2 2 2 and paraphrase is 1 2; source_start is 0 0 1 2, source is 0 0, and source_rank is
    0 1: "a pet" is the second paraphrase of "a dog".
    """
    pairs = [_pair_keys(block) for block in _read_entries(path, advance)]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    phrase, number = np.unique(np.concatenate([left, right]), return_inverse=True)
    first, second = np.split(number.astype(np.int32), 2)
    paraphrase_start, order = _group_by_row(first, len(phrase))
    paraphrase, owner = second[order], first[order]
    rank = np.arange(len(owner)) - paraphrase_start[owner]
    assert rank.max(initial=0) < 1 << RANK_BITS, "more paraphrases of a phrase than `kernel` has room for"
    source_start, order = _group_by_row(paraphrase, len(phrase))
    return {
        "phrase": phrase,
        "sieve": _sieve(phrase),
        "paraphrase_start": paraphrase_start,
        "paraphrase": paraphrase,
        "source_start": source_start,
        "source": owner[order],
        "source_rank": rank[order].astype(np.int16),
    }


def read_synonym_tables(jar: Path) -> Arrays:
    """WordNet's synonym sets as arrays.

    word          (W,) uint64, sorted: the key of every word that has synonym sets, by itself or through an exception
    synset_start  (W+1,) word w has the synonym sets synset[synset_start[w]:synset_start[w+1]], its own first
    own           (W,) number of its own; the others are those of its base forms in the list of exceptions ("mice" has
                  those of "mouse")
    exception     (W,) whether the list of exceptions has the word; only for other words the inflection rules are used
    """
    synsets = {word: [int(number) for number in numbers.split()] for word, numbers in _line_pairs(jar, "synsets")}
    bases: dict[str, list[str]] = defaultdict(list)
    for base, forms in _line_pairs(jar, "exceptions"):
        for form in forms.split():
            bases[form].append(base)
    words = [word for word in {**synsets, **bases} if "_" not in word]  # METEOR's normaliser leaves no "_" in a word
    keys = word_keys(words)
    order = np.argsort(keys)
    rows: list[list[int]] = []
    for i in order:
        own = synsets.get(words[i], [])
        more = {number for base in bases.get(words[i], ()) for number in synsets.get(base, ())}
        rows.append(own + sorted(more.difference(own)))
    return {
        "word": keys[order],
        "synset_start": np.cumsum([0] + [len(row) for row in rows], dtype=np.int32),
        "synset": np.array([number for row in rows for number in row], dtype=np.int32),
        "own": np.array([len(synsets.get(words[i], ())) for i in order], dtype=np.int32),
        "exception": np.array([words[i] in bases for i in order]),
    }


LISTS = {"function": "words", "nonbreaking": "prefixes"}  # folder in the jar: ending of the file name


def read_word_lists(jar: Path) -> dict[str, list[str]]:
    """The lines of the files of function words and of non-breaking prefixes, by the names of LISTS."""
    return {name: _lines(jar, f"{name}/english.{ending}") for name, ending in LISTS.items()}


def _lines(jar: Path, name: str) -> list[str]:
    with zipfile.ZipFile(jar) as archive:
        return archive.read(name).decode("utf-8").splitlines()


def _line_pairs(jar: Path, kind: str) -> list[tuple[str, str]]:
    """The lines of a file of synonyms as pairs: lines 1 and 2, lines 3 and 4, and so on."""
    lines = _lines(jar, f"synonym/english.{kind}")
    return list(zip(lines[::2], lines[1::2], strict=True))


def _read_entries(path: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The uncompressed text of the paraphrase file in blocks, each of complete entries of three lines."""
    unpack = zlib.decompressobj(wbits=31)
    rest = b""
    with open(path, "rb") as file:
        while packed := file.read(BLOCK):
            text = rest + _unpacked(unpack, packed, path)
            ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == NEWLINE)
            complete = len(ends) // 3 * 3
            cut = int(ends[complete - 1]) + 1 if complete else 0
            rest = text[cut:]
            if cut:
                yield text[:cut]
            advance(len(packed))
    if not unpack.eof or rest:
        raise ValueError(f"{path} is incomplete; install pycocoevalcap again")


def _unpacked(unpack: Any, packed: bytes, path: Path) -> bytes:
    try:
        return bytes(unpack.decompress(packed))
    except zlib.error as error:
        raise ValueError(f"{path} is damaged ({error}); install pycocoevalcap again") from error


def _pair_keys(text: bytes) -> tuple[UInt64[Array, " N"], UInt64[Array, " N"]]:
    """The keys of the phrases and of their paraphrases in complete entries of three lines."""
    letters: UInt8[Array, " bytes"] = np.frombuffer(text, dtype=np.uint8)
    end = np.flatnonzero((letters == NEWLINE) | (letters == BLANK))
    word = span_keys(letters, np.append(0, end[:-1] + 1), end)
    last = np.flatnonzero(letters[end] == NEWLINE)  # of each line
    first = np.append(0, last[:-1] + 1)
    phrase, paraphrase = (_line_keys(word, first[row::3], last[row::3]) for row in (1, 2))
    return phrase, paraphrase


def _line_keys(word: UInt64[Array, " W"], first: Int[Array, " N"], last: Int[Array, " N"]) -> UInt64[Array, " N"]:
    """The keys of phrases: phrase i has the words first[i] .. last[i].  All phrases grow by one word at a time."""
    key = np.zeros(len(first), dtype=np.uint64)
    place, line = first, np.arange(len(first))
    while len(line):
        key[line] = extend_key(key[line], word[place])
        more = place < last[line]
        place, line = place[more] + 1, line[more]
    return key


def _sieve(phrase: UInt64[Array, " P"]) -> UInt8[Array, " S"]:
    """The bitmap `sieve` of sorted keys."""
    occurs = np.zeros(1 << SIEVE_BITS, dtype=bool)
    occurs[sieve_bit(phrase)] = True
    return np.packbits(occurs, bitorder="little")


def _group_by_row(row: Int[Array, " N"], rows: int) -> tuple[Int[Array, "{rows}+1"], Int[Array, " N"]]:  # noqa: F821 (a shape, not a name)
    """Where the items of each row begin, and the items grouped by row, otherwise in the given order.

    >>> start, items = _group_by_row(np.array([1, 0, 1]), rows=2)
    >>> start.tolist(), items.tolist()
    ([0, 1, 3], [1, 0, 2])
    """
    start = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(row, minlength=rows), out=start[1:])
    return start, np.argsort(row, kind="stable")
