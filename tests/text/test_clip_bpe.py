"""CLIP's byte pairs on a small vocabulary: the same pieces as the tokenizer of `transformers`, and limner's ids."""

import json
from pathlib import Path

import pytest

from limner.core.types import BOS, EOS, PAD, UNK
from limner.text.clip_bpe import ClipVocabulary, order_pieces, read_clip_vocabulary
from limner.text.load import load_vocabulary
from limner.text.vocabulary import SPECIALS

MERGES = ["t h", "th e</w>", "r i", "ri d", "i n", "in g</w>", "d o", "do g</w>", "m an</w>", "a n</w>", "m a"]
MERGES[8:10] = ["a n</w>", "m an</w>"]  # a pair comes after those it is made of


def byte_characters() -> list[str]:
    """CLIP's 256 byte characters in its order: printable Latin-1 stands for itself, the others for 256 and on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [256 + k for k in range(256 - len(plain))]
    return [chr(code) for code in [*plain, *rest]]


def write(folder: Path, merges: list[str] = MERGES) -> Path:
    letters = byte_characters()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> ClipVocabulary:
    return read_clip_vocabulary(write(tmp_path_factory.mktemp("clip")))


def test_pieces_by_hand(vocabulary: ClipVocabulary) -> None:
    assert vocabulary.tokenize("The dog riding") == ["the</w>", "dog</w>", "rid", "ing</w>"]
    assert vocabulary.tokenize("a man's 42") == ["a</w>", "man</w>", "'", "s</w>", "4</w>", "2</w>"]
    ids = vocabulary.encode("the dog")
    assert ids == [BOS, vocabulary.ids["the</w>"], vocabulary.ids["dog</w>"], EOS]
    assert vocabulary.encode("riding the dog", max_words=2) == [
        BOS,
        *(vocabulary.ids[x] for x in ("rid", "ing</w>")),
        EOS,
    ]


def test_ids_are_those_of_clip_behind_the_special_tokens(vocabulary: ClipVocabulary) -> None:
    """CLIP: `!` 0 (padding), `"` 1, ..., start V - 2, end V - 1."""
    size = 512 + len(MERGES) + 2
    assert len(vocabulary) == size + 1 and vocabulary.words[:4] == SPECIALS
    assert vocabulary.words[4] == '"' and vocabulary.words[-1] == MERGES[-1].replace(" ", "")
    assert vocabulary.ids["the</w>"] == 512 + 1 + 3  # their id and 3
    assert UNK not in vocabulary.encode("ünïcode 日本 🎉 \x00 \ud7ff") and PAD not in vocabulary.encode("wow!!! !")


@pytest.mark.parametrize(
    "text", ["a man rides the dog", "Naïve café — 3 dogs", "日本 🎉", "it's THE   dog's", "x" * 40, "", "<|endoftext|>"]
)
def test_what_is_decoded_is_what_was_encoded(vocabulary: ClipVocabulary, text: str) -> None:
    """Decoding puts a blank between words, also where the text has none."""
    decoded = vocabulary.decode(vocabulary.encode(text))
    assert decoded.replace(" ", "") == text.lower().replace(" ", "")
    assert vocabulary.encode(decoded) == vocabulary.encode(text)


def test_decoding_ends_at_eos_and_leaves_the_marks_out(vocabulary: ClipVocabulary) -> None:
    dog, the = vocabulary.ids["dog</w>"], vocabulary.ids["the</w>"]
    assert vocabulary.decode([BOS, the, PAD, UNK, dog, EOS, dog]) == "the dog"
    assert vocabulary.decode([dog, the]) == "dog the" and vocabulary.decode([]) == ""
    half = vocabulary.encode("é")[1]  # one byte of two
    assert vocabulary.decode([half]) == "�"


def test_pieces_of_transformers(vocabulary: ClipVocabulary, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(str(write(tmp_path / "clip")))
    for text in ("a man is riding the dogs", "it's 3 o'clock!", "Zürich, 日本 & co. (1999)", "  two\n lines ", "!!"):
        ids = theirs(text)["input_ids"][1:-1]
        expected = [piece for piece in theirs.convert_ids_to_tokens(ids) if piece != "!"]
        assert vocabulary.tokenize(text) == expected


def test_saved_and_loaded(vocabulary: ClipVocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path / "vocabulary.json")
    again = load_vocabulary(tmp_path / "vocabulary.json")
    assert again == vocabulary and again.tokenize("riding") == ["rid", "ing</w>"]


def test_what_is_no_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no vocab\.json"):
        read_clip_vocabulary(tmp_path)
    folder = write(tmp_path / "clip")
    (folder / "merges.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match="expected a pair of pieces per line, got 'a b c'"):
        read_clip_vocabulary(folder)
    with pytest.raises(ValueError, match=r"ids of 5 pieces must be 0 \.\. 4"):
        order_pieces({"a": 0, "b": 1, "c": 1, "d": 3, "e": 4}, "x")
    with pytest.raises(ValueError, match="no word map"):
        order_pieces(["a"], "x")
    with pytest.raises(ValueError, match="<eos> cannot be pieces"):
        order_pieces({"!": 0, "<eos>": 1, "a": 2, "s": 3, "e": 4}, "x")
