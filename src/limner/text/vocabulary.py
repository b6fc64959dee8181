"""Word vocabulary: it is built from training captions, it encodes and decodes captions, and it is saved as JSON.

`text/load.py` reads a saved vocabulary; `text/clip_bpe.py` has the vocabulary of CLIP's byte pairs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from limner.core.files import write_json
from limner.core.torch_free import BOS, EOS, PAD, UNK
from limner.text.scripts import join_characters
from limner.text.tokens import get_tokenizer

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """A list of words: `words[i]` is the word with id i.  Ids 0 to 3 are PAD, BOS, EOS and UNK.

    words      the special tokens, then all other words
    tokenizer  name of the tokenizer that splits captions into words (see `text.tokens.TOKENIZERS`)
    min_count  how often a word occurred at least in the captions from which the vocabulary was built

    Raises ValueError for words that do not begin with the special tokens, for duplicates, and for an unknown tokenizer.

    >>> vocabulary = Vocabulary.build(["a dog runs", "a dog"], min_count=2)
    >>> vocabulary.words
    ('<pad>', '<bos>', '<eos>', '<unk>', 'a', 'dog')
    >>> vocabulary.encode("A dog sleeps.")
    [1, 4, 5, 3, 2]
    >>> vocabulary.decode([1, 4, 5, 3, 2])
    'a dog unk'
    """

    words: tuple[str, ...]
    tokenizer: str = "simple"
    min_count: int = 1

    def __post_init__(self) -> None:
        get_tokenizer(self.tokenizer)
        if self.words[:4] != SPECIALS:
            raise ValueError(f"a vocabulary begins with {SPECIALS}, got {self.words[:4]}")
        if len(set(self.words)) != len(self.words):
            duplicates = [word for word, count in Counter(self.words).items() if count > 1]
            raise ValueError(f"the vocabulary has duplicate words: {duplicates[:5]}; each word must occur once")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5, tokenizer_name: str = "simple") -> "Vocabulary":
        """The words that occur at least `min_count` times in `captions`, the most frequent first.

        Words of equal count are in alphabetical order.  Give the captions of the training split only.  Raises
        ValueError when no word is left, or for a `min_count` below 1.
        """
        if min_count < 1:
            raise ValueError(f"min_count is the smallest count that keeps a word, at least 1; got {min_count}")
        tokenize = get_tokenizer(tokenizer_name)
        counts = Counter(word for caption in captions for word in tokenize([caption])[0].split())
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        kept = [word for word in kept if word not in SPECIALS]
        if not kept:
            raise ValueError(
                f"none of {len(counts)} different words occurs at least {min_count} times; "
                "lower min_count or give more captions"
            )
        return cls((*SPECIALS, *kept), tokenizer_name, min_count)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Vocabulary":
        """A vocabulary from the JSON object that `save` writes.  Raises KeyError or TypeError for another object."""
        return cls(tuple(saved["words"]), saved["tokenizer"], saved["min_count"])

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}

    def tokenize(self, caption: str) -> list[str]:
        """The tokens of a caption; words that the vocabulary lacks are among them."""
        return get_tokenizer(self.tokenizer)([caption])[0].split()

    def word_pieces(self, text: str) -> list[tuple[str, ...]]:
        """The words of a text, each as a tuple of its tokens.  Here a word is one token.

        A text that is itself a word of the vocabulary, for example "a.m.", is not split by the tokenizer.
        """
        if self.ids.get(text, UNK) > UNK:
            return [(text,)]
        return [(word,) for word in self.tokenize(text)]

    def encode(self, caption: str, max_words: int | None = None) -> list[int]:
        """BOS w1 .. wn EOS.  Unknown words become UNK; n is at most `max_words`."""
        words = self.tokenize(caption)[:max_words]
        return [BOS, *(max(UNK, self.ids.get(word, UNK)) for word in words), EOS]  # the text "<eos>" becomes UNK

    def decode(self, ids: Sequence[int]) -> str:
        """The words before the first EOS, joined as `join` does.  PAD and BOS are left out; UNK is written as `unk`."""
        words = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append("unk" if i == UNK else self.words[i])
        return self.join(words)

    def join(self, words: Iterable[str]) -> str:
        """The text of words: joined by blanks, in a vocabulary of characters by nothing where the script has none."""
        return join_characters(words, self.tokenizer)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON; `text.load.load_vocabulary` reads it."""
        write_json(path, {"tokenizer": self.tokenizer, "min_count": self.min_count, "words": self.words}, indent=None)
