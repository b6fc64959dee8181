"""Text to words: captions go in, as many lines come out, their tokens joined by one blank.

Published scores are computed on PTB tokens (`text/ptb.py`).  `simple` is plainer, for a smaller vocabulary; `split` is
for text that is tokenised already.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial

from limner.text import ptb

WORD = re.compile(r"[^\s'-]+(?:['-][^\s'-]+)*")


class _Kept(dict[int, str]):
    """A `str.translate` table that classifies each character once: kept in a word, or turned into a blank."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        # isalnum is False for combining marks, without which Hindi or Thai words fall apart
        word = char.isalnum() or char in "'-" or unicodedata.category(char).startswith("M")
        self[code] = char if word else " "
        return self[code]


_KEPT = _Kept({ord("’"): "'", ord("‐"): "-", ord("‑"): "-"})


def simple(text: str) -> list[str]:
    """Lower-cased NFC words of letters and digits; inner apostrophes and hyphens stay, other punctuation is dropped.

    Scores on these words are not comparable with published ones.
    """
    return WORD.findall(unicodedata.normalize("NFC", text.lower()).translate(_KEPT))


def each(words: Callable[[str], list[str]]) -> Callable[[Sequence[str]], list[str]]:
    """A tokenizer of lists from one that looks at a caption alone."""
    return lambda captions: [" ".join(words(caption)) for caption in captions]


# They take the whole list because PTB's, as coco-caption calls it, looks at a caption's neighbours.
TOKENIZERS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "ptb": ptb.tokenize,
    "ptb-isolated": partial(ptb.tokenize, isolated=True),
    "simple": each(simple),
    "split": each(str.split),
}


def tokenizer(name: str) -> Callable[[Sequence[str]], list[str]]:
    """The tokenizer of that name.  Raises ValueError that lists the known names."""
    if name not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]
