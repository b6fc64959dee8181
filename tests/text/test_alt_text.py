"""Alternative text: omitted openings, the end of the sentence, and the limit of its length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.text.alt_text import alt_text

EXAMPLES = {
    "a dog runs through the grass": "A dog runs through the grass.",
    "an image of a cat on a sofa .": "A cat on a sofa.",
    "A black and white photo of two men": "Two men.",
    "this picture shows the street at night": "The street at night.",
    "a close-up of a red flower": "A red flower.",
    "in the video a star moves left": "A star moves left.",
    "there is a red circle and a blue square": "A red circle and a blue square.",
    "a man is taking a picture of his dog": "A man is taking a picture of his dog.",  # here it is what happens
    "a woman shows a photo": "A woman shows a photo.",
    "the man 's dog does n't bark , it sleeps": "The man's dog doesn't bark, it sleeps.",
    "two boys play. they are happy.": "Two boys play.",
    "a picture of": "A picture of.",  # nothing else was said
    "  ": "",
    "...": "",
}


@pytest.mark.parametrize(("caption", "expected"), EXAMPLES.items())
def test_examples(caption: str, expected: str):
    assert alt_text(caption) == expected


def test_a_cut_leaves_nothing_hanging():
    text = "a man in a white shirt is standing in front of a crowd"
    assert alt_text(text, 40) == "A man in a white shirt is standing."
    assert alt_text(text, 30) == "A man in a white shirt is."
    assert alt_text("x" * 200, 20) == "X" + "x" * 18 + "."
    with pytest.raises(ValueError, match="max_chars is 5"):
        alt_text(text, 5)


@given(st.text(alphabet="aA picture of.,!?\n\t ß", max_size=200), st.integers(10, 130))
def test_any_caption(caption: str, most: int):
    found = alt_text(caption, most)
    assert len(found) <= most and "\n" not in found
    assert found == "" or (found.endswith(".") and found[0] in (found[0].upper(), "ß"))
    assert (found == "") == (not caption.strip(" .,;:!?-\n\t"))
