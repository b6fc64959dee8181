"""Words and phrases as 64-bit keys: with them, a table of 2.6 million phrases needs no strings.

The key of a word is a polynomial of its UTF-8 bytes modulo 2^64, with its bits mixed.  The key of a phrase combines the
keys of its words, in their order.  The probability that two of n phrases have the same key is n^2 / 2^65: 2e-7 for
METEOR's table.  A test counts the distinct keys.

>>> empty, dog, cat = np.zeros(1, dtype=np.uint64), word_keys(["dog"]), word_keys(["cat"])
>>> dog_cat, cat_dog = extend_key(extend_key(empty, dog), cat), extend_key(extend_key(empty, cat), dog)
>>> bool(dog_cat[0] == cat_dog[0])
False
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64, UInt8, UInt64

BASE = 0xD1342543DE82EF95  # odd, hence invertible modulo 2^64
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
SHIFT = np.uint64(29)
MAX_PHRASE_WORDS = 7  # of the phrases in METEOR's table
SIEVE_BITS = 25  # first bits of a key: 2.6 million keys have 7 % of these numbers


def powers(count: int, base: int = BASE) -> UInt64[np.ndarray, " count"]:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def span_keys(
    text: UInt8[np.ndarray, " bytes"], start: Int[np.ndarray, " W"], end: Int[np.ndarray, " W"]
) -> UInt64[np.ndarray, " W"]:
    """The keys of the words text[start:end].

    All keys come from one running sum of (byte + 1) * BASE^place.  The sum over a word is the difference of two values;
    the factor BASE^-start removes the place of the word in the text.
    """
    running = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum((text + np.uint64(1)) * powers(len(text)), out=running[1:])  # + 1 makes a NUL byte count
    inverse = powers(len(text) + 1, pow(BASE, -1, 1 << 64))
    return mix((running[end] - running[start]) * inverse[start])


def word_keys(words: Sequence[str]) -> UInt64[np.ndarray, " W"]:
    """The keys of words; lone surrogates are allowed."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    end = np.cumsum([len(word) for word in encoded], dtype=np.int64)
    start = np.append(0, end[:-1])[: len(end)]
    return span_keys(np.frombuffer(b"".join(encoded), dtype=np.uint8), start, end)


def mix(key: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """The keys with their high bits spread over the low ones."""
    key = (key ^ (key >> SHIFT)) * MULTIPLIER
    return key ^ (key >> SHIFT)


def extend_key(phrase: UInt64[np.ndarray, " N"], word: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    """The keys of phrases with one more word each; the empty phrase has the key 0."""
    return mix(phrase ^ word)


def sieve_bit(phrase: UInt64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """The bit of the sieve that belongs to each key: its first SIEVE_BITS bits as a number."""
    return (phrase >> np.uint64(64 - SIEVE_BITS)).astype(np.int64)
