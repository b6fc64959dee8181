"""METEOR's text tables to arrays: paraphrases, synonyms, function words and prefixes, read from pycocoevalcap's files.

The paraphrase file is a gzip, three lines per pair: probability, phrase, paraphrase.  The rest is in the jar, a zip.
No Java is needed.  Nothing of METEOR's data is shipped with limner: it is converted into the user's cache.
"""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from limner.metrics.meteor.keys import SIEVE, extend, sifted, span_keys, word_keys

BLOCK = 1 << 20  # compressed bytes read at once
NEWLINE, BLANK = ord("\n"), ord(" ")
RANK_BITS = 10  # METEOR's longest row has 934 paraphrases

Array = np.ndarray
Arrays = Mapping[str, Array]


def paraphrase_tables(path: Path, advance: Callable[[int], None] = lambda count: None) -> Arrays:
    """The paraphrase table as arrays; `advance` hears how many compressed bytes were read.

    phrase            (P,) uint64, sorted: the key of every phrase of the file, on either side
    sieve             bit k says whether a key begins with k's SIEVE bits; most look-ups end here
    paraphrase_start  (P+1,) the paraphrases of phrase p are paraphrase[start[p]:start[p+1]], in file order
    source_start      (P+1,) the phrases that have p as a paraphrase are source[start[p]:start[p+1]]
    source_rank       (N,) at which place p is among each one's paraphrases
    """
    pairs = [_pair_keys(block) for block in _entries(path, advance)]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    phrase, number = np.unique(np.concatenate([left, right]), return_inverse=True)
    first, second = np.split(number.astype(np.int32), 2)
    paraphrase_start, order = _group(first, len(phrase))
    paraphrase, owner = second[order], first[order]
    rank = np.arange(len(owner)) - paraphrase_start[owner]
    assert rank.max(initial=0) < 1 << RANK_BITS, "more paraphrases of a phrase than `kernel` has room for"
    source_start, order = _group(paraphrase, len(phrase))
    return {
        "phrase": phrase,
        "sieve": _sieve(phrase),
        "paraphrase_start": paraphrase_start,
        "paraphrase": paraphrase,
        "source_start": source_start,
        "source": owner[order],
        "source_rank": rank[order].astype(np.int16),
    }


def synonym_tables(jar: Path) -> Arrays:
    """WordNet's synonym sets as arrays.

    word         (W,) uint64, sorted: the key of every word that has synsets, of its own or through an exception
    synset_start (W+1,) the synsets of word w are synset[start[w]:start[w+1]], its own first
    own          (W,) how many are its own; the others are those of the base forms that the exceptions list names
    exception    (W,) whether that list names the word; the morphological rules are for the others
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


def word_lists(jar: Path) -> dict[str, list[str]]:
    """Lines of the function words and of the non-breaking prefixes."""
    return {name: _lines(jar, f"{name}/english.{ending}") for name, ending in LISTS.items()}


LISTS = {"function": "words", "nonbreaking": "prefixes"}


def _lines(jar: Path, name: str) -> list[str]:
    with zipfile.ZipFile(jar) as archive:
        return archive.read(name).decode("utf-8").splitlines()


def _line_pairs(jar: Path, kind: str) -> list[tuple[str, str]]:
    lines = _lines(jar, f"synonym/english.{kind}")
    return list(zip(lines[::2], lines[1::2], strict=True))


def _entries(path: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The unpacked text, cut between entries of three lines."""
    unpack = zlib.decompressobj(wbits=31)
    rest = b""
    with open(path, "rb") as file:
        while packed := file.read(BLOCK):
            text = rest + _unpacked(unpack, packed, path)
            ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == NEWLINE)
            whole = len(ends) // 3 * 3
            cut = int(ends[whole - 1]) + 1 if whole else 0
            rest = text[cut:]
            if cut:
                yield text[:cut]
            advance(len(packed))
    if not unpack.eof or rest:
        raise ValueError(f"{path} is cut short; install pycocoevalcap again")


def _unpacked(unpack: Any, packed: bytes, path: Path) -> bytes:
    try:
        return bytes(unpack.decompress(packed))
    except zlib.error as error:
        raise ValueError(f"{path} is damaged ({error}); install pycocoevalcap again") from error


def _pair_keys(text: bytes) -> tuple[UInt64[Array, " N"], UInt64[Array, " N"]]:
    """Keys of the phrases and of their paraphrases in whole entries of three lines."""
    letters: UInt8[Array, " bytes"] = np.frombuffer(text, dtype=np.uint8)
    end = np.flatnonzero((letters == NEWLINE) | (letters == BLANK))
    word = span_keys(letters, np.append(0, end[:-1] + 1), end)
    last = np.flatnonzero(letters[end] == NEWLINE)  # of each line
    first = np.append(0, last[:-1] + 1)
    phrase, paraphrase = (_line_keys(word, first[row::3], last[row::3]) for row in (1, 2))
    return phrase, paraphrase


def _line_keys(word: UInt64[Array, " W"], first: Int[Array, " N"], last: Int[Array, " N"]) -> UInt64[Array, " N"]:
    key = np.zeros(len(first), dtype=np.uint64)
    place, line = first, np.arange(len(first))
    while len(line):
        key[line] = extend(key[line], word[place])
        more = place < last[line]
        place, line = place[more] + 1, line[more]
    return key


def _sieve(phrase: UInt64[Array, " P"]) -> UInt8[Array, " S"]:
    held = np.zeros(1 << SIEVE, dtype=bool)
    held[sifted(phrase)] = True
    return np.packbits(held, bitorder="little")


def _group(row: Int[Array, " N"], rows: int) -> tuple[Int[Array, "{rows}+1"], Int[Array, " N"]]:
    """Where each row's items begin, and the items grouped by row, in the order given."""
    start = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(row, minlength=rows), out=start[1:])
    return start, np.argsort(row, kind="stable")
