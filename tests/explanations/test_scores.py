"""Pointing, deletion and insertion by hand; and floors for every method and model on a world whose truth is known."""

from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from limner.core.types import Layout
from limner.explanations.evaluation import ExplanationScores, MethodScores, score_medium, scores_table
from limner.explanations.maps import METHODS, TargetSentence, explain, sentence_from_text
from limner.explanations.scores import CurveAreas, PointingScore, deletion_insertion, pointing_game
from tests.explanations.toys import Linear, one
from tests.explanations.world import trained, world


def test_pointing_by_hand():
    cells, real = np.array([True, True, False, False, True]), np.array([True, True, True, True, False])
    assert pointing_game(np.array([0.1, 0.9, 0.2, 0.0, 0.0]), cells, real) == (1.0, 0.5)
    assert pointing_game(np.array([0.1, 0.2, 0.9, 0.0, 5.0]), cells, real) == (
        0.0,
        0.5,
    )  # padding neither hits nor counts
    assert pointing_game(np.array([0.9, 0.2, 0.9, 0.9, 0.0]), cells, real) == (pytest.approx(1 / 3), 0.5)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(-5, 5))
def test_a_map_that_is_the_same_everywhere_has_the_chance_level(inside: list[bool], value: float):
    cells = np.array(inside)
    found = pointing_game(np.full(len(cells), value), cells, np.ones(len(cells), dtype=bool))
    assert found.hit == found.chance == cells.mean()


def detector(cell: int, cells: int) -> Linear:
    """Of six words, each of score 0, word 5 has score 4 where `cell` is there."""
    weight = torch.zeros(cells, 6, 1)
    weight[cell, 5] = 4.0
    return Linear(weight)


WITH, WITHOUT = exp(4) / (exp(4) + 5), 1 / 6  # the probability of word 5
X = TargetSentence("x", (5,), ("x",))


def test_deletion_and_insertion_by_hand():
    """1, 2, 3 and 4 of 4 cells are kept.  If cell 2 counts most, insertion always has it; deletion only when all are
    kept: straight lines between 1/6, 1/6, 1/6 and p."""
    model, features = detector(2, 4), one(torch.ones(4, 1), Layout(1, 2, 2))
    maps = np.array([[0.1, 0.2, 1.0, 0.0]])
    (found,) = deletion_insertion(model, features, X, maps, [0], levels=4)
    assert found.insertion == pytest.approx(WITH)
    assert found.deletion == pytest.approx((2 * WITHOUT + (WITHOUT + WITH) / 2) / 3)
    (worst,) = deletion_insertion(model, features, X, -maps, [0], levels=4)
    assert (worst.deletion, worst.insertion) == pytest.approx((found.insertion, found.deletion))
    assert found.deletion <= found.random <= found.insertion


def test_a_flat_map_is_a_random_order():
    """Over many draws, deletion, insertion and random agree."""
    model, features = detector(0, 6), one(torch.ones(6, 1), Layout(1, 2, 3))
    rows = [deletion_insertion(model, features, X, np.full((1, 6), 1 / 6), [0], 6, seed)[0] for seed in range(150)]
    assert np.ptp(np.mean(rows, 0)) < 0.08
    assert np.ptp(deletion_insertion(model, features, X, np.eye(6)[:1], [0], 6)[0]) > 0.5


def test_only_real_cells_are_kept_or_taken():
    """The cell that counts is the only real one: there is nothing to take away."""
    model, features = detector(1, 3), one(torch.ones(3, 1), Layout(3, 1, 1), [False, True, False])
    assert deletion_insertion(model, features, X, np.eye(3)[:1], [0]) == [pytest.approx((WITH, WITH, WITH))]


def test_a_word_is_scored_by_its_own_probability():
    """Word 4 is the less likely the more cells there are that say 5."""
    model, features = detector(0, 2), one(torch.ones(2, 1), Layout(1, 1, 2))
    sentence, maps = TargetSentence("x y", (5, 4), ("x", "y")), np.array([[1.0, 0.0], [1.0, 0.0]])
    first, second = deletion_insertion(model, features, sentence, maps, [0, 1], levels=2)
    assert first.insertion == pytest.approx(WITH) and second.insertion == pytest.approx(1 / (exp(4) + 5))
    assert deletion_insertion(model, features, sentence, maps, [1], levels=2)[0].insertion == pytest.approx(
        second.insertion
    )


def test_the_table_shows_every_score():
    """80 columns are enough for all methods."""
    rows = {"object": [PointingScore(1, 0.25), PointingScore(0, 0.35)]}
    first, last = (
        MethodScores("attention", rows, [CurveAreas(0.1, 0.9, 0.4)]),
        MethodScores("saliency", rows, [CurveAreas(0.3, 0.7, 0.4)]),
    )
    assert first.means() == {
        "method": "attention",
        "object": {"words": 2, "hit": 0.5, "chance": 0.3},
        **{"deletion": 0.1, "insertion": 0.9, "random": 0.4},
    }
    console = Console(width=80, record=True)
    others = [MethodScores(method, rows, last.curve_areas) for method in ("gradcam", "gradcam++")]
    console.print(scores_table(ExplanationScores((first, *others, last), 7, ())))
    lines = [line.replace("│", "").replace("┃", "").split() for line in console.export_text().splitlines()]
    assert lines[0] == ["explanations", "of", "7", "media"]
    assert ["words", "chance", "attention", "gradcam", "gradcam++", "saliency"] in lines
    assert ["object", "2", "0.30", "0.50", "0.50", "0.50", "0.50"] in lines
    assert ["deletion", "1", "0.40", "0.10", "0.30", "0.30", "0.30"] in lines
    assert ["insertion", "1", "0.40", "0.90", "0.70", "0.70", "0.70"] in lines
    console.print(scores_table(ExplanationScores((MethodScores("attention"),), 0, ())))
    assert "explanations of 0 media" in console.export_text()


CLIPS = 16
POINTED = ("show_attend_tell", "first_token", "spatio_temporal", "sa_lstm")  # transformers train too slowly for a test
# method -> at least so many times the chance level for named things, for what happens; so much lower than a random
# order in deletion, and higher in insertion
FLOORS = {
    "attention": (5, 6, 0.12, 0.05),
    "gradcam": (4, 2, 0.04, 0.03),
    "gradcam++": (5, 6, 0.1, 0.04),
    "saliency": (5, 5, 0.15, 0.06),
}


@pytest.mark.parametrize("name", POINTED)
def test_every_method_points_far_better_than_chance(name: str):
    """Measured, in times of a chance of .07: things 8.4 .. 14.2, events 9.1 .. 14.4 (Grad-CAM 3.2 .. 8.0); below random
    in deletion .20 .. .31 (Grad-CAM .08 .. .17), above it in insertion .06 .. .18."""
    model, vocabulary = trained(name)
    clips = world(CLIPS, 77)
    for method, (things, events, lower, higher) in FLOORS.items():
        tally = MethodScores(method)
        for row in range(CLIPS):
            sentence = sentence_from_text(vocabulary, clips.sentences[row])
            score_medium(tally, model, clips.features([row]), sentence, clips.scenes[row], levels=3)
        told = tally.means()
        chance = told["object"]["chance"], told["event"]["chance"]
        assert 0.05 < chance[0] < 0.12 and 0.05 < chance[1] < 0.12, "a tenth of the cells, so that a hit says something"
        if name == "first_token" and method == "attention":  # it has none: the same weight everywhere
            assert told["object"]["hit"] == pytest.approx(chance[0])
            assert told["event"]["hit"] == pytest.approx(chance[1])
            continue
        assert told["object"]["hit"] > things * chance[0], (method, told)
        assert told["colour"]["hit"] > things * chance[0], (method, told)
        assert told["event"]["hit"] > events * chance[1], (method, told)
        assert told["random"] - told["deletion"] > lower, (method, told)
        assert told["insertion"] - told["random"] > higher, (method, told)


def test_worse_maps_score_worse():
    """The same maps, turned upside down, or of the next word: the scores notice."""
    model, vocabulary = trained("sa_lstm")
    clips = world(CLIPS, 77)
    hits: dict[str, list[float]] = {"right": [], "upside down": []}
    for row in range(8):
        medium, sentence = clips.features([row]), sentence_from_text(vocabulary, clips.sentences[row])
        maps = explain(model, medium, sentence, "saliency").maps
        for name, ordered in (("right", maps), ("upside down", -maps)):
            found = deletion_insertion(model, medium, sentence, ordered, [1, 2], 4)
            hits[name] += [c.insertion - c.deletion for c in found]
    assert np.mean(hits["right"]) > 0.2 and np.mean(hits["upside down"]) == pytest.approx(-np.mean(hits["right"]))


def test_every_method_has_a_minimum_score():
    assert set(FLOORS) == set(METHODS)
