"""Words and phrases as 64-bit keys, so that tables of 2.6 million phrases need no strings.

A word's key is a polynomial of its UTF-8 bytes modulo 2^64, mixed; a phrase's folds the keys of its words.  Two of n
phrases share a key with probability n^2 / 2^65, 2e-7 for METEOR's table; a test counts its distinct keys.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64, UInt8, UInt64

BASE = 0xD1342543DE82EF95  # odd, hence invertible modulo 2^64
FOLD = np.uint64(0x9E3779B97F4A7C15)
SHIFT = np.uint64(29)
LONGEST = 7  # words in a phrase of the table
SIEVE = 25  # first bits of a key: 2.6 million keys have 7 % of these numbers


def powers(count: int, base: int = BASE) -> UInt64[np.ndarray, " count"]:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def span_keys(
    text: UInt8[np.ndarray, " bytes"], start: Int[np.ndarray, " W"], end: Int[np.ndarray, " W"]
) -> UInt64[np.ndarray, " W"]:
    """Keys of the words text[start:end]."""
    running = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum((text + np.uint64(1)) * powers(len(text)), out=running[1:])  # + 1: a NUL counts too
    inverse = powers(len(text) + 1, pow(BASE, -1, 1 << 64))
    return mix((running[end] - running[start]) * inverse[start])


def word_keys(words: Sequence[str]) -> UInt64[np.ndarray, " W"]:
    """Keys of words; lone surrogates are allowed."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    end = np.cumsum([len(word) for word in encoded], dtype=np.int64)
    start = np.append(0, end[:-1])[: len(end)]
    return span_keys(np.frombuffer(b"".join(encoded), dtype=np.uint8), start, end)


def mix(key: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Spread a key's high bits over the low ones."""
    key = (key ^ (key >> SHIFT)) * FOLD
    return key ^ (key >> SHIFT)


def extend(phrase: UInt64[np.ndarray, " N"], word: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    """The key of a phrase and one more word; the empty phrase has key 0."""
    return mix(phrase ^ word)


def sifted(phrase: UInt64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """The first SIEVE bits of keys."""
    return (phrase >> np.uint64(64 - SIEVE)).astype(np.int64)
