"""Text to words, for metrics: a caption goes in, a list of words comes out.

**Stand-in.**  Published scores are computed on PTB tokens; until `text/ptb.py` exists, `simple` takes its place, and a
report made with it says so.  `split` is for text that is tokenised already.
"""

import re
import unicodedata
from collections.abc import Callable

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

    A stand-in until PTB tokenisation: scores on these words are not comparable with published ones.
    """
    return WORD.findall(unicodedata.normalize("NFC", text.lower()).translate(_KEPT))


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"simple": simple, "split": str.split}


def tokenizer(name: str) -> Callable[[str], list[str]]:
    """The tokenizer of that name.  Raises ValueError that lists the known names."""
    if name not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]
