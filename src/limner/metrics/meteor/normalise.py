"""METEOR's normaliser, its option `-norm`: splits a line of text into lower-case words and punctuation.

The steps were found by asking METEOR's jar.  They are those of the Moses tokenizer of 2008, with METEOR's own treatment
of dashes and of abbreviations with dots, which lose their dots ("U.S." becomes "us").
"""

import re
from collections.abc import Collection, Mapping
from itertools import zip_longest

# The characters that METEOR takes for letters: the jar was asked for all up to U+FFFF.  Any other one stands alone.
LETTER = "A-Za-zÀ-ÖØ-öø-\u017e\u0400-\u0527\u1d00-\u1d7f\ua640-\ua66e\ua67e-\ua697"
_DASHES_AND_QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": " - "})
# A blank of an unusual width is a word of its own until full stops have been split off; then it vanishes.
_UNUSUAL_BLANKS = str.maketrans(
    dict.fromkeys("\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " ")
)
_USUAL_BLANKS = re.compile(r"[ \t\n\f\r]+")  # without the other blanks at which str.split() splits
_CONTROL_CHARACTERS = "".join(map(chr, range(33)))  # they vanish at both ends, and are words elsewhere
_STEPS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"([^{LETTER}0-9 \t\n\x0b\f\r.'`,-])", r" \1 "),
        (r"(\.{2,})", r" \1 "),
        (r"([^0-9]),([^0-9])", r"\1 , \2"),
        (r"([0-9]),([^0-9])", r"\1 , \2"),
        (r"([^0-9]),([0-9])", r"\1 , \2"),
        (r"--", "-"),
        (rf"([{LETTER}0-9.])-([{LETTER}0-9])", r"\1 \2"),  # "a-b-c" is "a b-c": matches do not overlap
        (r"`", "'"),
        (r"''", ' " '),
        (rf"([^{LETTER}])'([^{LETTER}])", r"\1 ' \2"),
        (rf"([^{LETTER}0-9])'([{LETTER}])", r"\1 ' \2"),
        (rf"([{LETTER}])'([^{LETTER}])", r"\1 ' \2"),
        (rf"([{LETTER}])'([{LETTER}])", r"\1 '\2"),
        (r"([0-9])'s", r"\1 's"),
    )
)
_HAS_LETTER = re.compile(f"[{LETTER}]")

Prefixes = Mapping[str, bool]  # {word that keeps its final full stop: whether it does so only before a number}


def normalise(line: str, prefixes: Prefixes) -> list[str]:
    """The words of a line as METEOR compares them.

    >>> normalise("Dr. Smith isn't in the U.S. today, No. 5 is.", {"Dr": False, "No": True})
    ['dr.', 'smith', 'isn', "'t", 'in', 'the', 'us', 'today', ',', 'no.', '5', 'is', '.']
    """
    if line.isascii() and line.replace(" ", "").isalnum() and line == line.lower():
        return line.split()
    text = f" {line.strip(_CONTROL_CHARACTERS).translate(_DASHES_AND_QUOTES)} "
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    words = _split_blanks(text)
    kept = (_split_full_stop(word, after, prefixes) for word, after in zip_longest(words, words[1:], fillvalue=""))
    return _split_blanks(" ".join(kept).translate(_UNUSUAL_BLANKS).lower().strip(_CONTROL_CHARACTERS))


def _split_blanks(text: str) -> list[str]:
    return [word for word in _USUAL_BLANKS.split(text) if word]


def _split_full_stop(word: str, after: str, prefixes: Prefixes) -> str:
    """The word with its final full stop split off, unless it is an abbreviation or a lower-case word follows."""
    if len(word) < 2 or word[-1] != "." or word[-2] == ".":
        return word
    stem = word[:-1]
    if "." in stem and _HAS_LETTER.search(stem):
        return word.replace(".", "")
    if (stem in prefixes and not prefixes[stem]) or "a" <= after[:1] <= "z":
        return word
    if stem in prefixes and "0" <= after[:1] <= "9":
        return word
    return f"{stem} ."


def read_prefixes(lines: Collection[str]) -> Prefixes:
    """METEOR's list of prefixes, the words that keep a final full stop.

    There is one word per line.  `#` begins a comment; the comment `#NUMERIC_ONLY#` marks a word that keeps its full
    stop only before a number.
    """
    prefixes = {}
    for line in lines:
        word, _, mark = line.partition("#")
        if word.strip():
            prefixes[word.strip()] = mark.startswith("NUMERIC_ONLY")
    return prefixes
