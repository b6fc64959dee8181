"""Rules about words that a caption may not contain; `decode.logits.apply_rules` applies them to scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from limner.text.vocabulary import Vocabulary

# articles, prepositions, conjunctions and forms of "be": a caption that ends with one of them is usually cut off
# fmt: off
ENDINGS = (
    "a", "an", "the", "this", "his", "her", "its", "their", "some", "and", "or", "but", "while", "that", "which", "who",
    "of", "in", "on", "at", "to", "for", "from", "with", "by", "into", "onto", "over", "under", "near", "behind",
    "beside", "between", "through", "across", "along", "around", "as", "is", "are", "was", "were", "am", "be",
)
# fmt: on

RuleWords = tuple[str, ...] | tuple[int, ...]  # words as a recipe gives them; ids after `Rules.bind`


def _common_endings(value: Any) -> Any:
    """Recipes write `bad_endings: common` for ENDINGS."""
    return ENDINGS if value == "common" else value


BadEndings = Annotated[
    RuleWords, BeforeValidator(_common_endings, json_schema_input_type=RuleWords | Literal["common"])
]


@dataclass(frozen=True)
class Rules:
    """What a caption may not contain.  Words become ids by `bind`, before a search uses the rules."""

    min_length: int = 1  # words before EOS is allowed
    max_length: int = 20  # tokens, EOS included; a caption that reaches it without EOS is unfinished
    no_repeat_word: bool = True  # the same word twice in a row
    allow_unknown: bool = False  # True: the unknown word may appear
    no_repeat_trigram: bool = False  # the same three words in a row twice (Paulus et al. 2018, arXiv:1705.04304)
    bad_endings: BadEndings = ()  # words that may not be the last one; in recipes also `common`, which means ENDINGS
    never: RuleWords = ()  # words that may not appear

    def __post_init__(self) -> None:
        if not 0 <= self.min_length < self.max_length:
            raise ValueError(
                f"expected 0 <= min_length < max_length, got min_length {self.min_length}, max_length {self.max_length}"
            )

    def bind(self, vocabulary: Vocabulary) -> "Rules":
        """The same rules with words as ids.

        Words that the vocabulary lacks are left out: no caption can contain them (`missing_words` lists them).
        Raises ValueError for a forbidden word of several pieces, because other words contain the same pieces.
        """
        never = [entry if isinstance(entry, int) else spell_one_word(entry, vocabulary) for entry in self.never]
        return replace(self, bad_endings=_ending_ids(self.bad_endings, vocabulary), never=word_ids(never, vocabulary))


def spell_words(entry: str, vocabulary: Vocabulary) -> list[str]:
    """Split `entry` into words, each spelt as the vocabulary spells it, also when the vocabulary lacks it.

    Raises ValueError for a word of several pieces (byte pairs).
    """
    words = vocabulary.word_pieces(entry) or [(entry,)]  # punctuation alone
    for pieces in words:
        if len(pieces) > 1:
            raise ValueError(
                f"{entry!r} is written in {len(pieces)} pieces ({', '.join(pieces)}), which other words have too; only "
                "a word of one piece can be required or forbidden: give another word, or leave it out"
            )
    return [piece for (piece,) in words]


def spell_one_word(entry: str, vocabulary: Vocabulary) -> str:
    """`entry` spelt as the vocabulary spells it.  Raises ValueError when it consists of several words or pieces."""
    words = spell_words(entry, vocabulary)
    if len(words) > 1:
        raise ValueError(
            f"{entry!r} is {len(words)} words ({', '.join(words)}), and only single words can be forbidden: give one "
            "of them, or each as an entry of its own"
        )
    return words[0]


def missing_words(words: RuleWords, vocabulary: Vocabulary) -> list[str]:
    """The entries of `words` that the vocabulary lacks, so no caption can contain them."""
    return [word for word in words if isinstance(word, str) and spell_one_word(word, vocabulary) not in vocabulary.ids]


def word_ids(words: Sequence[str | int], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids of the words that the vocabulary has; entries that are ids already stay as they are."""
    return tuple(i for word in words if (i := word if isinstance(word, int) else vocabulary.ids.get(word)) is not None)


def _ending_ids(words: RuleWords, vocabulary: Vocabulary) -> tuple[int, ...]:
    """As `word_ids`, but leave out words of several pieces.  Each of ENDINGS is a single piece in CLIP's vocabulary."""
    spelt = [[(word,)] if isinstance(word, int) else vocabulary.word_pieces(word) for word in words]
    return word_ids([entry[0][0] for entry in spelt if len(entry) == 1 and len(entry[0]) == 1], vocabulary)


def bound_ids(words: RuleWords) -> list[int]:
    """The ids of `words`, which must have been bound to a vocabulary."""
    ids = [word for word in words if isinstance(word, int)]
    assert len(ids) == len(words), "rules about words are bound to a vocabulary first: Rules.bind"
    return ids
