"""METEOR's `-norm`: a line of text in, its lower-cased words and punctuation out.

Written from what the jar prints for probes: the steps are those of the Moses tokenizer of 2008, with METEOR's own
treatment of dashes and of dotted abbreviations, which lose their dots ("U.S." is "us").
"""

import re
from collections.abc import Collection, Mapping
from itertools import zip_longest

# What counts as a letter: every other character stands alone.  Found by probing the whole basic plane.
LETTER = "A-Za-zÀ-ÖØ-öø-\u017e\u0400-\u0527\u1d00-\u1d7f\ua640-\ua66e\ua67e-\ua697"
_DASHES_AND_QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": " - "})
# A blank of another width is a word of its own until stops are looked at, and vanishes then.
_BLANKS = str.maketrans(dict.fromkeys("\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " "))
_SPACE = re.compile(r"[ \t\n\f\r]+")  # none of the others that Python would split at
_TRIMMED = "".join(map(chr, range(33)))  # control characters vanish at the ends, and are words elsewhere
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

Prefixes = Mapping[str, bool]  # words that keep a final stop; True: only before a number


def normalise(line: str, prefixes: Prefixes) -> list[str]:
    """The words of a line as METEOR compares them."""
    if line.isascii() and line.replace(" ", "").isalnum() and line == line.lower():
        return line.split()
    text = f" {line.strip(_TRIMMED).translate(_DASHES_AND_QUOTES)} "
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    words = _words(text)
    kept = (_stop(word, after, prefixes) for word, after in zip_longest(words, words[1:], fillvalue=""))
    return _words(" ".join(kept).translate(_BLANKS).lower().strip(_TRIMMED))


def _words(text: str) -> list[str]:
    return [word for word in _SPACE.split(text) if word]


def _stop(word: str, after: str, prefixes: Prefixes) -> str:
    """Split a final stop off unless the word is an abbreviation or a lower-case word follows."""
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
    """METEOR's list of non-breaking prefixes: one per line, `#` begins a comment, `#NUMERIC_ONLY#` marks a word."""
    found = {}
    for line in lines:
        word, _, mark = line.partition("#")
        if word.strip():
            found[word.strip()] = mark.startswith("NUMERIC_ONLY")
    return found
