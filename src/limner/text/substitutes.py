"""Known words that stand where a new word stands: from them a trained model's rows of the new word are begun.

Words that occur in the same contexts are similar (Harris 1954, "Distributional Structure").  The context of a word is
the word before it and the word after it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

Context = tuple[str | None, str | None]  # the word before and the word after; "" at an end, None: any word
END = ""


def substitutes(
    captions: Iterable[Sequence[str]], known: Collection[str], new: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return the known words that stand in the places of each new word, with their shares, which sum to 1.

    Every occurrence of a new word gives its share to the known words with the same word before and the same word after,
    in proportion to how often they stand there.  Where none does, one of the two neighbours is enough.  A word without
    any known substitute has no entry.  Captions are lists of words.

    >>> captions = ["a red dog runs", "a red cat runs", "a red dog runs", "a red qubitron runs"]
    >>> shares = substitutes([text.split() for text in captions], {"a", "red", "dog", "cat", "runs"}, ["qubitron"])
    >>> {word: round(share, 2) for word, share in shares["qubitron"].items()}
    {'dog': 0.67, 'cat': 0.33}
    """
    captions, known = list(captions), frozenset(known)
    places = _contexts(captions, frozenset(new))
    wanted = {context for contexts in places.values() for context in contexts}
    by_context: dict[Context, Counter[str]] = defaultdict(Counter)
    for word, contexts in _contexts(captions, known, wanted).items():
        for context, count in contexts.items():
            by_context[context][word] += count
    shares = {word: _shares(contexts, by_context) for word, contexts in places.items()}
    return {word: share for word, share in shares.items() if share}


def _contexts(
    captions: Sequence[Sequence[str]], words: Collection[str], wanted: Collection[Context] | None = None
) -> dict[str, Counter[Context]]:
    """Count the contexts of words: with both neighbours, with the one before, with the one after."""
    found: dict[str, Counter[Context]] = defaultdict(Counter)
    for caption in captions:
        padded = [END, *caption, END]
        for before, word, after in zip(padded, padded[1:], padded[2:], strict=False):
            if word in words:
                contexts: tuple[Context, ...] = (before, after), (before, None), (None, after)
                found[word].update(c for c in contexts if wanted is None or c in wanted)
    return found


def _shares(contexts: Mapping[Context, int], by_context: Mapping[Context, Counter[str]]) -> dict[str, float]:
    """The shares of known words for one new word: from whole contexts, else from half ones."""
    for half in (False, True):
        shares: Counter[str] = Counter()
        for context, count in contexts.items():
            if (None in context) == half and context in by_context:
                total = by_context[context].total()
                for word, times in by_context[context].items():
                    shares[word] += count * times / total  # type: ignore[assignment]
        if shares:
            total = shares.total()
            return {word: share / total for word, share in sorted(shares.items(), key=lambda item: (-item[1], item[0]))}
    return {}
