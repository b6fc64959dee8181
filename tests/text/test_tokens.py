import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.text.tokens import TOKENIZERS, get_tokenizer, simple


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man, riding a T-shirt.", ["a", "man", "riding", "a", "t-shirt"]),
        ("it's the dogs' ball - 'new'!", ["it's", "the", "dogs", "ball", "new"]),
        ("don’t", ["don't"]),
        ("red--blue snake_case 3.5", ["red", "blue", "snake", "case", "3", "5"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),  # composed and decomposed are one word
        ("एक बिल्ली", ["एक", "बिल्ली"]),  # vowel signs are inside words
        (" \t\n...", []),
        ("", []),
    ],
)
def test_simple(text, words):
    assert simple(text) == words


@given(st.text())
def test_words_of_words_are_the_same_words(text):
    words = simple(text)
    assert simple(" ".join(words)) == words
    assert all(word.split() == [word] for word in words)


def test_names():
    assert get_tokenizer("split")(["A  b.", ""]) == ["A b.", ""]
    with pytest.raises(ValueError, match=", ".join(TOKENIZERS)):
        get_tokenizer("ptb3")
