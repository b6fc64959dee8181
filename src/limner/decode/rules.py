"""Rules about what a caption may not say; `decode.forbid` applies them to scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from limner.text.vocabulary import Vocabulary

# a caption that ends with one of these was cut off: articles, prepositions, conjunctions, forms of "be"
ENDINGS = (
    *(
        "a",
        "an",
        "the",
        "this",
        "his",
        "her",
        "its",
        "their",
        "some",
        "and",
        "or",
        "but",
        "while",
        "that",
        "which",
        "who",
    ),
    *("of", "in", "on", "at", "to", "for", "from", "with", "by", "into", "onto", "over", "under", "near", "behind"),
    *("beside", "between", "through", "across", "along", "around", "as", "is", "are", "was", "were", "am", "be"),
)

Words = tuple[str, ...] | tuple[int, ...]  # ids after `Rules.bind`


@dataclass(frozen=True)
class Rules:
    """What a caption may not do.  Rules about particular words know their ids after `bind`."""

    min_length: int = 1  # words before EOS is allowed
    max_length: int = 20  # tokens, EOS included; a longer caption stays unfinished
    no_repeat: bool = True  # the same word twice in a row
    unknown: bool = False  # may the unknown word be spoken?
    no_trigram: bool = False  # the same three words in a row twice (Paulus et al. 2018, arXiv:1705.04304)
    not_last: Words = ()  # words that may not be the last one, such as ENDINGS
    never: Words = ()  # words that may not appear

    def __post_init__(self) -> None:
        if not 0 <= self.min_length < self.max_length:
            raise ValueError(f"expected 0 <= min_length < max_length, got {self.min_length} and {self.max_length}")

    def bind(self, vocabulary: Vocabulary) -> "Rules":
        """The same with words as ids; what is not in the vocabulary is never said anyway."""
        return replace(self, not_last=word_ids(self.not_last, vocabulary), never=word_ids(self.never, vocabulary))


def word_ids(words: Sequence[str] | Sequence[int], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids of those words that the vocabulary has."""
    return tuple(i for word in words if (i := word if isinstance(word, int) else vocabulary.ids.get(word)) is not None)


def ids_of(words: Words) -> list[int]:
    """The ids of words that are bound to a vocabulary."""
    ids = [word for word in words if isinstance(word, int)]
    assert len(ids) == len(words), "rules about words are bound to a vocabulary first: Rules.bind"
    return ids
