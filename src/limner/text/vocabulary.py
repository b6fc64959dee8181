"""Word vocabulary: built from training captions, encodes and decodes, saved as JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limner.core.files import read_json, write_json
from limner.core.torch_free import BOS, EOS, PAD, UNK
from limner.text.tokens import tokenizer

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """`words[i]` is the word with id i; ids 0-3 are PAD, BOS, EOS, UNK."""

    words: tuple[str, ...]
    tokenizer: str = "simple"
    min_count: int = 1

    def __post_init__(self) -> None:
        tokenizer(self.tokenizer)
        if self.words[:4] != SPECIALS:
            raise ValueError(f"a vocabulary begins with {SPECIALS}, got {self.words[:4]}")
        if len(set(self.words)) != len(self.words):
            twice = [word for word, count in Counter(self.words).items() if count > 1]
            raise ValueError(f"words stand twice in the vocabulary: {twice[:5]}")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5, tokenizer_name: str = "simple") -> "Vocabulary":
        """Keep words with count >= `min_count` in `captions` (give the training split only), commonest first.

        Raises ValueError when no word is left.
        """
        if min_count < 1:
            raise ValueError(f"min_count is the smallest count that keeps a word, at least 1; got {min_count}")
        split = tokenizer(tokenizer_name)
        counts = Counter(word for caption in captions for word in split([caption])[0].split())
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        kept = [word for word in kept if word not in SPECIALS]
        if not kept:
            raise ValueError(
                f"none of {len(counts)} different words occurs at least {min_count} times; "
                "lower min_count or give more captions"
            )
        return cls((*SPECIALS, *kept), tokenizer_name, min_count)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def tokenize(self, caption: str) -> list[str]:
        return tokenizer(self.tokenizer)([caption])[0].split()

    def spell(self, text: str) -> list[tuple[str, ...]]:
        """The words of a text, each in the pieces that say it: here in one, itself."""
        if self.ids.get(text, UNK) > UNK:  # whatever the tokenizer makes of it, such as "a.m."
            return [(text,)]
        return [(word,) for word in self.tokenize(text)]

    def encode(self, caption: str, max_words: int | None = None) -> list[int]:
        """BOS w1 .. wn EOS; unknown words become UNK; n is cut at `max_words`."""
        words = self.tokenize(caption)[:max_words]
        return [BOS, *(max(UNK, self.ids.get(word, UNK)) for word in words), EOS]  # a written "<eos>" is no end

    def decode(self, ids: Sequence[int]) -> str:
        """Words up to the first EOS joined by blanks, without special tokens (an unknown word reads as `unk`)."""
        words = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append("unk" if i == UNK else self.words[i])
        return " ".join(words)

    def save(self, path: str | Path) -> None:
        write_json(path, {"tokenizer": self.tokenizer, "min_count": self.min_count, "words": self.words}, indent=None)

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        saved = read_json(path)
        try:
            if "merges" in saved:  # pieces of words
                from limner.text.clip_bpe import ClipVocabulary

                return ClipVocabulary.restore(saved)
            return cls(tuple(saved["words"]), saved["tokenizer"], saved["min_count"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a vocabulary: expected words, tokenizer and min_count ({error})"
            ) from error
