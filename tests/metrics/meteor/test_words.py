"""METEOR's normaliser and stemmer, compared with the output of the jar and of Snowball 2.2 for our own words."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.metrics.meteor.normalise import normalise, read_prefixes
from limner.metrics.meteor.records import java_hash
from limner.metrics.meteor.stemmer import stem

HERE = Path(__file__).parent
PREFIXES = read_prefixes(
    (
        *("#comment", "", "A", "Dr", "Mr", "Nos", "v", "vs", "i.e", "e.g"),
        *("No #NUMERIC_ONLY# ", "Art #NUMERIC_ONLY# ", "pp #NUMERIC_ONLY# "),
    )
)


@pytest.mark.parametrize(("line", "expected"), json.loads((HERE / "lines.json").read_text()))
def test_lines_are_normalised_as_by_the_jar(line: str, expected: str) -> None:
    # the jar prints words joined by blanks, so that a vertical tab within a word shows as it is
    assert normalise(line, PREFIXES) == expected.split(" ") if expected else normalise(line, PREFIXES) == []


def test_control_characters_at_the_ends_are_gone_before_stops_are_looked_at() -> None:
    # over the protocol; from a file the jar keeps the vertical tab for a while, and "No." is no prefix
    assert normalise("\x0bNo. 5 a\x1c", PREFIXES) == ["no.", "5", "a"]
    assert normalise("\u00a0\x1cNo. 5", PREFIXES) == ["no.", "5"]


@given(st.text())
def test_no_word_is_empty_or_holds_a_blank(line: str) -> None:
    for word in normalise(line, PREFIXES):
        assert word and " " not in word and word == word.lower()


@given(st.text(alphabet="ab7 "))
def test_plain_lines_are_only_split(line: str) -> None:
    assert normalise(line, PREFIXES) == line.split()


def test_stems_are_those_of_snowball_2_2() -> None:
    pairs = [line.split(" ") for line in (HERE / "stems.txt").read_text(encoding="utf-8").splitlines()]
    assert len(pairs) > 200
    assert [(word, stem(word)) for word, _ in pairs] == [(word, expected) for word, expected in pairs]


def test_java_hashes_by_hand() -> None:
    # h = 31 h + code of each UTF-16 unit, in 32 signed bits
    assert java_hash("") == 0
    assert java_hash("an") == java_hash("c0") == 31 * 97 + 110
    assert java_hash("é") == 0xE9
    assert java_hash("😀") == 31 * 0xD83D + 0xDE00
    assert java_hash("zzzzzz") == (122 * (31**6 - 1) // 30) % 2**32 - 2**32
    assert java_hash("\ud800") == 0xD800
