"""The rules of the PTB tokenizer (`text/ptb.py`): how tokens are recognised and how they are printed.

A rule's pattern is a regular expression on the *shape* of a text: there, any letter beyond ASCII is `é`, any combining
mark is `ˇ`, any other digit is `٣`, and so on (`ptb.word_shape`).  `İ`, `ı` and `ſ` stay: where a rule ignores letter
case they are an i and an s, for the jar as for Python.  The first group of a match is the token.  Text that the pattern
matches behind the group counts for the length of the match; it is not part of the token.

The order matters: of two rules that match equally much text the earlier one wins.  For "cannot" the first rule and the
rule for words both match six characters; the first rule wins, and its group makes the token "can".  "not" follows as
the next token.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from limner.text.ptb_lists import (
    ABBREVIATIONS,
    CAPITAL_ABBREVIATIONS,
    FILE_EXTENSIONS,
    FUSED_WORDS,
    NUMBER_ABBREVIATIONS,
    SENTENCE_STARTS,
    TITLES,
)

# --- Parts of patterns -----------------------------------------------------------------------------------------------

LETTER, DIGIT = "A-Za-zéİıſ", "0-9٣"  # to be used inside [...]
BLANK = "[ \t\n\xa0\u2003]"
ACCENT = "&[aeiouAEIOU](?i:acute|grave|uml);"  # &eacute; is a letter of a word
# WORD: letters, marks and digits, not beginning with a digit.  NAME_PART may begin with a digit.
WORD_TAIL = rf"[{LETTER}ˇ\xad{DIGIT}]*(?:{ACCENT}[{LETTER}ˇ\xad{DIGIT}]*)*"
WORD = rf"(?:[{LETTER}ˇ\xad]|{ACCENT}){WORD_TAIL}"
DOTTED_WORDS = rf"{WORD}(?:[.!?]{WORD})*"
NAME_PART = rf"(?:[{LETTER}ˇ\xad{DIGIT}]|{ACCENT}){WORD_TAIL}"
APOS = "&(?i:apos);"
CURLY = f"(?:’|{APOS})"  # the apostrophes that the jar prints as '
QUOTE = f"(?:['’]|{APOS})"
ANY_QUOTE = f"(?:['’‘`]|{APOS})"
# "cannot" is two words: FIRST_OF_TWO matches "can" before "not", and SECOND_OF_TWO matches "not"
FIRST_OF_TWO = "|".join(f"{first}(?={second})" for first, second in FUSED_WORDS)
SECOND_OF_TWO = "|".join(second for _, second in FUSED_WORDS)
CLITIC = "(?:[sSdDmM]|(?i:ll|re|ve))"
FULL_STOP = r"(?:\.(?=[,;:、]))?"  # a word keeps its full stop before these characters: "can.;" -> can. ;


def _any_case(words: Sequence[str]) -> str:
    """A pattern of any of the words, in lower or upper case."""
    return f"(?i:{'|'.join(map(re.escape, words))})"


def _capital(words: Sequence[str]) -> str:
    """A pattern of any of the words with a capital first letter."""
    return f"(?:{'|'.join(f'{word[0].upper()}(?i:{word[1:]})' for word in words)})"


# Words that keep their full stop, and where a sentence may begin
ABBREVIATION = rf"(?:{_any_case(ABBREVIATIONS)}|{_capital(CAPITAL_ABBREVIATIONS)}|[pP]?[pP][tT][ey][sS]?)"  # Pte., Pty.
TITLE = rf"(?:{_any_case(TITLES)}|[mM][ft][gG])"  # Mfg. Mtg.
NUMBER_ABBREVIATION = _any_case(NUMBER_ABBREVIATIONS)
FIRST_WORD = _capital(SENTENCE_STARTS)
# Markup: <b>, <a href="x">, </b>
TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.-]*"
ATTRIBUTE = rf"""{TAG_NAME}(?: *= *(?:"[^"\n]*"|'[^'\n]*'))?"""
TAG = rf"(?:</?{TAG_NAME} *>|<{TAG_NAME}(?: +{ATTRIBUTE})* */? *>|<[!?][A-Za-z-][^>\n]*>)"

# Addresses.  An address does not end with a punctuation mark.
IN_URL, URL_END = r'[^ \t\n"<>|(){}]', r'[^ \t\n"<>|(){}.!?,-]'
IN_MAIL, MAIL_PART = r'[^ \t\n\xa0"<>|(){}]', r'[^ \t\n\xa0"<>|(){}.]+'
PATH = rf'/[^ \t\n"<>|()]+{URL_END}'
WWW = r'[wW]{3}\.(?:[^ \t\n"<>|(){}.!?,]+\.)'  # at least once
SITE_PART = r"""[^ \t\n!"$'(),\-./0-9:;<=>?@A-Z\[\\\]^_`{|}]+"""  # neither digits nor capitals
SITE, SITE_END = rf"{SITE_PART}(?:\.{SITE_PART})", r"\.(?i:com|net|org|edu)"

# Compounds: "T-shirt", "U.S.-based", "and/or", "o'neil"
ASCII_PART = r"[A-Za-z0-9\xad]+"
ASCII_COMPOUND = (
    rf"[A-Za-z0-9][A-Za-z0-9\xad]*(?:[.,]+{ASCII_PART})*[.,]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|{ASCII_PART}))+"
)
PART = f"(?:[dDoOlL]{ANY_QUOTE}[{LETTER}{DIGIT}])?[{LETTER}{DIGIT}]+"
COMPOUND = f"{PART}(?:[-‐_]{PART})*"
SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
AREA = r"(?:\([0-9]{2,3}\)[ \xa0]?|\+{0,2}(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"  # of a telephone number
EYES = "['<>=^x~]"  # of an emoticon


# --- How tokens are printed ------------------------------------------------------------------------------------------

SIGNS = {
    **{'"': "''", "(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"},
    **dict.fromkeys("‘‛‹\x91", "`") | dict.fromkeys("’›\x92", "'"),
    **dict.fromkeys("“«\x93", "``") | dict.fromkeys("”»\x94", "''"),
    **dict.fromkeys("–—―\x96\x97", "--") | dict.fromkeys("…\x85", "..."),
    **dict.fromkeys("€₠¤\x80", "$") | {"£": "#", "¢": "cents", "\xad": "-"},
    **{"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
}


def print_signs(token: str) -> str:
    """The token with each character of `SIGNS` replaced: "(" becomes "-LRB-"."""
    return "".join(SIGNS.get(char, char) for char in token)


def _drop_soft_hyphens(token: str) -> str:
    """The token without soft hyphens; a token of nothing else is printed as a hyphen."""
    return token.replace("\xad", "") or "-"


def _print_clitic(token: str) -> str:
    """A clitic with a plain apostrophe: "’s" and "&apos;s" become "'s"."""
    return print_signs(re.sub(APOS, "'", token))


def _print_compound(token: str) -> str:
    """A compound without soft hyphens, with & in place of &amp;."""
    return re.sub("&(?i:amp);", "&", token).replace("\xad", "")


def _keep_blanks(token: str) -> str:
    """The token with no-break spaces in place of its blanks, as the jar prints one token that has blanks inside."""
    return token.replace(" ", "\xa0")


def _print_emoticon(token: str) -> str:
    """An emoticon with its parentheses as -LRB- and -RRB-."""
    return token.replace("(", "-LRB-").replace(")", "-RRB-")


def _print_phone(token: str) -> str:
    """A telephone number as one token, with its parentheses as -LRB- and -RRB-."""
    return _keep_blanks(_print_emoticon(token))


def _print_entity(token: str) -> str:
    """The character of an HTML entity; an unknown entity stays as it is."""
    if token in ("&quot;", "&apos;"):
        return {"q": "''", "a": "'"}[token[1]]
    known = {"amp": "&", "lt": "<", "gt": ">", "nbsp": "", "ndash": "--", "mdash": "--"}
    return known.get(token[1:-1].lower().replace("ſ", "s"), token)


# --- The rules, first to last ----------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """One kind of token.

    example  "text -> tokens", checked by a test
    pattern  what the rule matches; the first group is the token
    write    makes the printed token from the text of the group, before lower-casing
    """

    example: str
    pattern: str
    write: Callable[[str], str] = str


RULES = (
    # Words that are split: contractions and fused words
    Rule("cannot -> can not", f"((?i:{FIRST_OF_TWO}))(?i:{SECOND_OF_TWO})(?!{NAME_PART})"),
    Rule("don't -> do n't", rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*)[nN]{ANY_QUOTE}[tT]", _drop_soft_hyphens),
    Rule("X'll -> x 'll", rf"({DOTTED_WORDS})(?:'|{CURLY}){CLITIC}", _drop_soft_hyphens),
    Rule("n’t -> n't", f"([nN]{ANY_QUOTE}[tT])(?![A-Za-z])", _print_clitic),
    Rule("he'll -> he 'll", "('(?:[sSdDmM](?![A-Za-z])|(?i:ll|re|ve)(?=[^A-Za-z])))"),
    Rule("he’llx -> he 'll x", f"({CURLY}{CLITIC})", _print_clitic),
    # Words, also with a full stop, ! or ? inside
    Rule("soon.Then -> soon.then", f"({DOTTED_WORDS}{FULL_STOP})", _drop_soft_hyphens),
    # Addresses
    Rule("jo@x.com -> jo@x.com", rf"((?:<|&(?i:lt);)?[A-Za-z0-9]{IN_MAIL}*@{MAIL_PART}(?:\.{MAIL_PART})*>?)"),
    Rule("http://x.y/z, -> http://x.y/z", f"((?i:https?)://{IN_URL}+{URL_END})"),
    Rule("www.a+b.de/cd -> www.a+b.de/cd", rf"({WWW}+?[A-Za-z]{{2,4}}{PATH}|{WWW}+[A-Za-z]{{2,4}})"),
    Rule("a+b.com/cd -> a+b.com/cd", rf"({SITE}*?{SITE_END}{PATH}|{SITE}*{SITE_END})"),
    Rule("#tag -> #tag", rf"(#(?:[{LETTER}ˇ\xad]|{ACCENT})+)"),
    Rule("@me -> @me", "(@[A-Za-z_][A-Za-z0-9_]*)"),
    # Abbreviations
    Rule("etc.x -> etc. x", rf"({ABBREVIATION}\.)[\s\S]{{2}}"),
    # At the end of the file the jar reads the full stop of an abbreviation twice
    Rule("etc. -> etc.", rf"({ABBREVIATION})\.", "{}.".format),
    Rule("Mr. x -> mr. x", rf"({TITLE}\.)"),
    Rule("No. 5 -> no. 5", rf"({NUMBER_ABBREVIATION}\.){BLANK}?[{DIGIT}]"),
    # A single letter and a full stop: the stop ends the sentence when a typical first word of a sentence follows
    Rule("vitamin K. The end -> vitamin k the end", rf"([A-Za-z])\.{BLANK}+(?:{FIRST_WORD}|M[rRsS]\.|{TAG}){BLANK}"),
    Rule("5 p.m. -> 5 p.m.", r"([A-Za-z](?:\.[A-Za-z])*\.)"),
    Rule("5.jpg! -> 5.jpg", rf"({NAME_PART}(?:\.{NAME_PART})*\.{_any_case(FILE_EXTENSIONS)})(?:{BLANK}|[!,.?])"),
    # Compounds
    Rule("U.S.-based -> u.s.-based", f"({ASCII_COMPOUND}{FULL_STOP})", _print_compound),
    Rule("T-shirt o'neil 2x -> t-shirt o'neil 2x", f"({COMPOUND}{FULL_STOP})", _print_compound),
    Rule("AT&T -> at&t", f"([A-Z]+(?:(?:&(?i:amp);|&|[+])[A-Z]+)+{FULL_STOP})", _print_compound),
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
    Rule("-3.5 1,000 10:30 -> -3.5 1,000 10:30", rf"([-+]?(?:[.:,٬\xad]?[{DIGIT}])+)", _drop_soft_hyphens),
    Rule(
        "4 1/2 -> 4\xa01/2", rf"((?:[{DIGIT}]{{1,4}}[- \xa0])?[{DIGIT}]{{1,4}}(?:\\?/|⁄)[{DIGIT}]{{1,4}})", _keep_blanks
    ),
    Rule("1/2-2003 -> 1/2-2003", f"([{DIGIT}]{{1,2}}[-/][{DIGIT}]{{1,2}}[-/][{DIGIT}]{{2,4}})"),
    Rule("(555) 123-4567 -> -lrb-555-rrb-\xa0123-4567", f"({AREA}[0-9]{{3,4}}[- \xa0]?[0-9]{{3,5}})", _print_phone),
    Rule("x²³₂ -> x ²³ ₂", "(²+|₂+)"),
    Rule("US$5 -> us$ 5", r"([A-Z]+\$)"),
    # Markup
    Rule('<a b="c d"> -> <a\xa0b="c\xa0d">', f"({TAG})", _keep_blanks),
    Rule("&lt; &#39; -> < &#39;", "(&(?i:amp|lt|gt|quot|apos|nbsp|[nm]dash);|&#[0-9]+;)", _print_entity),
    # Emoticons
    Rule(":-) -> :--rrb-", r"([<>]?[:;=]['*o-]?[()\\\]\[{|@dDpOP])[^A-Za-z0-9]", _print_emoticon),
    Rule("^_^ x_x -> ^_^ x_x", rf"((?:-|{EYES})_(?:-|{EYES})|[xX]_[xX]|[oO]\.[oO])"),
    Rule("(^_^) -> -lrb-^_^-rrb-", rf"(\((?:(?:-|{EYES})[_.]?(?:-|{EYES})|{EYES}-{EYES})\))", _print_emoticon),
    # Punctuation and signs
    Rule("-lrb- x -RSB- -> -lrb- x -rsb-", "(-(?i:[lr][rcs]b)-)"),  # brackets that another tool has escaped
    Rule("C++ F# -> c++ f#", r"([cC]\+\+|[cCfF]#)"),
    Rule("What?! -> what ?!", "([!?]+)"),
    Rule("x . . .5 -> x 5", r"(\.{3,5}|\.(?:[ \xa0]\.){2,4})", lambda token: "..."),
    Rule("x---5 -> x 5", "(-{2,4})", lambda token: "--"),
    Rule("----- -> -----", "(-{5,})"),
    Rule("‘“ -> ```", "([‘’“”„‹›`]{1,2})", print_signs),
    Rule("x'' ** -> x **", r"(''|``|<<|>>|\*\*+|##+|@@+|__+|(?:\\\*)+)"),
)
