"""Known words in the places of a new one, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.text.substitutes import substitutes


def shares(captions: list[str], new: str) -> dict[str, float]:
    words = {word for text in captions for word in text.split()} - {new}
    return substitutes([text.split() for text in captions], words, [new]).get(new, {})


def test_words_with_the_same_neighbours_share_by_their_number():
    """`x` stands twice between red and runs (dog, dog, cat there) and once at the end after a (bird there)."""
    captions = ["red x runs", "red x runs", "a x", "red dog runs", "red dog runs", "red cat runs", "a bird"]
    assert shares(captions, "x") == pytest.approx({"dog": 4 / 9, "bird": 3 / 9, "cat": 2 / 9})


def test_one_neighbour_is_enough_where_no_word_has_both():
    """After red stand dog and dog, before sits stands bird."""
    captions = ["red x sits", "red dog runs", "red dog swims", "a bird sits"]
    assert shares(captions, "x") == pytest.approx({"dog": 0.5, "bird": 0.5})
    assert shares(["p x q", "r s"], "x") == {}  # nothing stands there


@given(st.lists(st.lists(st.sampled_from("abcxy"), min_size=1, max_size=5), max_size=12))
def test_shares_sum_to_one_and_are_of_known_words(captions: list[list[str]]):
    for share in substitutes(captions, {"a", "b", "c"}, ["x", "y"]).values():
        assert sum(share.values()) == pytest.approx(1) and set(share) <= {"a", "b", "c"} and min(share.values()) > 0
