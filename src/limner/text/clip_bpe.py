"""CLIP's byte pair encoding as a vocabulary: captions are split into pieces of words, and no word is unknown.

The pieces are those of `vocab.json` and `merges.txt` (openai/CLIP; Radford et al., arXiv:2103.00020, section 2.4).
Lower-cased text is cut into words, the bytes of a word are joined to pieces, and the last piece of a word ends in
`</w>`: "the dog" becomes `the</w>` and `dog</w>`.

The ids are limner's: 0 to 3 are the special tokens, and the piece with CLIP's id k has the id k + 3.  CLIP's last two
ids, its begin and end, become BOS and EOS.  CLIP's id 0, a `!` inside a word, is left out: captioners with this
vocabulary use it for padding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from limner.core.files import read_json, write_json
from limner.core.torch_free import BOS, EOS, PAD, UNK
from limner.text.vocabulary import SPECIALS, Vocabulary

END_OF_WORD = "</w>"
CLIP_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class ClipVocabulary(Vocabulary):
    """A vocabulary of byte pairs, with the methods of `Vocabulary`.

    words   the special tokens, then the pieces
    merges  the pairs of pieces that are joined, "first second" each; an earlier pair is joined before a later one
    """

    tokenizer: str = "split"
    merges: tuple[str, ...] = ()

    @cached_property
    def _byte_pairs(self) -> Any:
        """The tokenizer of the package `tokenizers` that applies the merges."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        pairs = [(first, second) for first, second in (merge.split(" ") for merge in self.merges)]
        known = dict.fromkeys(
            (*self.words[len(SPECIALS) :], *(part for pair in pairs for part in (*pair, "".join(pair))))
        )
        vocabulary = {piece: number for number, piece in enumerate(known)}
        tokenizer = Tokenizer(models.BPE(vocabulary, pairs, end_of_word_suffix=END_OF_WORD))
        steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        tokenizer.normalizer = normalizers.Sequence(steps)
        words = pre_tokenizers.Split(Regex(CLIP_WORD), "removed", invert=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
        return tokenizer

    def tokenize(self, caption: str) -> list[str]:
        """The pieces of a caption.  Text for which CLIP has no piece is left out."""
        return [piece for piece in self._byte_pairs.encode(caption).tokens if piece in self.ids]

    def word_pieces(self, text: str) -> list[tuple[str, ...]]:
        """The words of a text, each as a tuple of its pieces: "riding" may be ("rid", "ing</w>")."""
        words: list[tuple[str, ...]] = []
        pieces: tuple[str, ...] = ()  # of the word that is being read
        for piece in self.tokenize(text):
            pieces = (*pieces, piece)
            if piece.endswith(END_OF_WORD):
                words.append(pieces)
                pieces = ()
        return [*words, pieces] if pieces else words

    def encode(self, caption: str, max_words: int | None = None) -> list[int]:
        """BOS p1 .. pn EOS; n is at most `max_words` pieces."""
        return [BOS, *(self.ids[piece] for piece in self.tokenize(caption)[:max_words]), EOS]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the pieces before the first EOS.  Bytes that are no UTF-8 become the replacement character."""
        from tokenizers import decoders

        before_end = list(ids)[: list(ids).index(EOS)] if EOS in ids else list(ids)
        pieces = [self.words[i] for i in before_end if i not in (PAD, BOS, UNK)]
        return " ".join(decoders.ByteLevel().decode(pieces).replace(END_OF_WORD, " ").split())

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON; `text.load.load_vocabulary` reads it."""
        saved = {"tokenizer": self.tokenizer, "min_count": self.min_count, "words": self.words, "merges": self.merges}
        write_json(path, saved, indent=None)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "ClipVocabulary":
        """A vocabulary from the JSON object that `save` writes.  Raises KeyError or TypeError for another object."""
        return cls(tuple(saved["words"]), saved["tokenizer"], saved["min_count"], tuple(saved["merges"]))


def read_clip_vocabulary(source: str | Path) -> ClipVocabulary:
    """The vocabulary of a folder with CLIP's vocab.json and merges.txt, for example a CLIP saved by transformers.

    Raises FileNotFoundError when one of the files is missing, and ValueError when one has another layout.
    """
    folder = Path(source)
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; expected a folder with CLIP's vocab.json and merges.txt (a CLIP model saved "
                "by transformers has both)"
            )
    words = order_pieces(read_json(folder / "vocab.json"), folder / "vocab.json")
    try:
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder / 'merges.txt'} is not UTF-8 text ({error.reason})") from error
    merges = tuple(line for line in lines if line.strip() and not line.startswith("#version"))
    invalid = [line for line in merges if line.count(" ") != 1]
    if invalid or not merges:
        raise ValueError(
            f"{folder / 'merges.txt'}: expected a pair of pieces per line, got {invalid[0] if invalid else 'none'!r}"
        )
    return ClipVocabulary(words, merges=merges)


def order_pieces(word_map: Any, where: str | Path) -> tuple[str, ...]:
    """The special tokens, then CLIP's pieces by their ids, without its first (padding) and its last two (begin, end).

    `word_map` is {piece: CLIP's id} and `where` the file that is named in errors.  Raises ValueError when the ids are
    not 0, 1, 2, ..., or when a piece is written like a special token.

    >>> order_pieces({"!": 0, "a</w>": 1, "dog</w>": 2, "<start>": 3, "<end>": 4}, "vocab.json")
    ('<pad>', '<bos>', '<eos>', '<unk>', 'a</w>', 'dog</w>')
    """
    if not isinstance(word_map, dict) or not all(type(id) is int for id in word_map.values()):
        raise ValueError(f"{where} is no word map: expected a JSON object {{piece: id}}")
    if len(word_map) < 4 or sorted(word_map.values()) != list(range(len(word_map))):
        raise ValueError(
            f"{where}: the ids of {len(word_map)} pieces must be 0 .. {len(word_map) - 1}, each once: padding, the "
            "pieces, begin and end"
        )
    ordered = sorted(word_map, key=word_map.__getitem__)
    if clash := [word for word in SPECIALS if word in ordered[1:-2]]:
        raise ValueError(
            f"{where}: {', '.join(clash)} cannot be pieces; these are the names of limner's special tokens"
        )
    return (*SPECIALS, *ordered[1:-2])
