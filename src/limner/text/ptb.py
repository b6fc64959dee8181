"""PTB tokens as coco-caption gets them from Stanford CoreNLP 3.4.1, but without Java; published scores rest on them.

Reproduced is the call `PTBTokenizer -preserveLines -lowerCase` on a file of captions, and coco-caption's removal of
punctuation afterwards.  The rules below were found by asking the jar, never from its source; docs/ptb.md says how, and
what was compared.  They are read like this:

1. A text is cut from left to right.  At each place every rule is tried: **the longest match wins, among equals the
   first rule**.  Where none matches, one character is a token, or is skipped when it is blank or unknown.
2. A rule's first group is the token; what it matches behind counts for the length and is cut again.
3. Rules see the text's `shape`: any letter beyond ASCII is `é` there, any mark `ˇ`, any digit `٣`, and so on.
4. The jar reads the whole file, and some rules look into the next line: that is why `tokenize` takes the whole list.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from limner.text.ptb_lists import (
    ABBREVIATIONS,
    CAPITAL_ABBREVIATIONS,
    CLASSES,
    FILE_EXTENSIONS,
    JOINED,
    NUMBER_ABBREVIATIONS,
    SENTENCE_STARTS,
    THEMSELVES,
    TITLES,
)

# coco-caption's list.  Brackets stay in a caption all the same: -lowerCase prints -lrb-, and here it says -LRB-.
PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())

# --- The alphabet of shapes ------------------------------------------------------------------------------------------

LETTER, DIGIT = "A-Za-zé", "0-9٣"  # insides of [...]
BLANK = "[ \t\n\xa0\u2003]"
ACCENT = "&[aeiouAEIOU](?i:acute|grave|uml);"  # &eacute; is a letter of a word
MORE = rf"[{LETTER}ˇ\xad{DIGIT}]*(?:{ACCENT}[{LETTER}ˇ\xad{DIGIT}]*)*"
WORD = rf"(?:[{LETTER}ˇ\xad]|{ACCENT}){MORE}"
WORDS = rf"{WORD}(?:[.!?]{WORD})*"
NAME_PART = rf"(?:[{LETTER}ˇ\xad{DIGIT}]|{ACCENT}){MORE}"
APOS = "&(?i:apos);"
CURLY = f"(?:’|{APOS})"
QUOTE = f"(?:['’]|{APOS})"
ANY_QUOTE = f"(?:['’‘`]|{APOS})"
FIRST_OF_TWO = "|".join(f"{first}(?={second})" for first, second in JOINED)
SECOND_OF_TWO = "|".join(second for _, second in JOINED)
CLITIC = "(?i:[sdm]|ll|re|ve)"
STOP = r"(?:\.(?=[,;:、]))?"  # a word keeps its stop before these: "can.;" -> can. ;


def _either(words: Sequence[str]) -> str:
    return f"(?i:{'|'.join(map(re.escape, words))})"


def _capital(words: Sequence[str]) -> str:
    return f"(?:{'|'.join(f'{word[0].upper()}(?i:{word[1:]})' for word in words)})"


ABBREVIATION = rf"(?:{_either(ABBREVIATIONS)}|{_capital(CAPITAL_ABBREVIATIONS)}|[pP]?[pP][tT][ey][sS]?)"  # Pte. Pty.
TITLE = rf"(?:{_either(TITLES)}|[mM][ft][gG])"  # Mfg. Mtg.
NUMBERED = _either(NUMBER_ABBREVIATIONS)
STARTS = _capital(SENTENCE_STARTS)
TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.-]*"
ATTRIBUTE = rf"""{TAG_NAME}(?: *= *(?:"[^"\n]*"|'[^'\n]*'))?"""
TAG = rf"(?:</?{TAG_NAME} *>|<{TAG_NAME}(?: +{ATTRIBUTE})* */? *>|<[!?][A-Za-z-][^>\n]*>)"

IN_URL, URL_END = r'[^ \t\n"<>|(){}]', r'[^ \t\n"<>|(){}.!?,-]'
IN_MAIL, MAIL_PART = r'[^ \t\n\xa0"<>|(){}]', r'[^ \t\n\xa0"<>|(){}.]+'
PATH = rf'/[^ \t\n"<>|()]+{URL_END}'
WWW = r'[wW]{3}\.(?:[^ \t\n"<>|(){}.!?,]+\.)'  # to be repeated
SITE_PART = r"""[^ \t\n!"$'(),\-./0-9:;<=>?@A-Z\[\\\]^_`{|}]+"""  # neither digits nor capitals
SITE, SITE_END = rf"{SITE_PART}(?:\.{SITE_PART})", r"\.(?i:com|net|org|edu)"

ASCII_PART = r"[A-Za-z0-9\xad]+"
ASCII_COMPOUND = (
    rf"[A-Za-z0-9][A-Za-z0-9\xad]*(?:[.,]+{ASCII_PART})*[.,]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|{ASCII_PART}))+"
)
PART = f"(?:[dDoOlL]{ANY_QUOTE}[{LETTER}{DIGIT}])?[{LETTER}{DIGIT}]+"
COMPOUND = f"{PART}(?:[-‐_]{PART})*"
SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+)*"
AREA = r"(?:\([0-9]{2,3}\)[ \xa0]?|\+{0,2}(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
EYE = "['<>=^x~]"


# --- How tokens are printed ------------------------------------------------------------------------------------------

SIGNS = {
    **{'"': "''", "(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"},
    **dict.fromkeys("‘‛‹\x91", "`") | dict.fromkeys("’›\x92", "'"),
    **dict.fromkeys("“«\x93", "``") | dict.fromkeys("”»\x94", "''"),
    **dict.fromkeys("–—―\x96\x97", "--") | dict.fromkeys("…\x85", "..."),
    **dict.fromkeys("€₠¤\x80", "$") | {"£": "#", "¢": "cents", "\xad": "-"},
    **{"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
}


def _signs(token: str) -> str:
    return "".join(SIGNS.get(char, char) for char in token)


def _without_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-"


def _clitic(token: str) -> str:
    return _signs(re.sub(APOS, "'", token))


def _compound(token: str) -> str:
    return re.sub("&(?i:amp);", "&", token).replace("\xad", "")


def _one_token(token: str) -> str:
    """Blanks inside a token are printed as no-break spaces."""
    return token.replace(" ", "\xa0")


def _face(token: str) -> str:
    return token.replace("(", "-LRB-").replace(")", "-RRB-")


def _phone(token: str) -> str:
    return _one_token(_face(token))


def _entity(token: str) -> str:
    if token in ("&quot;", "&apos;"):
        return {"q": "''", "a": "'"}[token[1]]
    known = {"amp": "&", "lt": "<", "gt": ">", "nbsp": "", "ndash": "--", "mdash": "--"}
    return known.get(token[1:-1].lower(), token)


# --- The rules, first to last ----------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """`example` is "text -> tokens"; `write` makes the printed token of the one found, before lower-casing."""

    example: str
    pattern: str
    write: Callable[[str], str] = str


RULES = (
    # Words that fall apart
    Rule("cannot -> can not", f"((?i:{FIRST_OF_TWO}))(?i:{SECOND_OF_TWO})(?!{NAME_PART})"),
    Rule("don't -> do n't", rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*)[nN]{ANY_QUOTE}[tT]", _without_soft_hyphens),
    Rule("X'll -> x 'll", rf"({WORDS})(?:'|{CURLY}){CLITIC}", _without_soft_hyphens),
    Rule("n’t -> n't", f"([nN]{ANY_QUOTE}[tT])(?![A-Za-z])", _clitic),
    Rule("he'll -> he 'll", "('(?i:[sdm](?![a-z])|(?:ll|re|ve)(?=[^a-z])))"),
    Rule("he’llx -> he 'll x", f"({CURLY}{CLITIC})", _clitic),
    # Words, also with a stop, ! or ? inside
    Rule("soon.Then -> soon.then", f"({WORDS}{STOP})", _without_soft_hyphens),
    # Addresses
    Rule("jo@x.com -> jo@x.com", rf"((?:<|&(?i:lt);)?[A-Za-z0-9]{IN_MAIL}*@{MAIL_PART}(?:\.{MAIL_PART})*>?)"),
    Rule("http://x.y/z, -> http://x.y/z", f"((?i:https?)://{IN_URL}+{URL_END})"),
    Rule("www.a+b.de/cd -> www.a+b.de/cd", rf"({WWW}+?[A-Za-z]{{2,4}}{PATH}|{WWW}+[A-Za-z]{{2,4}})"),
    Rule("a+b.com/cd -> a+b.com/cd", rf"({SITE}*?{SITE_END}{PATH}|{SITE}*{SITE_END})"),
    Rule("#tag -> #tag", rf"(#(?:[{LETTER}ˇ\xad]|{ACCENT})+)"),
    Rule("@me -> @me", "(@[A-Za-z_][A-Za-z0-9_]*)"),
    # Abbreviations
    Rule("etc.x -> etc. x", rf"({ABBREVIATION}\.)[\s\S]{{2}}"),
    Rule("etc. -> etc.", rf"({ABBREVIATION})\.", "{}.".format),  # near the end of everything the stop is read twice
    Rule("Mr. x -> mr. x", rf"({TITLE}\.)"),
    Rule("No. 5 -> no. 5", rf"({NUMBERED}\.){BLANK}?[{DIGIT}]"),
    # A sentence ends here, so the stop is not the letter's
    Rule("vitamin K. The end -> vitamin k the end", rf"([A-Za-z])\.{BLANK}+(?:{STARTS}|M[rRsS]\.|{TAG}){BLANK}"),
    Rule("5 p.m. -> 5 p.m.", r"([A-Za-z](?:\.[A-Za-z])*\.)"),
    Rule("5.jpg! -> 5.jpg", rf"({NAME_PART}(?:\.{NAME_PART})*\.{_either(FILE_EXTENSIONS)})(?:{BLANK}|[!,.?])"),
    # Compounds
    Rule("U.S.-based -> u.s.-based", f"({ASCII_COMPOUND}{STOP})", _compound),
    Rule("T-shirt o'neil 2x -> t-shirt o'neil 2x", f"({COMPOUND}{STOP})", _compound),
    Rule("AT&T -> at&t", f"([A-Z]+(?:(?:&|&(?i:amp);|[+])[A-Z]+)+{STOP})", _compound),
    Rule("and/or -> and/or", rf"({SLASHED}(?:\\?/{SLASHED}){{1,2}})"),
    # Apostrophes that stay in a word, at its end, or at its beginning
    Rule("N'Sync -> n'sync", f"([A-HJ-XZdlno]{ANY_QUOTE}[{LETTER}]{{2,}})"),
    Rule("ma'am -> ma'am", f"([{LETTER}]+[aeiouyAEIOUY]{ANY_QUOTE}[aeiouA-Z][{LETTER}]*|[oO]{ANY_QUOTE}[oO])"),
    Rule("c'mon -> c'mon", r"((?i:c'mon|cont'd\.|e'er|ev'ry|li'l|nat'l|nor'easter|s'mores))"),
    Rule("c’est -> c’est", f"((?i:c{QUOTE}est|cap{QUOTE}n))"),
    Rule("ol' -> ol'", f"((?i:[jdl]|ol|dunkin|somethin){QUOTE})"),
    Rule("y'all -> y' all", f"([yY]{QUOTE})[{LETTER}]"),
    Rule("'em '80 -> 'em '80", f"({QUOTE}(?:(?i:em|till?|cause)|[nN]{QUOTE}|[2-9]0[sS]|[0-9][0-9](?={BLANK})))"),
    Rule("rock 'n roll -> rock 'n roll", f"('[nN](?=[ \t\n\xa0])|{CURLY}[nN])"),
    Rule("'tis -> 't is", "('[tT])(?i:is|was)"),
    # Numbers
    Rule("-3.5 1,000 10:30 -> -3.5 1,000 10:30", rf"([-+]?(?:[.:,٬\xad]?[{DIGIT}])+)", _without_soft_hyphens),
    Rule(
        "4 1/2 -> 4\xa01/2", rf"((?:[{DIGIT}]{{1,4}}[- \xa0])?[{DIGIT}]{{1,4}}(?:\\?/|⁄)[{DIGIT}]{{1,4}})", _one_token
    ),
    Rule("1/2-2003 -> 1/2-2003", f"([{DIGIT}]{{1,2}}[-/][{DIGIT}]{{1,2}}[-/][{DIGIT}]{{2,4}})"),
    Rule("(555) 123-4567 -> -lrb-555-rrb-\xa0123-4567", f"({AREA}[0-9]{{3,4}}[- \xa0]?[0-9]{{3,5}})", _phone),
    Rule("x²³ -> x ²³", "(²+)"),
    Rule("US$5 -> us$ 5", r"([A-Z]+\$)"),
    # Markup
    Rule('<a b="c d"> -> <a\xa0b="c\xa0d">', f"({TAG})", _one_token),
    Rule("&lt; &#39; -> < &#39;", "(&(?i:amp|lt|gt|quot|apos|nbsp|[nm]dash);|&#[0-9]+;)", _entity),
    # Faces
    Rule(":-) -> :--rrb-", r"([<>]?[:;=]['*o-]?[()\\\]\[{|@dDpOP])[^A-Za-z0-9]", _face),
    Rule("^_^ x_x -> ^_^ x_x", rf"((?:-|{EYE})_(?:-|{EYE})|[xX]_[xX]|[oO]\.[oO])"),
    Rule("(^_^) -> -lrb-^_^-rrb-", rf"(\((?:(?:-|{EYE})[_.]?(?:-|{EYE})|{EYE}-{EYE})\))", _face),
    # Marks
    Rule("C++ F# -> c++ f#", r"([cC]\+\+|[cCfF]#)"),
    Rule("What?! -> what ?!", "([!?]+)"),
    Rule("x . . .5 -> x 5", r"(\.{3,5}|\.(?:[ \xa0]\.){2,4})", lambda token: "..."),
    Rule("x---5 -> x 5", "(-{2,4})", lambda token: "--"),
    Rule("----- -> -----", "(-{5,})"),
    Rule("‘“ -> ```", "([‘’“”„‹›`]{1,2})", _signs),
    Rule("x'' ** -> x **", r"(''|``|<<|>>|\*\*+|##+|@@+|__+|\\\*)"),
)


# --- Cutting a text --------------------------------------------------------------------------------------------------


class _Shapes(dict[int, str]):
    """A `str.translate` table: the class of each character beyond ASCII, the character itself within."""

    def __init__(self) -> None:
        for char in THEMSELVES:
            self[ord(char)] = char
        for stand_in, ranges in CLASSES.items():
            for first, _, last in (span.partition("-") for span in ranges.split()):
                self.update(dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1), stand_in))

    def __missing__(self, code: int) -> str:
        return chr(code) if code < 128 else UNKNOWN


UNKNOWN = "\x01"
SKIPPED = frozenset(map(chr, [*range(33), 127])) | set("\xa0\u2003‐٬")  # when they stand alone; UNKNOWN is among them
_shapes = cache(_Shapes)


def shape(text: str) -> str:
    """The text with a stand-in for every character beyond ASCII, as the rules see it; equally long."""
    return text if text.isascii() else text.translate(_shapes())


def _lower(token: str) -> str:
    """As in Java, where a capital sigma is no final one before a digit or hyphen that is inside a word."""
    if "Σ" not in token or "İ" in token:  # the latter is two characters in lower case
        return token.lower()
    lowered = re.sub(r"[-‐_](?=[^\W\d_])|\d(?=\w)", "'", token).lower()  # to Unicode, ' is inside a word
    return "".join(low if low != "'" else char for char, low in zip(token, lowered, strict=True))


@cache
def _compiled() -> tuple[tuple[Callable[..., re.Match[str] | None], Callable[[str], str]], ...]:
    return tuple((re.compile(rule.pattern).match, rule.write) for rule in RULES)


def cut(text: str, stop: int) -> Iterator[str]:
    """The tokens that begin before `stop`, punctuation included; what is behind `stop` decides where they end."""
    shaped, place, rules = shape(text), 0, _compiled()
    while place < stop:
        found, reached = None, place
        write: Callable[[str], str] = _signs
        for match, printed in rules:
            if (tried := match(shaped, place)) and tried.end() > reached:
                found, reached, write = tried, tried.end(), printed
        end = found.end(1) if found else place + 1
        if found or shaped[place] not in SKIPPED:
            token = write(text[place:end])
            if token:
                yield _lower(token)
        place = end


def _kept(tokens: Iterable[str]) -> str:
    """A line as coco-caption leaves it: blanks at its end go, then punctuation."""
    return " ".join(token for token in " ".join(tokens).rstrip().split(" ") if token not in PUNCTUATION)


# --- Captions --------------------------------------------------------------------------------------------------------

LINE_BREAKS = "\n\r\x0b\x0c\x85\u2028\u2029"  # between here and the jar, one of these might end a caption
_BLANKS = dict.fromkeys(map(ord, LINE_BREAKS), " ")
BEYOND = re.compile("[\ud800-\udfff\U00010000-\U0010ffff]")  # beyond U+FFFF, and lone surrogates
HALVES = re.compile("[\ud800-\udfff]+")

PLAIN = re.compile("([A-Za-z]+)([.,]?)")  # chunks, the text between blanks, that need no rules ...
TWO_WORDS = frozenset(map("".join, JOINED))
STOPPED = re.compile(rf"(?i:[a-z]|{ABBREVIATION}|{TITLE}|{NUMBERED})")
# ... and those whose last token can depend on what comes behind the blank: a number, a bracket or a tag
OPEN = re.compile(r"\s|\d\)?$|<")
LETTER_WITH_STOP = re.compile(r"[a-z]\.")
CACHED = 300_000  # chunks to remember; all of COCO has 70,000


class _Chunks(dict[str, str | None]):
    """What is left of a chunk, or None where that depends on its neighbours."""

    def __missing__(self, chunk: str) -> str | None:
        if len(self) >= CACHED:
            self.clear()
        self[chunk] = kept = _chunk(chunk)
        return kept


def _chunk(chunk: str) -> str | None:
    if plain := PLAIN.fullmatch(chunk):
        word = plain[1].lower()
        if word not in TWO_WORDS and not (plain[2] == "." and STOPPED.fullmatch(word)):
            return word
    if OPEN.search(chunk):
        return None
    tokens = [*cut(chunk + "\n", len(chunk))]
    last, before = (*tokens[:-3:-1], "", "")[:2]
    if LETTER_WITH_STOP.fullmatch(last) or (last == "." and before in NUMBER_ABBREVIATIONS) or last != last.rstrip():
        return None
    return _kept(tokens)


_chunks = cache(_Chunks)


def tokenize(captions: Sequence[str], isolated: bool = False) -> list[str]:
    """A line per caption: its PTB tokens joined by one blank, lower-cased, without coco-caption's punctuation.

    As the jar reads all captions as one text, a token can depend on the caption after it: "vitamin K." keeps its stop
    unless the next caption begins with "The".  Pass all captions of a call in its order, or `isolated=True` for tokens
    that depend on nothing but the caption: it is then followed by a line break and nothing else.

    A token may hold U+00A0, where the jar makes one token of "4 1/2".  Line breaks inside a caption count as blanks,
    halves of characters (lone surrogates) as unknown characters.
    """
    lines = _lines(captions)
    known = _chunks().__getitem__
    out = []
    for i, line in enumerate(lines):
        kept = [*map(known, line.split(" "))]
        if None in kept or ". ." in line:
            out.append(_kept(cut(line + ("\n" if isolated else _after(lines, i)), len(line))))
        else:
            out.append(" ".join(filter(None, kept)))
    if lines and not isolated:
        out[-1] = _kept(cut(lines[-1], len(lines[-1])))  # no line break after it
    return [line if line.isascii() else HALVES.sub(_joined, line) for line in out]


def _after(lines: Sequence[str], i: int) -> str:
    """What the rules can see behind line i: up to the next line that is not blank."""
    end = i + 1
    while end < len(lines) and (end == i + 1 or not lines[end - 1].strip()):
        end += 1
    return "\n" * (i + 1 < len(lines)) + "\n".join(lines[i + 1 : end]) + "\n" * (end < len(lines))


def _lines(captions: Sequence[str]) -> list[str]:
    """The captions without line breaks and lone surrogates; characters beyond U+FFFF as Java has them, in halves."""
    lines, together = list(captions), "".join(captions)
    if any(char in together for char in LINE_BREAKS):
        lines = [line if line.splitlines() == [line] else line.translate(_BLANKS) for line in lines]
    return lines if together.isascii() else [line if line.isascii() else BEYOND.sub(_halves, line) for line in lines]


def _halves(char: re.Match[str]) -> str:
    above = ord(char[0]) - 0x10000
    return "\ufffd" if above < 0 else chr(0xD800 + (above >> 10)) + chr(0xDC00 + (above & 0x3FF))


def _joined(halves: re.Match[str]) -> str:
    return halves[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace").lower()
