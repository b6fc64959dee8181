"""The vocabulary: words, counts and ids that were derived by hand."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.core.types import BOS, EOS, PAD, UNK
from limner.text.load import load_vocabulary
from limner.text.vocabulary import SPECIALS, Vocabulary

# dog 4, a 3, runs 3, cat 2, sleeps 1
CAPTIONS = ["a dog runs", "A dog runs.", "the dog", "a dog, cat", "cat runs", "sleeps"]


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (1, ("dog", "a", "runs", "cat", "sleeps", "the")),
        (2, ("dog", "a", "runs", "cat")),
        (3, ("dog", "a", "runs")),  # a count of exactly 3 is kept: >=, not >
        (4, ("dog",)),
    ],
)
def test_a_word_is_kept_when_its_count_reaches_the_threshold(k, words):
    """Commonest first, and equal counts in alphabetical order."""
    vocabulary = Vocabulary.build(CAPTIONS, min_count=k)
    assert vocabulary.words == (*SPECIALS, *words)
    assert len(vocabulary) == 4 + len(words) and vocabulary.min_count == k


def test_special_ids():
    vocabulary = Vocabulary.build(CAPTIONS, 1)
    assert [vocabulary.ids[word] for word in SPECIALS] == [PAD, BOS, EOS, UNK] == [0, 1, 2, 3]


def test_encode_and_decode_by_hand():
    vocabulary = Vocabulary.build(CAPTIONS, 2)  # dog 4, a 5, runs 6, cat 7
    assert vocabulary.encode("A dog runs!") == [BOS, 5, 4, 6, EOS]
    assert vocabulary.encode("a zebra runs") == [BOS, 5, UNK, 6, EOS]
    assert vocabulary.encode("") == [BOS, EOS]
    assert vocabulary.decode([BOS, 5, 4, 6, EOS, 7, PAD]) == "a dog runs"  # what follows EOS is not said
    assert vocabulary.decode([5, UNK, 6]) == "a unk runs"
    assert vocabulary.decode([PAD, BOS, EOS]) == "" == vocabulary.decode([])


def test_long_captions_are_cut_before_their_end_mark():
    vocabulary = Vocabulary.build(CAPTIONS, 1)
    for n in range(5):
        assert vocabulary.encode("a dog runs a", n) == [BOS, *vocabulary.encode("a dog runs a")[1:-1][:n], EOS]
    assert len(vocabulary.encode("a dog runs a", 2)) == 4


@given(st.lists(st.sampled_from(["dog", "a", "runs", "cat", "sleeps", "the"])))
def test_round_trip(words):
    vocabulary = Vocabulary.build(CAPTIONS, 1)
    assert vocabulary.decode(vocabulary.encode(" ".join(words))) == " ".join(words)


def test_a_caption_that_spells_a_special_token_does_not_produce_it():
    vocabulary = Vocabulary.build(["a <eos> b", "<pad> a <eos>"], 1, "split")
    assert vocabulary.words == (*SPECIALS, "a", "b")
    assert vocabulary.encode("a <eos> b <pad> <bos>") == [BOS, 4, UNK, 5, UNK, UNK, EOS]


@given(st.lists(st.integers(0, 9)))
def test_special_tokens_are_never_in_text(ids):
    text = Vocabulary.build(CAPTIONS, 1).decode(ids)
    assert not any(special in text for special in SPECIALS) and "<" not in text


def test_save_and_load(tmp_path: Path):
    vocabulary = Vocabulary.build(["Ein Bär läuft", "ein Bär"], 1, "split")
    vocabulary.save(tmp_path / "v.json")
    assert load_vocabulary(tmp_path / "v.json") == vocabulary
    assert "Bär" in (tmp_path / "v.json").read_text(encoding="utf-8")  # readable, not escaped


def test_broken_files_are_named(tmp_path: Path):
    path = tmp_path / "v.json"
    for content, message in [
        ("{", r"v\.json is not a JSON file"),
        ("[1, 2]", r"v\.json is not a vocabulary: expected words, tokenizer and min_count"),
        (json.dumps({"words": list(SPECIALS)}), r"not a vocabulary.*tokenizer"),
        (json.dumps({"words": ["a"], "tokenizer": "simple", "min_count": 1}), "a vocabulary begins with"),
        (
            json.dumps({"words": [*SPECIALS, "a", "a"], "tokenizer": "simple", "min_count": 1}),
            r"duplicate words: \['a'\]; each word must occur once",
        ),
        (json.dumps({"words": [*SPECIALS, "a"], "tokenizer": "ptb9", "min_count": 1}), "unknown tokenizer 'ptb9'"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_vocabulary(path)


def test_nothing_left_says_what_to_do():
    with pytest.raises(ValueError, match="none of 6 different words occurs at least 5 times; lower min_count"):
        Vocabulary.build(CAPTIONS, 5)
    with pytest.raises(ValueError, match="at least 1; got 0"):
        Vocabulary.build(CAPTIONS, 0)
