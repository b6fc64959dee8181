"""Alternative text for screen readers, made from a caption.

The result is one sentence without "image of", with a capital letter, a full stop, and a limited length.  These are the
rules on which the W3C's tutorial on images and WebAIM agree: a screen reader says "image" by itself, it reads a full
stop as a pause, and more than about 125 characters tire the listener.
"""

import re

from limner.text.sentences import first_sentence

MAX_CHARS = 125
EDGE_CHARS = " .,;:!?-"  # removed from both ends
MEDIUM_NOUN = r"(?:images?|pictures?|photos?|photographs?|videos?|clips?|close ?-?ups?|shots?|views?)"
OPENING_PHRASE = re.compile(  # "a black and white photo of", "this picture shows", "in the video"
    rf"^(?:(?:an?|the|this|these|some)\s+)?(?:\w+\s+){{0,3}}?{MEDIUM_NOUN}\s+"
    r"(?:of|shows?|showing|depicts?|depicting|with|containing|that shows|in which)\s+"
    rf"|^in (?:an?|the|this)\s+{MEDIUM_NOUN}\s*,?\s+(?:there (?:is|are)\s+)?|^there (?:is|are)\s+",
    re.IGNORECASE,
)
DANGLING_WORDS = frozenset(  # a shortened sentence does not end with one of these
    "a an the and or but with of in on at to by for from near next behind while that which as his her".split()
)


def alt_text(caption: str, max_chars: int = MAX_CHARS) -> str:
    """A caption as one sentence of at most `max_chars` characters, its full stop included.

    An empty string is returned for a caption without words.  A caption that is too long is cut between two words, and
    words that cannot end a sentence ("with a") are removed from the new end.  Raises ValueError when `max_chars` is
    below 10.

    >>> alt_text("a photo of a dog running through the grass")
    'A dog running through the grass.'
    >>> alt_text("a man in a white shirt is standing in front of a crowd", max_chars=40)
    'A man in a white shirt is standing.'
    """
    if max_chars < 10:
        raise ValueError(f"max_chars is {max_chars}; a sentence needs 10 characters or more")
    text = first_sentence(" ".join(caption.split()).lstrip(EDGE_CHARS))
    while (shorter := OPENING_PHRASE.sub("", text, count=1)) != text and shorter:
        text = shorter
    text = re.sub(r"\s+([,.;:!?%)\]])", r"\1", text)
    text = re.sub(r"\s+(n't|'(?:s|re|ll|ve|d|m))\b", r"\1", text)  # joins PTB tokens: "does n't" -> "doesn't"
    text = text.strip(EDGE_CHARS)
    if len(text) + 1 > max_chars:
        text = _truncate(text, max_chars - 1)
    capital = text[:1].upper()
    return f"{capital if len(capital) == 1 else text[0]}{text[1:]}." if text else ""  # "ß" has no capital of one letter


def _truncate(text: str, length: int) -> str:
    """The first words of a text, at most `length` characters, without dangling words at the end."""
    words = text[: length + 1].rsplit(" ", 1)[0].split() if " " in text[: length + 1] else [text[:length]]
    while len(words) > 1 and words[-1].lower().strip(",;:") in DANGLING_WORDS:
        words.pop()
    return " ".join(words).rstrip(EDGE_CHARS)
