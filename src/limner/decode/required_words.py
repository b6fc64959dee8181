"""Words that a caption must contain: entries of `Beam.must`, each a word or alternatives, `orange|white`."""

from collections.abc import Sequence
from typing import cast

from limner.decode.rules import spell_words
from limner.text.vocabulary import Vocabulary

# entries as a recipe gives them, "dog" or "orange|white"; after `bind_required` the id of a word, or those of
# alternatives
RequiredWords = tuple[str, ...] | tuple[int | tuple[int, ...], ...]


def alternatives(entry: str) -> list[str]:
    """The alternatives of an entry; "|" alone is a word.

    >>> alternatives("orange | white"), alternatives("dog"), alternatives("|")
    (['orange', 'white'], ['dog'], ['|'])
    """
    return [part.strip() for part in entry.split("|") if part.strip()] or [entry]


def missing_alternatives(required: RequiredWords, vocabulary: Vocabulary) -> list[str]:
    """The alternatives that the vocabulary lacks, of entries that have several."""
    entries = [alternatives(entry) for entry in required if isinstance(entry, str)]
    words = [word for entry in entries if len(entry) > 1 for word in entry]
    return [word for word in dict.fromkeys(words) if spell_words(word, vocabulary)[0] not in vocabulary.ids]


def bind_required(required: RequiredWords, vocabulary: Vocabulary, never: Sequence[int]) -> RequiredWords:
    """The same entries with words as ids, without duplicates.

    An entry of several words ("a dog") is an entry for each.  Alternatives that the vocabulary lacks are left out.
    Raises ValueError for a word, and for alternatives, of which the vocabulary has none; for those that are all in
    `never`; for an alternative of several words; and for a word of several pieces.
    """
    entries: list[tuple[int, ...]] = []
    unknown: list[str] = []
    for entry in required:
        if not isinstance(entry, str):
            entries.append((entry,) if isinstance(entry, int) else entry)
            continue
        for words in _spelt(entry, vocabulary):
            ids = tuple(dict.fromkeys(vocabulary.ids[word] for word in words if word in vocabulary.ids))
            entries += [ids] if ids else []
            unknown += [] if ids else [" or ".join(map(repr, words))]
    if unknown:
        raise ValueError(f"the vocabulary has no {', '.join(dict.fromkeys(unknown))}, which must appear")
    if both := [ids for ids in dict.fromkeys(entries) if set(ids) <= set(never)]:
        words_of = [" or ".join(repr(vocabulary.words[id]) for id in ids) for ids in both]
        raise ValueError(f"{', '.join(words_of)} must appear and must never appear")
    return tuple(ids[0] if len(ids) == 1 else ids for ids in dict.fromkeys(entries))


def required_ids(required: RequiredWords) -> list[tuple[int, ...]]:
    """The alternatives of each entry, which must have been bound to a vocabulary."""
    assert not any(isinstance(entry, str) for entry in required), "words are bound to a vocabulary first: Beam.bind"
    bound = cast("tuple[int | tuple[int, ...], ...]", required)
    return [(entry,) if isinstance(entry, int) else entry for entry in bound]


def _spelt(entry: str, vocabulary: Vocabulary) -> list[list[str]]:
    """The alternatives of each word of an entry, as the vocabulary spells them."""
    if len(parts := alternatives(entry)) == 1:
        return [[word] for word in spell_words(parts[0], vocabulary)]
    spelt = [spell_words(part, vocabulary) for part in parts]
    if several := [part for part, words in zip(parts, spelt, strict=True) if len(words) > 1]:
        raise ValueError(
            f"{several[0]!r} is {len(spell_words(several[0], vocabulary))} words, and each of the alternatives in "
            f"{entry!r} is a single word: give one word of it"
        )
    return [[word for (word,) in spelt]]
