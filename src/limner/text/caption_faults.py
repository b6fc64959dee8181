"""Faults that a single caption shows: too short or long, another language, a wrong encoding, text of a template.

The rules are plain and are few, so that a finding can be explained.  What they do not notice is not said to be right.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from limner.text.language import FUNCTION_WORDS, language_of, other_language
from limner.text.refusals import is_refusal
from limner.text.scripts import characters, foreign_script, has_no_blanks

SAMPLE = 2000  # captions from which the usual language and script are found out
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_CONTROLS = re.compile("[\x80-\x9f\ufffd]")  # of no text, but of one that was decoded wrongly

# What a refusal of a program talks of; "we cannot see the face of the girl" was written by a person
_TALKS_OF_PICTURES = re.compile(
    r"\b(?:images?|pictures?|photos?|videos?|help|assist|describe|sorry|ai|language model)\b", re.IGNORECASE
)

# What programs leave in captions, and not people
TEMPLATES = {
    "markup": re.compile(r"</?[a-z!][^<>]*>|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,5});", re.IGNORECASE),
    "a placeholder": re.compile(
        r"\{\{?\s*\w+\s*\}?\}|\$\{\w+\}|"
        r"\[(?:image|photo|picture|caption|insert|name|object|todo)\b[^\]]*\]|lorem ipsum",
        re.IGNORECASE,
    ),
    "an address": re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE),
    "a file name": re.compile(
        r"\b[\w-]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|mp4|avi|mov)\b|"
        r"^\W*(?:img|dsc[fn]?|pict?|mvi|image|photo|picture|screenshot|untitled)[ _-]*\d+\W*$",
        re.IGNORECASE,
    ),
    "a word for no caption": re.compile(
        r"^\W*(?:none|null|nan|n/?a|todo|tbd|untitled|unknown|test|dummy|placeholder|no (?:caption|description|text)|"
        r"(?:the |an? )?(?:image|photo|picture|caption|description|alt(?:ernative)? text)(?: here)?)\W*$",
        re.IGNORECASE,
    ),
}


@dataclass(frozen=True)
class CaptionRules:
    """What captions should be like.

    min_words, max_words  of a caption; in scripts without blanks, two characters count as a word
    language              as in `FUNCTION_WORDS`; "": captions are not judged by their words
    reference             a text in the script that captions should have; "": not judged by their script
    """

    min_words: int = 3
    max_words: int = 30
    language: str = ""
    reference: str = ""


def rules_for(captions: Iterable[str], language: str = "", min_words: int = 3, max_words: int = 30) -> CaptionRules:
    """The rules for a data set: its language and script are those of most of its captions.

    A `language` that is given is expected in place of the usual one.

    >>> rules_for(["ein Hund auf einem Sofa", "eine Katze auf dem Dach"]).language
    'de'
    """
    sample = list(islice(captions, SAMPLE))
    expected = language or language_of(sample)
    if language in FUNCTION_WORDS:
        return CaptionRules(min_words, max_words, expected, FUNCTION_WORDS[language])
    scripts = Counter(_script(text) for text in sample)
    usual = max(scripts, key=lambda script: scripts[script], default="")
    reference = next((text for text in sample if usual and _script(text) == usual), "")
    return CaptionRules(min_words, max_words, expected, reference)


def _script(text: str) -> str:
    """The script of most letters, by the names of Unicode; "" without letters."""
    names = Counter(unicodedata.name(char, "?").partition(" ")[0] for char in text if char.isalpha())
    return names.most_common(1)[0][0] if names else ""


def caption_faults(text: str, rules: CaptionRules) -> Iterator[tuple[str, str]]:
    """(kind, what is wrong) of every fault of a caption.

    The kinds are short, long, language, encoding and template.

    >>> list(caption_faults("dog", CaptionRules()))
    [('short', '1 word')]
    >>> [kind for kind, _ in caption_faults("ein Hund auf einem Sofa", CaptionRules(language="en"))]
    ['language']
    >>> list(caption_faults("a cafÃ© in the old town", CaptionRules()))
    [('encoding', 'wrong encoding: it may be "a café in the old town"')]
    """
    count = len(characters(text)) // 2 if has_no_blanks(text) else len(text.split())
    if count < rules.min_words:
        yield "short", f"{count} word{'' if count == 1 else 's'}"
    if count > rules.max_words:
        yield "long", f"{count} words"
    if script := foreign_script(text, rules.reference) if rules.reference else "":
        yield "language", f"in {script} letters"
    elif rules.language and (other := other_language(text, rules.language)):
        yield "language", f"in {other}, the others in {rules.language}"
    if is_wrongly_decoded(text):
        better = repair_encoding(text)
        yield "encoding", f'wrong encoding: it may be "{better}"' if better else "wrong encoding: letters are lost"
    if is_refusal(text) and _TALKS_OF_PICTURES.search(text):
        yield "template", "a refusal in place of a caption"
    for what, pattern in TEMPLATES.items():
        if pattern.search(text):
            yield "template", f"{what} in it" if what != "a word for no caption" else what
            break


def is_wrongly_decoded(text: str) -> bool:
    """Whether a text has U+FFFD or a C1 control, or letters that are UTF-8 read as Windows-1252 ("Ã©" for "é").

    A run of letters beyond ASCII is such a misreading when its bytes in Windows-1252 are valid UTF-8.  Text that is
    right is hardly ever so: "é" alone is the byte E9, which begins a character of three bytes.

    >>> [is_wrongly_decoded(text) for text in ("cafÃ©", "it\u00e2\u20ac\u2122s", "café", "une fête à Noël", "你好")]
    [True, True, False, False, False]
    """
    return bool(_CONTROLS.search(text)) or _decoded(text) != text


def repair_encoding(text: str) -> str:
    """The text with UTF-8 in the place of its misreading as Windows-1252; "" when letters are lost.

    >>> repair_encoding("a cafÃ©"), repair_encoding("a caf\ufffd")
    ('a café', '')
    """
    repaired = _decoded(text)
    return "" if _CONTROLS.search(repaired) or repaired == text else repaired


def _decoded(text: str) -> str:
    return _NOT_ASCII.sub(lambda run: _decoded_run(run[0]), text)


def _decoded_run(run: str) -> str:
    try:
        return b"".join(_byte(char) for char in run).decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return run


def _byte(char: str) -> bytes:
    """A character in Windows-1252, whose five unused bytes are C1 controls."""
    return char.encode("latin-1") if "\x80" <= char <= "\x9f" else char.encode("cp1252")
