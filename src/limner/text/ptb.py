"""PTB tokens, as coco-caption gets them from Stanford CoreNLP 3.4.1, without Java.

Published scores of captions are computed on these tokens.  This module gives the result of two steps: the call
`PTBTokenizer -preserveLines -lowerCase` on a file with one caption per line, and the removal of punctuation by
coco-caption.  The rules were found by asking the jar, never from its source.  docs/guides/ptb.md says how, and what was
compared.

How a text is split, from left to right:

1. At each place every rule of `ptb_rules.RULES` is tried.  **The longest match wins; of equally long matches the first
   rule wins.**  Where no rule matches, one character is a token, or it is skipped when it is blank or unknown.
2. The first group of the match is the token.  The next token begins behind the group, not behind the match.
3. Rules see the text's shape, in which a few characters stand for all others: see `word_shape`.
4. The jar reads the file as one text, and some rules look into the next line.  Therefore `tokenize` takes a list.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from limner.text.ptb_lists import CHARACTER_CLASSES, FUSED_WORDS, NUMBER_ABBREVIATIONS, SELF_REPRESENTING
from limner.text.ptb_rules import ABBREVIATION, NUMBER_ABBREVIATION, RULES, TITLE, print_signs

# coco-caption's list.  It has -LRB-, but -lowerCase prints -lrb-: brackets therefore stay in a caption.
PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())

# --- Splitting a text ------------------------------------------------------------------------------------------------


class _ShapeTable(dict[int, str]):
    """A table for `str.translate`: ASCII characters stay, any other becomes the sign of its class."""

    def __init__(self) -> None:
        for sign, ranges in CHARACTER_CLASSES.items():
            for first, _, last in (span.partition("-") for span in ranges.split()):
                self.update(dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1), sign))
        self.update({ord(char): char for char in SELF_REPRESENTING})

    def __missing__(self, code: int) -> str:
        return chr(code) if code < 128 else UNKNOWN


UNKNOWN = "\x01"
SKIPPED = frozenset(map(chr, [*range(33), 127])) | set("\xa0\u2003‐٬")  # no tokens when they stand alone; with UNKNOWN
_shape_table = cache(_ShapeTable)


def word_shape(text: str) -> str:
    """The text with every character beyond ASCII replaced by the sign of its class.  The length stays the same.

    >>> word_shape("Zürich 5€ über")
    'Zérich 5€ éber'
    """
    return text if text.isascii() else text.translate(_shape_table())


def _lower(token: str) -> str:
    """Lower case as Java makes it: a capital sigma before a digit or hyphen inside a word is no final sigma."""
    if "Σ" not in token or "İ" in token:  # the latter is two characters in lower case
        return token.lower()
    lowered = re.sub(r"[-‐_](?=[^\W\d_])|\d(?=\w)", "'", token).lower()  # to Unicode, ' is inside a word
    return "".join(low if low != "'" else char for char, low in zip(token, lowered, strict=True))


@cache
def _compiled() -> tuple[tuple[Callable[..., re.Match[str] | None], Callable[[str], str]], ...]:
    return tuple((re.compile(rule.pattern).match, rule.write) for rule in RULES)


def split_tokens(text: str, stop: int) -> Iterator[str]:
    """The tokens that begin before the place `stop`, punctuation included.

    The text behind `stop` is looked at only to decide where these tokens end.

    >>> list(split_tokens("I cannot.", 9))
    ['i', 'can', 'not', '.']
    """
    shape, place, rules = word_shape(text), 0, _compiled()
    while place < stop:
        best, best_end = None, place
        write: Callable[[str], str] = print_signs
        for match, rule_write in rules:
            if (tried := match(shape, place)) and tried.end() > best_end:
                best, best_end, write = tried, tried.end(), rule_write
        end = best.end(1) if best else place + 1
        if best or shape[place] not in SKIPPED:
            token = write(text[place:end])
            if token:
                yield _lower(token)
        place = end


def _remove_punctuation(tokens: Iterable[str]) -> str:
    """The tokens joined by blanks, as coco-caption leaves them: it strips the line, then removes punctuation."""
    return " ".join(token for token in " ".join(tokens).rstrip().split(" ") if token not in PUNCTUATION)


# --- Captions --------------------------------------------------------------------------------------------------------

LINE_BREAKS = "\n\r\x0b\x0c\x85\u2028\u2029"  # somewhere between Python and the jar, one of these might end a caption
_BLANKS = dict.fromkeys(map(ord, LINE_BREAKS), " ")
NOT_BASIC = re.compile("[\ud800-\udfff\U00010000-\U0010ffff]")  # characters beyond U+FFFF, and lone surrogates
SURROGATES = re.compile("[\ud800-\udfff]+")

# A chunk is the text between two blanks.  Most chunks are tokenised by themselves, once, and remembered.
SIMPLE_CHUNK = re.compile("([A-Za-z]+)([.,]?)")  # needs no rules, unless it is one of the next two
FUSED = frozenset(map("".join, FUSED_WORDS))
KEEPS_FULL_STOP = re.compile(rf"(?i:[a-z]|{ABBREVIATION}|{TITLE}|{NUMBER_ABBREVIATION})")
# The last token can depend on what follows the blank: after a number, a bracket or a tag
DEPENDS_ON_NEXT = re.compile(r"\s|\d\)?$|<")
LETTER_WITH_FULL_STOP = re.compile(r"[a-z]\.")
MAX_CACHED_CHUNKS = 300_000  # all captions of COCO have 70,000


class _ChunkCache(dict[str, str | None]):
    """The tokens of a chunk without punctuation, or None where they depend on the chunk's neighbours."""

    def __missing__(self, chunk: str) -> str | None:
        if len(self) >= MAX_CACHED_CHUNKS:
            self.clear()
        self[chunk] = tokens = _tokenize_chunk(chunk)
        return tokens


def _tokenize_chunk(chunk: str) -> str | None:
    if simple := SIMPLE_CHUNK.fullmatch(chunk):
        word = simple[1].lower()
        if word not in FUSED and not (simple[2] == "." and KEEPS_FULL_STOP.fullmatch(word)):
            return word
    if DEPENDS_ON_NEXT.search(chunk):
        return None
    tokens = [*split_tokens(chunk + "\n", len(chunk))]
    last, before = (*tokens[:-3:-1], "", "")[:2]
    abbreviation = LETTER_WITH_FULL_STOP.fullmatch(last) or (last == "." and before in NUMBER_ABBREVIATIONS)
    if abbreviation or last != last.rstrip():
        return None
    return _remove_punctuation(tokens)


_chunk_cache = cache(_ChunkCache)


def tokenize(captions: Sequence[str], isolated: bool = False) -> list[str]:
    """A line per caption: its PTB tokens in lower case, joined by one blank, without coco-caption's punctuation.

    The jar reads all captions as one text.  A token can therefore depend on the caption that follows: "vitamin K."
    keeps its full stop unless the next caption begins with "The".  Pass the captions in their order to get the jar's
    tokens.  With `isolated=True` the tokens depend on the caption alone, as if only a line break followed it.

    A token may hold U+00A0: the jar makes one token of "4 1/2".  Line breaks inside a caption count as blanks, lone
    surrogates as unknown characters.

    >>> tokenize(["A man isn't riding a T-shirt, (very) fast.", "Two dogs!"])
    ["a man is n't riding a t-shirt -lrb- very -rrb- fast", 'two dogs']
    >>> tokenize(["vitamin K.", "The dog"]), tokenize(["vitamin K.", "The dog"], isolated=True)
    (['vitamin k', 'the dog'], ['vitamin k.', 'the dog'])
    """
    lines = _clean_lines(captions)
    cached = _chunk_cache().__getitem__
    out = []
    for i, line in enumerate(lines):
        chunks = [*map(cached, line.split(" "))]
        if None in chunks or ". ." in line:
            out.append(
                _remove_punctuation(split_tokens(line + ("\n" if isolated else _text_after(lines, i)), len(line)))
            )
        else:
            out.append(" ".join(filter(None, chunks)))
    if lines and not isolated:
        out[-1] = _remove_punctuation(split_tokens(lines[-1], len(lines[-1])))  # no line break after it
    return [line if line.isascii() else SURROGATES.sub(_from_surrogates, line) for line in out]


def _text_after(lines: Sequence[str], i: int) -> str:
    """What the rules can see behind line i: the lines up to the next one that is not blank."""
    end = i + 1
    while end < len(lines) and (end == i + 1 or not lines[end - 1].strip()):
        end += 1
    return "\n" * (i + 1 < len(lines)) + "\n".join(lines[i + 1 : end]) + "\n" * (end < len(lines))


def _clean_lines(captions: Sequence[str]) -> list[str]:
    """The captions without line breaks and lone surrogates.

    Characters beyond U+FFFF become two surrogates, as in Java.
    """
    lines, together = list(captions), "".join(captions)
    if any(char in together for char in LINE_BREAKS):
        lines = [line if line.splitlines() == [line] else line.translate(_BLANKS) for line in lines]
    if together.isascii():
        return lines
    return [line if line.isascii() else NOT_BASIC.sub(_to_surrogates, line) for line in lines]


def _to_surrogates(char: re.Match[str]) -> str:
    """A character beyond U+FFFF as two surrogates; the replacement character for a lone surrogate."""
    above = ord(char[0]) - 0x10000
    return "\ufffd" if above < 0 else chr(0xD800 + (above >> 10)) + chr(0xDC00 + (above & 0x3FF))


def _from_surrogates(halves: re.Match[str]) -> str:
    """The lower-case characters that pairs of surrogates stand for."""
    return halves[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace").lower()
