"""CLIP's byte pairs as a vocabulary: captions in pieces of words, so that no word is unknown.

The pieces are those of `vocab.json` and `merges.txt` (openai/CLIP, arXiv:2103.00020, section 2.4): lower-cased text is
cut into words, letters' and digits' bytes into pieces, and a word's last piece ends in `</w>`.  The ids are limner's:
the marks 0 to 3, then CLIP's pieces 1 to V - 3 in their order.  CLIP's last two are BOS and EOS; its piece 0, a `!`
inside a word, is used for padding by captioners on this vocabulary, so it is left out when it is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from limner.core.files import read_json, write_json
from limner.core.torch_free import BOS, EOS, PAD, UNK
from limner.text.vocabulary import SPECIALS, Vocabulary

END = "</w>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class ClipVocabulary(Vocabulary):
    """The members of `Vocabulary`; `words` are pieces, `merges` lists the pairs to join, the most urgent first."""

    tokenizer: str = "split"
    merges: tuple[str, ...] = ()

    @cached_property
    def _pairs(self) -> Any:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        pairs = [(first, second) for first, second in (merge.split(" ") for merge in self.merges)]
        known = dict.fromkeys(
            (*self.words[len(SPECIALS) :], *(part for pair in pairs for part in (*pair, "".join(pair))))
        )
        vocabulary = {piece: number for number, piece in enumerate(known)}
        pairing = Tokenizer(models.BPE(vocabulary, pairs, end_of_word_suffix=END))
        steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        pairing.normalizer = normalizers.Sequence(steps)
        words = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
        pairing.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
        return pairing

    def tokenize(self, caption: str) -> list[str]:
        """Pieces; what CLIP has no piece for is left out."""
        return [piece for piece in self._pairs.encode(caption).tokens if piece in self.ids]

    def spell(self, text: str) -> list[tuple[str, ...]]:
        """The words of a text, each in its pieces."""
        words: list[tuple[str, ...]] = []
        inside: tuple[str, ...] = ()
        for piece in self.tokenize(text):
            inside = (*inside, piece)
            if piece.endswith(END):
                words.append(inside)
                inside = ()
        return [*words, inside] if inside else words

    def encode(self, caption: str, max_words: int | None = None) -> list[int]:
        """BOS p1 .. pn EOS; n is cut at `max_words` pieces."""
        return [BOS, *(self.ids[piece] for piece in self.tokenize(caption)[:max_words]), EOS]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the pieces up to the first EOS; bytes that are no UTF-8 become the replacement character."""
        from tokenizers import decoders

        ended = list(ids)[: list(ids).index(EOS)] if EOS in ids else list(ids)
        pieces = [self.words[i] for i in ended if i not in (PAD, BOS, UNK)]
        return " ".join(decoders.ByteLevel().decode(pieces).replace(END, " ").split())

    def save(self, path: str | Path) -> None:
        saved = {"tokenizer": self.tokenizer, "min_count": self.min_count, "words": self.words, "merges": self.merges}
        write_json(path, saved, indent=None)

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> "ClipVocabulary":
        """The inverse of `save`, from what the JSON holds."""
        return cls(tuple(saved["words"]), saved["tokenizer"], saved["min_count"], tuple(saved["merges"]))

    @classmethod
    def load(cls, path: str | Path) -> "ClipVocabulary":
        return cls.restore(read_json(path))


def read_clip(source: str | Path) -> ClipVocabulary:
    """`source` is a folder with CLIP's vocab.json and merges.txt, such as one saved by transformers.

    Raises FileNotFoundError when a file is missing, ValueError when they are not what they should be.
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
    odd = [line for line in merges if line.count(" ") != 1]
    if odd or not merges:
        raise ValueError(
            f"{folder / 'merges.txt'}: expected a pair of pieces per line, got {odd[0] if odd else 'none'!r}"
        )
    return ClipVocabulary(words, merges=merges)


def order_pieces(word_map: Any, where: str | Path) -> tuple[str, ...]:
    """{piece: CLIP's id} -> the pieces in limner's order, behind the four marks.  Raises ValueError."""
    if not isinstance(word_map, dict) or not all(type(id) is int for id in word_map.values()):
        raise ValueError(f"{where} is no word map: expected a JSON object {{piece: id}}")
    if len(word_map) < 4 or sorted(word_map.values()) != list(range(len(word_map))):
        raise ValueError(
            f"{where}: the ids of {len(word_map)} pieces must be 0 .. {len(word_map) - 1}, each once: padding, the "
            "pieces, begin and end"
        )
    ordered = sorted(word_map, key=word_map.__getitem__)
    if clash := [word for word in SPECIALS if word in ordered[1:-2]]:
        raise ValueError(f"{where}: {', '.join(clash)} cannot be pieces, limner's own marks are called so")
    return (*SPECIALS, *ordered[1:-2])
