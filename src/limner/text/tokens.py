"""Tokenizers: a list of captions in, a list of strings out, each with the caption's tokens joined by one blank.

Published scores are computed on PTB tokens (`text/ptb.py`).  `simple` is a plainer tokenizer that gives smaller
vocabularies.  `split` is for text that is already tokenised.  `characters` and `script-runs` are for languages that are
written without blanks between words (`text/scripts.py`).
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial

from limner.text import ptb
from limner.text.scripts import CHARACTER_TOKENIZERS, characters, script_runs

WORD = re.compile(r"[^\s'-]+(?:['-][^\s'-]+)*")


class _WordCharacters(dict[int, str]):
    """A table for `str.translate` that keeps the characters of words and replaces all others by blanks.

    Each character is classified once, when it is first seen.
    """

    def __missing__(self, code: int) -> str:
        char = chr(code)
        # isalnum is False for combining marks, without which Hindi or Thai words fall apart
        is_word = char.isalnum() or char in "'-" or unicodedata.category(char).startswith("M")
        self[code] = char if is_word else " "
        return self[code]


_WORD_CHARACTERS = _WordCharacters({ord("’"): "'", ord("‐"): "-", ord("‑"): "-"})


def simple(text: str) -> list[str]:
    """The words of a text: lower-cased, in Unicode's NFC form, of letters and digits.

    Apostrophes and hyphens inside a word stay; all other punctuation is dropped.  Scores on these words are not
    comparable with published scores.

    >>> simple("A man, riding a T-shirt.")
    ['a', 'man', 'riding', 'a', 't-shirt']
    """
    return WORD.findall(unicodedata.normalize("NFC", text.lower()).translate(_WORD_CHARACTERS))


def per_caption(words: Callable[[str], list[str]]) -> Callable[[Sequence[str]], list[str]]:
    """A tokenizer of lists, made from a function that splits a single caption into words."""
    return lambda captions: [" ".join(words(caption)) for caption in captions]


# A tokenizer takes the whole list because coco-caption's PTB tokens depend on the caption that follows.
TOKENIZERS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "ptb": ptb.tokenize,
    "ptb-isolated": partial(ptb.tokenize, isolated=True),
    "simple": per_caption(simple),
    "split": per_caption(str.split),
    "characters": per_caption(characters),
    "script-runs": script_runs,
}
UNPUBLISHED_TOKENIZERS = ("simple", *CHARACTER_TOKENIZERS)  # scores on their tokens are not those of coco-caption


def scoring_tokenizer(vocabulary_tokenizer: str) -> str:
    """The tokenizer that scores the captions of a run: PTB, but for a vocabulary of characters the vocabulary's own.

    >>> scoring_tokenizer("simple"), scoring_tokenizer("characters")
    ('ptb', 'characters')
    """
    return vocabulary_tokenizer if vocabulary_tokenizer in CHARACTER_TOKENIZERS else "ptb"


def get_tokenizer(name: str) -> Callable[[Sequence[str]], list[str]]:
    """The tokenizer with this name.  Raises ValueError for an unknown name, and lists the known ones.

    >>> get_tokenizer("ptb")(["A man isn't riding.", "Two dogs!"])
    ["a man is n't riding", 'two dogs']
    """
    if name not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]
