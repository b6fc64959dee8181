"""Hypotheses that keep their places until they end, as in Show, Attend and Tell's PyTorch code."""

from dataclasses import replace

import pytest

from limner.decode.search import Beam, beam
from tests.decode.tables import media, said, slow_beam, tables
from tests.decode.test_search import FREE

# 200 random tables in which the two searches differ: words, size, what differs
CASES = [(3, 0.0, 3, 1.5), (3, 0.0, 5, 3.0), (3, 1.0, 3, 3.0), (5, 1.0, 5, 3.0)]


@pytest.mark.parametrize(("words", "end", "size", "spread"), CASES)
def test_captions_equal_the_plain_shrinking_beam(words: int, end: float, size: int, spread: float) -> None:
    """`slow_beam` stops nothing early.  Dropping hopeless hypotheses gives their places to others: rarely, other
    captions."""
    world, rules = tables(200, words, seed=1, end=end, spread=spread), replace(FREE, max_length=12)
    everyone = media(*range(200))
    published = said(beam(world, everyone, Beam(size, rules=rules, drop_hopeless=False)))
    ours = said(beam(world, everyone, Beam(size, rules=rules)))
    differing = [i for i in range(200) if published[i] != ours[i]]
    assert 1 <= len(differing) <= 2
    for medium in [*differing, *range(0, 200, 10)]:
        assert published[medium] == slow_beam(world, medium, size, 0.0, rules)[0]


@pytest.mark.parametrize("other", [{"groups": 2, "size": 4}, {"must": ("dog",)}])
def test_other_searches_have_no_such_option(other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="drop_hopeless false is one beam"):
        Beam(**{"drop_hopeless": False, **other})  # type: ignore[arg-type]
