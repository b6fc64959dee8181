"""METEOR match by match, with the small tables of the tests of METEOR."""

import random

import numpy as np
import pytest

from limner.metrics.breakdown import meteor as breakdown
from limner.metrics.breakdown.meteor import break_down_meteor
from limner.metrics.meteor.evaluation import MeteorReferences
from limner.metrics.meteor.statistics import score_from_counts
from limner.metrics.meteor.tables import Tables
from tests.metrics.meteor.conftest import WORDS, little  # noqa: F401  (a fixture)


@pytest.fixture(autouse=True)
def small_tables(little: Tables, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(breakdown, "load_tables", lambda: little)


def test_an_alignment_by_hand() -> None:
    """ "a" is exact, "mouse" a synonym of "mice", "jumps" has the stem of "jumped"; "fat" matches nothing: two chunks.

    The function word "a" weighs .25, content words .75: precision (.25 + .75 * (.8 + .6)) / (.25 + 3 * .75).
    """
    found = break_down_meteor("a fat mouse jumps", ["a mice jumped"])
    (one,) = found.references
    shown = [(it.words, it.reference_words, it.stage, it.weight, it.chunk) for it in one.pairs]
    assert shown == [
        (("a",), ("a",), "exact", 1.0, 0),
        (("mouse",), ("mice",), "synonym", 0.8, 1),
        (("jumps",), ("jumped",), "stem", 0.6, 1),
    ]
    assert one.precision == pytest.approx(1.3 / 2.5) and one.recall == pytest.approx(1.3 / 1.75) and one.chunks == 2
    mean = 1 / (0.15 / (1.3 / 2.5) + 0.85 / (1.3 / 1.75))
    assert one.fragmentation == 2 / 3 and one.penalty == pytest.approx(0.6 * (2 / 3) ** 0.2)
    assert found.score == one.score == pytest.approx(mean * (1 - 0.6 * (2 / 3) ** 0.2))
    assert found.function_words == ("a",) and found.best == 0


def test_the_numbers_reproduce_the_score(little: Tables) -> None:  # noqa: F811
    rng = random.Random(1)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(0, 9)))

    for _ in range(30):
        line, references = sentence(), [sentence() or "a" for _ in range(rng.randint(1, 4))]
        found = break_down_meteor(line, references)
        references_of_one = MeteorReferences([references], little)
        rows, sentences = references_of_one.lexicon.sentences([line])
        counts = references_of_one.count_without_numba(rows, sentences)[0]
        assert found.score == score_from_counts(counts.tolist())
        for one in found.references:
            assert one.score == pytest.approx(one.mean * (1 - one.penalty), abs=1e-12)
            assert one.chunks == len({pair.chunk for pair in one.pairs})
            assert one.penalty == pytest.approx(0.6 * one.fragmentation**0.2)
        assert found.score == np.max([one.score for one in found.references])
        assert found.references[found.best].score == found.score
