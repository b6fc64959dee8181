import json
from dataclasses import replace

import pytest

from limner.comparison.compare import Comparison, compare, metric_aliases, to_json, unique_metrics
from limner.comparison.protocol import differing_fields, flatten
from limner.metrics.references import References
from limner.metrics.report import METRICS, evaluate
from tests.comparison.world import BAD, GOOD, REFERENCES, compared_run, media

ABOUT = {"split": "test", "protocol": {"tokenizer": "split", "images": 4, "references min": 3, "references mean": 3.0}}


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare([compared_run("good", GOOD), compared_run("bad", BAD)], media(), "split", draws=100)


def test_every_side_is_scored_as_evaluate_scores_it(found: Comparison):
    for measured, captions in zip(found.runs, (GOOD, BAD), strict=True):
        report = evaluate(captions, References(REFERENCES, "split"))
        assert {name: score.value for name, score in measured.scores.items()} == pytest.approx(
            {name: report.scores[name] for name in found.metrics}
        )
        assert [float(x) for x in measured.segments["CIDEr"]] == [row["CIDEr"] for row in report.segments]
        assert (measured.distinct, measured.vocabulary, measured.length) == (
            report.distinct,
            report.vocabulary,
            report.length,
        )
    (difference,) = found.differences
    for name, value in difference.items():
        assert value.value == pytest.approx(found.runs[1].scores[name].value - found.runs[0].scores[name].value)
        assert value.low <= value.value <= value.high or name.startswith("BLEU")


def test_a_metric_of_two_names_is_shown_once():
    assert set(METRICS) - set(unique_metrics(METRICS)) == {"CIDEr-D"}
    assert metric_aliases("CIDEr") == ["CIDEr-D"] and metric_aliases("ROUGE-L") == []


def test_a_human_is_scored_against_the_rest_and_so_are_the_sides(found: Comparison):
    rest = References({id: texts[1:] for id, texts in REFERENCES.items()}, "split")
    human = evaluate({id: texts[0] for id, texts in REFERENCES.items()}, rest).scores
    assert found.human.scores == pytest.approx({name: human[name] for name in found.metrics})
    # the good captions are the first references, so the same human
    assert found.human.runs[0] == found.human.scores and found.human.references == 2
    assert found.runs[0].scores["BLEU-4"].value == pytest.approx(1) != pytest.approx(found.human.scores["BLEU-4"])


def test_a_metric_that_cannot_be_computed_is_left_out_and_that_is_said(monkeypatch):
    def missing(candidates, references):
        raise ImportError("pip install limner[meteor]")

    monkeypatch.setitem(METRICS, "METEOR", missing)
    found = compare([compared_run("a", GOOD), compared_run("b", BAD)], media(), "split", 10)
    assert "METEOR" not in found.metrics and "METEOR is left out: pip install limner[meteor]" in found.warnings


def test_without_a_second_reference_there_is_no_human():
    few = media({**REFERENCES, "x": REFERENCES["x"][:1]})
    assert (
        compare([compared_run("a", GOOD), compared_run("b", BAD)], few, "split", 10).human.missing
        == "1 of 4 items have a single reference"
    )


def test_only_items_of_all_sides_count_and_that_is_said():
    part = {id: text for id, text in BAD.items() if id != "w"}
    found = compare([compared_run("a", GOOD), compared_run("b", BAD), compared_run("c", part)], media(), "split", 10)
    assert found.ids == ("x", "y", "z") and found.left_out == 1
    assert found.warnings[:2] == tuple(
        f"{letter}: captions that not every run has were left out, 1 id ('w')" for letter in "AB"
    )
    alone = compare([compared_run("a", part), compared_run("b", {id: GOOD[id] for id in part})], media(), "split", 10)
    assert found.runs[0].scores["CIDEr"].value == pytest.approx(alone.runs[1].scores["CIDEr"].value)
    assert alone.left_out == 0 and not [line for line in alone.warnings if "left out" in line]


def test_too_little_to_compare():
    with pytest.raises(ValueError, match=r"1 items have a caption from every run \(a 4, b 1 captions\)"):
        compare([compared_run("a", GOOD), compared_run("b", {"x": "a"})], media(), "split")
    with pytest.raises(ValueError, match="takes 2 to 26 runs, got 1"):
        compare([compared_run("a", GOOD)], media(), "split")


def warnings(first: dict, second: dict, tokenizer: str = "split", **more: dict) -> list[str]:
    sides = [compared_run("a", GOOD, evaluation=first, **more), compared_run("b", BAD, evaluation=second, **more)]
    return [line for line in compare(sides, media(), tokenizer, 10).warnings if "are few" not in line]


def test_runs_that_were_measured_differently_are_warned_about():
    other = {"split": "val", "protocol": {**ABOUT["protocol"], "tokenizer": "simple", "numpy": "2"}}
    assert warnings(ABOUT, ABOUT) == []
    assert warnings(ABOUT, other) == [
        "the scores.json of the runs were measured differently (split: A 'test', B 'val'); here all runs are "
        "measured in the same way",
        "the scores.json of the runs were measured differently (tokenizer: A 'split', B 'simple'); here all runs "
        "are measured in the same way",
    ]
    assert warnings(ABOUT, {**ABOUT, "decoding": {"size": 5}}) == []  # that is what is compared
    assert "not PTB:" in warnings(ABOUT, ABOUT, "simple")[0]


def test_scores_that_have_moved_are_warned_about():
    right = {
        name: score.value
        for name, score in compare([compared_run("a", GOOD), compared_run("b", BAD)], media(), "split", 2)
        .runs[0]
        .scores.items()
    }
    good = compared_run("a", GOOD, evaluation=ABOUT, scores=right)
    moved = replace(good, scores={**right, "BLEU-2": 0.5})
    for given, count in ((good, 0), (moved, 1)):
        lines = compare([given, compared_run("b", BAD)], media(), "split", 2).warnings
        assert len([line for line in lines if line.startswith("A: scores.json says BLEU-2 50.00, ")]) == count
    lines = compare(
        [moved, compared_run("b", BAD)], media(), "simple", 2
    ).warnings  # other tokens: other scores are no surprise
    assert not [line for line in lines if "scores.json says" in line]


def test_other_data_sets_and_notes_are_warned_about():
    recipes = [{"data": {"name": "coco", "annotations": x, "media": "m"}} for x in "pq"]
    sides = [replace(compared_run("s", GOOD, recipe=recipe), notes=("mended",)) for recipe in recipes]
    lines = compare(sides, media(), "split", 2).warnings
    assert lines[:2] == ("A: mended", "B: mended") and "name different datasets" in lines[2]


def test_one_reference_is_warned_about():
    single = media({id: texts[:1] for id, texts in REFERENCES.items()})
    assert any(
        "each item has only one reference" in line
        for line in compare([compared_run("a", GOOD), compared_run("b", BAD)], single, "split", 2).warnings
    )


def test_flat_trees_and_their_disagreements():
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 2}]}
    assert flatten(tree) == {"a.b": 1, "a.c": [1, 2], "d.0.e": 2}
    assert differing_fields([tree, {"a": {"b": 1, "c": [1]}, "f": None}]) == {"a.c": [[1, 2], [1]], "d.0.e": [2, None]}


def test_json_holds_every_number(found: Comparison):
    saved = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert [row["letter"] for row in saved["runs"]] == ["A", "B"]
    assert saved["differences"][0]["of"] == "B" and saved["differences"][0]["minus"] == "A"
    assert saved["differences"][0]["scores"]["CIDEr"]["p"] == found.differences[0]["CIDEr"].p
    assert saved["items"][1]["captions"] == {"A": "two cats sleep", "B": "a car"}
    assert saved["items"][1]["scores"]["A"]["ROUGE-L"] == pytest.approx(1)
    assert saved["human"]["runs"]["A"] == saved["human"]["scores"] and saved["protocol"]["scale"] == "fractions"
