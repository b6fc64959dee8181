"""The first sentence of what a language model answers, without what it says before it ("Sure! Here is a caption:")."""

import re

ABBREVIATIONS = frozenset(  # a full stop after one of these does not end a sentence
    "mr mrs ms dr st prof jr sr vs etc e.g i.e no approx fig u.s u.k ft mt".split()
)
PREAMBLE = re.compile(  # conversational openings, then "Here is a short caption for the image:", then "Caption:"
    r"^(?:(?:sure|certainly|of course|okay|ok|absolutely|yes)\b(?:\s+thing)?[!.,]\s+)?"
    r"(?:(?:here(?:'s|’s| is| are)|the following is|i see)\b[^.:!?]{0,80}:\s*)?"
    r"(?:(?:image |picture |video |short )?(?:caption|description|answer|alt[- ]?text)\s*:\s*)?",
    re.IGNORECASE,
)
MARKUP = re.compile(r"\*\*|__|`|^\s*(?:#+|[-*•>]|\d{1,2}[.)])\s+")  # emphasis, headings and list marks of Markdown
END = re.compile(r"[.!?]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[」』”]*")
QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»", "「": "」", "‘": "’"}


def first_sentence(text: str) -> str:
    """The first sentence of a text, in one line, without markup, quotes around it, or an opening before it.

    Texts of one sentence stay as they are.

    >>> first_sentence("Sure! Here is a caption:\\n\\n**A dog runs.** It is brown.")
    'A dog runs.'
    >>> first_sentence("Mr. Lee rides a bike at 3.5 km/h. He smiles.")
    'Mr. Lee rides a bike at 3.5 km/h.'
    >>> first_sentence('"two birds in the water"')
    'two birds in the water'
    """
    line = " ".join(" ".join(MARKUP.sub("", part) for part in text.splitlines()).split())
    line = PREAMBLE.sub("", line, count=1) or line
    line = _unquoted(line)
    for match in END.finditer(line):
        word = line[: match.start()].rsplit(" ", 1)[-1].lower().lstrip("(\"'“")
        initial = len(word) == 1 and word.isalpha() and word not in "ai"
        if match[0] == "." and (word in ABBREVIATIONS or initial) and match.end() < len(line):
            continue
        return _unquoted(line[: match.end()])
    return line


def _unquoted(line: str) -> str:
    """A line without quotes that stand around all of it."""
    closing = QUOTES.get(line[:1])
    inner = line[1:-1]
    around = closing is not None and len(line) > 2 and line.endswith(closing) and closing not in inner
    return inner.strip() if around else line
