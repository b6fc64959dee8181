"""Filters for a teacher's captions: each reason once, their order, and what stays."""

import pytest

from limner.metrics.consensus import agreement
from limner.training.caption_filters import (
    REASONS,
    CaptionFilters,
    TeacherCaption,
    filter_captions,
    repeated_phrase,
)

CASES = {
    "a dog runs on the beach": None,
    "": "empty",
    " ... ": "empty",
    "I'm sorry, but I can't help with that.": "refusal",
    "dog": "short",
    "a dog " * 16: "long",  # also repeats itself: the first reason counts
    "a very very very big dog": "repeats",
    "a dog on the beach on the beach": "repeats",
    "Собака бежит по пляжу": "language",
    "ein Hund auf einem Sofa": "language",
}


@pytest.mark.parametrize(("text", "reason"), CASES.items())
def test_the_reason(text: str, reason: str | None):
    result = filter_captions({"1": [TeacherCaption(text)]}, CaptionFilters())
    assert [it.reason for it in result.rejected] == ([reason] if reason else [])
    assert result.count == (0 if reason else 1)


def test_a_caption_that_was_cut_off_and_one_that_was_drawn_twice():
    cut, whole = TeacherCaption("a dog on the", finished=False), TeacherCaption("A dog runs.", -2.0)
    result = filter_captions({"1": [whole, cut, TeacherCaption("a dog runs", -2.0)]}, CaptionFilters())
    assert result.kept == {"1": [whole]} and result.reasons() == {"cut off": 1, "duplicate": 1}


def test_the_expected_language_and_script_are_given():
    german, russian = TeacherCaption("ein Hund auf einem Sofa"), TeacherCaption("Собака бежит по пляжу")
    told = {"1": [german, russian]}
    assert filter_captions(told, CaptionFilters(language="de")).kept == {"1": [german]}
    assert filter_captions(told, CaptionFilters(language="", letters="собака")).kept == {"1": [russian]}
    assert filter_captions(told, CaptionFilters(language="", letters="")).kept == told


def test_captions_without_blanks_are_counted_in_characters():
    caption = TeacherCaption("一只黑狗在草地上奔跑")
    filters = CaptionFilters(min_words=3, language="", letters="狗")
    assert filter_captions({"1": [caption]}, filters, "script-runs").count == 1
    assert filter_captions({"1": [caption]}, filters, "ptb").reasons() == {"short": 1}


def test_agreement_by_hand():
    """Equal captions of two words have the n-grams of 1 and 2 words: half of the four orders, so .5; others 0.

    Each is compared with the mean of the others: the equal two .5 / 2, the third one nothing.
    """
    assert agreement([["red", "dog"], ["red", "dog"], ["blue", "sky"]]) == [0.25, 0.25, 0.0]
    four = ["a", "red", "dog", "runs"]
    assert agreement([four, four]) == [1.0, 1.0] and agreement([four]) == [None] and agreement([]) == []


def test_the_caption_that_agrees_with_no_other_is_dropped():
    texts = ["a red dog runs on grass", "a red dog runs on the grass", "two planes"]
    result = filter_captions({"1": [*map(TeacherCaption, texts)]}, CaptionFilters(min_agreement=0.1))
    assert [it.caption.text for it in result.rejected] == [texts[2]]
    assert (result.rejected[0].reason, result.rejected[0].detail) == ("agreement", "0.000")
    alone = filter_captions({"1": [TeacherCaption(texts[2])]}, CaptionFilters(min_agreement=0.9))
    assert alone.count == 1  # nothing to agree with


def test_clip_is_asked_about_the_rest_only_and_a_medium_without_captions_is_gone():
    asked: list[dict] = []

    def scores(captions):
        asked.append({id: list(texts) for id, texts in captions.items()})
        return {id: [0.7 if "dog" in text else 0.2 for text in texts] for id, texts in captions.items()}

    told = {"1": [TeacherCaption("a dog runs"), TeacherCaption("a plane flies"), TeacherCaption("")],
            "2": [TeacherCaption("a plane flies")]}  # fmt: skip
    result = filter_captions(told, CaptionFilters(min_clip_score=0.5), clip_scores=scores)
    assert asked == [{"1": ["a dog runs", "a plane flies"], "2": ["a plane flies"]}]
    assert list(result.kept) == ["1"] and result.reasons() == {"empty": 1, "CLIPScore": 2}
    assert list(result.reasons()) == [reason for reason in REASONS if reason in result.reasons()]


@pytest.mark.parametrize(("text", "phrase"), [
    ("a man in a boat in a boat", "in a boat"), ("the the the dog", "the"), ("had had enough", ""),
    ("a red circle above a red circle", ""), ("a man and a woman and a child", ""), ("", ""),
])  # fmt: skip
def test_repeated_phrases(text: str, phrase: str):
    assert repeated_phrase(text.split()) == phrase
