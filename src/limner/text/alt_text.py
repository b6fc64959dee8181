"""A caption as alternative text for screen readers: one sentence, no "image of", a capital, a full stop, not too long.

The rules are those that the W3C's tutorial on images and WebAIM agree on: a screen reader says "image" by itself, reads
a full stop as a pause, and tires its listener beyond about 125 characters.
"""

import re

MAX_CHARS = 125
EDGES = " .,;:!?-"
MEDIUM = r"(?:images?|pictures?|photos?|photographs?|videos?|clips?|close ?-?ups?|shots?|views?)"
OPENINGS = re.compile(  # "a black and white photo of", "this picture shows", "in the video"
    rf"^(?:(?:an?|the|this|these|some)\s+)?(?:\w+\s+){{0,3}}?{MEDIUM}\s+"
    r"(?:of|shows?|showing|depicts?|depicting|with|containing|that shows|in which)\s+"
    rf"|^in (?:an?|the|this)\s+{MEDIUM}\s*,?\s+(?:there (?:is|are)\s+)?|^there (?:is|are)\s+",
    re.IGNORECASE,
)
LOOSE = frozenset(
    "a an the and or but with of in on at to by for from near next behind while that which as his her".split()
)


def alt_text(caption: str, max_chars: int = MAX_CHARS) -> str:
    """One sentence of at most `max_chars` characters, its full stop included; empty when the caption has no word.

    Too long a caption is cut between words, and what its new end leaves hanging ("with a") goes too.  Raises ValueError
    when `max_chars` is too small for a word.
    """
    if max_chars < 10:
        raise ValueError(f"max_chars is {max_chars}; a sentence needs 10 characters or more")
    text = re.split(r"(?<=[.!?])\s", " ".join(caption.split()).lstrip(EDGES), maxsplit=1)[0]
    while (shorter := OPENINGS.sub("", text, count=1)) != text and shorter:
        text = shorter
    text = re.sub(r"\s+([,.;:!?%)\]])", r"\1", text)
    text = re.sub(r"\s+(n't|'(?:s|re|ll|ve|d|m))\b", r"\1", text)  # PTB tokens put together again
    text = text.strip(EDGES)
    if len(text) + 1 > max_chars:
        text = _cut(text, max_chars - 1)
    capital = text[:1].upper()
    return f"{capital if len(capital) == 1 else text[0]}{text[1:]}." if text else ""  # "ß" has no capital of one letter


def _cut(text: str, length: int) -> str:
    words = text[: length + 1].rsplit(" ", 1)[0].split() if " " in text[: length + 1] else [text[:length]]
    while len(words) > 1 and words[-1].lower().strip(",;:") in LOOSE:
        words.pop()
    return " ".join(words).rstrip(EDGES)
