"""Faults of the captions of a data set: those of single captions, and captions that are repeated."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from limner.core.torch_free import Medium
from limner.data.checks.findings import Finding
from limner.text.caption_faults import CaptionRules, caption_faults

WIDESPREAD, WIDESPREAD_SHARE = 10, 0.01  # a caption is widespread at so many media, and at this share of all of them
_NO_WORD = re.compile(r"[^\w]+")
_DIGITS = re.compile(r"\d+")


def caption_key(text: str) -> str:
    """What two captions have in common that say the same: their words in small letters, without punctuation.

    >>> caption_key("A dog, running."), caption_key("a dog  running")
    ('a dog running', 'a dog running')
    """
    return _NO_WORD.sub(" ", text.casefold()).strip()


def caption_findings(media: Sequence[Medium], rules: CaptionRules) -> Iterator[Finding]:
    """The faults of all captions, in the order of the media."""
    counts = Counter(key for medium in media for key in {_numberless(text) for text in medium.references})
    most = max(WIDESPREAD, WIDESPREAD_SHARE * len(media))
    widespread = {key: count for key, count in counts.items() if count >= most}
    for medium in media:
        seen: set[str] = set()
        for text in medium.references:
            for kind, detail in caption_faults(text, rules):
                yield Finding(kind, (medium.id,), detail, text)
            if (key := caption_key(text)) in seen:
                yield Finding("repeated", (medium.id,), "the same words again", text)
            seen.add(key)
            if count := widespread.get(_numberless(text)):
                yield Finding("widespread", (medium.id,), f"at {count:,} files, numbers apart", text)


def _numberless(text: str) -> int:
    """A number of 64 bits that captions have in common which say the same but for numbers: "Photo 1", "photo 2"."""
    key = _DIGITS.sub("0", caption_key(text))
    return int.from_bytes(hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest(), "big")


def equal_captions(media: Iterable[Medium]) -> list[tuple[str, ...]]:
    """The groups of ids of media that have the same captions, two different ones at least.

    One common caption is no sign of one picture: many people write "a dog runs".

    >>> media = [Medium(id, "", references=("A dog.", "It runs.")) for id in "ab"]
    >>> media.append(Medium("c", "", references=("A dog.",)))
    >>> equal_captions(media)
    [('a', 'b')]
    """
    groups: dict[bytes, list[str]] = {}
    for medium in media:
        keys = sorted({caption_key(text) for text in medium.references})
        if len(keys) > 1:
            digest = hashlib.sha256("\n".join(keys).encode(errors="replace")).digest()
            groups.setdefault(digest, []).append(medium.id)
    return [tuple(ids) for ids in groups.values() if len(ids) > 1]
