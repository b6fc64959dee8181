"""Rules about what a caption may not say; `decode.apply_rules` applies them to scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

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

RuleWords = tuple[str, ...] | tuple[int, ...]  # ids after `Rules.bind`


def _common_endings(value: Any) -> Any:
    """Recipes write `bad_endings: common` for ENDINGS."""
    return ENDINGS if value == "common" else value


BadEndings = Annotated[
    RuleWords, BeforeValidator(_common_endings, json_schema_input_type=RuleWords | Literal["common"])
]


@dataclass(frozen=True)
class Rules:
    """What a caption may not do.  Rules about particular words know their ids after `bind`."""

    min_length: int = 1  # words before EOS is allowed
    max_length: int = 20  # tokens, EOS included; a longer caption stays unfinished
    no_repeat_word: bool = True  # the same word twice in a row
    allow_unknown: bool = False  # may the unknown word be spoken?
    no_repeat_trigram: bool = False  # the same three words in a row twice (Paulus et al. 2018, arXiv:1705.04304)
    bad_endings: BadEndings = ()  # words that may not be the last one; in recipes also `common`, which means ENDINGS
    never: RuleWords = ()  # words that may not appear

    def __post_init__(self) -> None:
        if not 0 <= self.min_length < self.max_length:
            raise ValueError(
                f"expected 0 <= min_length < max_length, got min_length {self.min_length}, max_length {self.max_length}"
            )

    def bind(self, vocabulary: Vocabulary) -> "Rules":
        """The same with words as ids; what is not in the vocabulary is never said anyway (`missing_words` names it).

        Raises ValueError for words that may not appear but cannot be forbidden: those of several pieces.
        """
        never = [entry if isinstance(entry, int) else spell_one_word(entry, vocabulary) for entry in self.never]
        return replace(self, bad_endings=_ending_ids(self.bad_endings, vocabulary), never=word_ids(never, vocabulary))


def spell_words(entry: str, vocabulary: Vocabulary) -> list[str]:
    """The words of `entry` as the vocabulary writes them, whether it has them or not.

    Raises ValueError for a word that is said in several pieces.
    """
    words = vocabulary.word_pieces(entry) or [(entry,)]  # punctuation alone
    for pieces in words:
        if len(pieces) > 1:
            raise ValueError(
                f"{entry!r} is said in {len(pieces)} pieces ({', '.join(pieces)}), which other words have too; only a "
                "word of one piece can be required or forbidden: give another, or leave it out"
            )
    return [piece for (piece,) in words]


def spell_one_word(entry: str, vocabulary: Vocabulary) -> str:
    """The word `entry`, as the vocabulary writes it.  Raises ValueError when it is several."""
    words = spell_words(entry, vocabulary)
    if len(words) > 1:
        raise ValueError(
            f"{entry!r} is {len(words)} words ({', '.join(words)}), and only single words can be forbidden: give one "
            "of them, or each as an entry of its own"
        )
    return words[0]


def missing_words(words: RuleWords, vocabulary: Vocabulary) -> list[str]:
    """Those entries that the vocabulary has no word for, so that it never says them."""
    return [word for word in words if isinstance(word, str) and spell_one_word(word, vocabulary) not in vocabulary.ids]


def word_ids(words: Sequence[str | int], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids of those words that the vocabulary has; ids stay."""
    return tuple(i for word in words if (i := word if isinstance(word, int) else vocabulary.ids.get(word)) is not None)


def _ending_ids(words: RuleWords, vocabulary: Vocabulary) -> tuple[int, ...]:
    """As `word_ids`, without what is said in several pieces: in CLIP's vocabulary each of ENDINGS is one."""
    spelt = [[(word,)] if isinstance(word, int) else vocabulary.word_pieces(word) for word in words]
    return word_ids([said[0][0] for said in spelt if len(said) == 1 and len(said[0]) == 1], vocabulary)


def bound_ids(words: RuleWords) -> list[int]:
    """The ids of words that are bound to a vocabulary."""
    ids = [word for word in words if isinstance(word, int)]
    assert len(ids) == len(words), "rules about words are bound to a vocabulary first: Rules.bind"
    return ids
