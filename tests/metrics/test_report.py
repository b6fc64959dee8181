"""Reports: scores, the scores of each medium, the protocol, and notes about metrics that cannot be computed."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from limner.data.shapes_words import Scene, SceneObject
from limner.metrics import report as report_module
from limner.metrics.diversity import diversity
from limner.metrics.meteor import MissingTablesError, meteor
from limner.metrics.references import References, Score
from limner.metrics.report import (
    METRICS,
    compute_scores,
    evaluate,
    evaluate_samples,
    microworld_table,
    report_table,
    report_to_json,
    sample_report_table,
    select_metrics,
)
from tests.metrics.corpus import corpus

REFERENCES = {"x": ["A cat sat.", "The cat sat down!"], "y": ["A dog ran."]}
CAPTIONS = {"y": "a dog ran", "x": "a dog ran"}


def printed(shown: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(shown)
    return out.getvalue()


def lengths(candidates, references) -> Score:
    return Score(float(candidates.lengths.mean()), candidates.lengths.astype(float))


@pytest.fixture(autouse=True)
def quick_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces METEOR by a simple metric: its tables are large, and may be missing."""
    monkeypatch.setitem(METRICS, "METEOR", lengths)


def impossible(candidates, references) -> Score:
    raise ImportError("its tables are missing; pip install them")


def test_meteor_stands_where_papers_have_it(monkeypatch):
    monkeypatch.undo()
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "CIDEr-D"]
    assert list(METRICS) == names and METRICS["METEOR"] is meteor


def test_without_its_tables_meteor_is_left_out(monkeypatch):
    def none():
        raise MissingTablesError("METEOR needs tables; pip install them")

    monkeypatch.undo()
    monkeypatch.setattr("limner.metrics.meteor.evaluation.load_tables", none)
    report = evaluate(CAPTIONS, References(REFERENCES))
    assert "METEOR" not in report.scores and "METEOR" not in report.segments[0]
    assert report.notes == ("METEOR is left out: METEOR needs tables; pip install them",)
    with pytest.raises(ImportError, match="METEOR needs tables"):
        evaluate(CAPTIONS, References(REFERENCES), select_metrics(["METEOR"]))


def test_a_report_says_what_was_measured_and_how():
    report = evaluate(CAPTIONS, References(REFERENCES))
    assert list(report.scores) == list(METRICS)
    # words of x: "a" of 3 (clipped to one match), of y: 3 of 3; same lengths
    assert report.scores["BLEU-1"] == pytest.approx(4 / 6, abs=1e-8)
    assert report.scores["CIDEr"] == report.scores["CIDEr-D"]
    assert [(row["id"], row["caption"]) for row in report.segments] == [("x", "a dog ran"), ("y", "a dog ran")]
    assert report.segments[1]["ROUGE-L"] == pytest.approx(1)
    assert set(report.segments[0]) == {"id", "caption", "CIDEr", "BLEU-4", "METEOR", "ROUGE-L"}
    assert (report.distinct, report.vocabulary, report.length) == (1, 3, 3.0)
    assert report.protocol["images"] == 2
    assert (report.protocol["references min"], report.protocol["references mean"]) == (1, 1.5)
    assert report.protocol["tokenizer"] == "ptb" and report.protocol["scale"] == "fractions"
    others = evaluate(CAPTIONS, References(REFERENCES, "simple")).protocol["tokenizer"]
    assert others == "simple (not comparable with scores on PTB tokens)"


def test_each_image_has_the_scores_of_its_id_whatever_the_order():
    captions, references = corpus(3)
    rows = evaluate(captions, References(references, "split")).segments
    turned = evaluate(dict(reversed(captions.items())), References(references, "split")).segments
    assert rows == turned


def test_json_and_table():
    report = evaluate(CAPTIONS, References(REFERENCES))
    again = json.loads(json.dumps(report_to_json(report)))
    assert again["scores"] == report.scores and again["segments"] == list(report.segments)
    shown = printed(report_table(report))
    assert "66.7" in shown and "x100" in shown and "2 media" in shown


def test_other_ids_are_an_error_that_shows_both_sides():
    references = References({str(i): ["a"] for i in range(5)})
    with pytest.raises(
        ValueError, match=r"no caption: 5 media \('0', '1', '2', \.\.\.\); .*references: 1 medium \('q'\)"
    ):
        evaluate({"q": "a"}, references)
    with pytest.raises(ValueError, match=r"no caption: 1 medium \('4'\); caption but no references: 0 media"):
        evaluate({str(i): "a" for i in range(4)}, references)


@pytest.mark.parametrize(
    ("texts", "message"),
    [({}, "empty"), ({"x": ["a"], "y": []}, r"1 medium \('y'\)"), ({"x": "a cat"}, "'x' are 'a cat'")],
)
def test_references_that_are_none(texts, message):
    with pytest.raises(ValueError, match=message):
        References(texts)


def test_a_list_of_captions_is_refused():
    # where types are checked at run time, the checker is first
    with pytest.raises((ValueError, TypeError)):
        evaluate({"x": ["a"]}, References({"x": ["a"]}))  # type: ignore[dict-item]


def test_an_unknown_tokenizer_lists_the_known():
    with pytest.raises(ValueError, match="simple, split"):
        References({"x": ["a"]}, "ptb3")


def test_a_no_break_space_splits_a_token_for_bleu_but_not_for_rouge(monkeypatch):
    # PTB's mixed fraction; here a tokenizer that cuts at commas.  BLEU: "4", "1/2" of 2 words; ROUGE: one word, wrong.
    monkeypatch.setattr(
        "limner.metrics.references.get_tokenizer",
        lambda name: lambda texts: [" ".join(text.split(",")) for text in texts],
    )
    report = evaluate({"x": "4 1/2"}, References({"x": ["4\u00a01/2"]}))
    assert report.scores["BLEU-1"] == pytest.approx(1, abs=1e-8)
    assert report.scores["ROUGE-L"] == 0


def test_metrics_are_chosen_by_name():
    assert list(select_metrics(["bleu", "ROUGE-L"])) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]
    assert list(select_metrics(["rouge", "cider-d", "CIDEr"])) == ["ROUGE-L", "CIDEr", "CIDEr-D"]
    report = evaluate(CAPTIONS, References(REFERENCES), select_metrics(["bleu-1"]))
    assert list(report.scores) == ["BLEU-1"] and set(report.segments[0]) == {"id", "caption"}
    with pytest.raises(ValueError, match="unknown metric 'spider'; known are BLEU-1, BLEU-2"):
        select_metrics(["CIDEr", "spider"])


def test_a_metric_that_cannot_be_computed_is_left_out_unless_it_was_asked_for(monkeypatch):
    references = References(REFERENCES)
    monkeypatch.setitem(METRICS, "ROUGE-L", impossible)
    report = evaluate(CAPTIONS, references)
    assert list(report.scores) == [name for name in METRICS if name != "ROUGE-L"]
    assert report.notes == ("ROUGE-L is left out: its tables are missing; pip install them",)
    assert report_to_json(report)["notes"] == report.notes
    with pytest.raises(ImportError, match="tables are missing"):
        evaluate(CAPTIONS, references, select_metrics(["rouge"]))
    with pytest.raises(ImportError, match="tables are missing"):
        evaluate(CAPTIONS, references, extra={"SPICE": impossible})


def test_more_metrics_stand_beside_the_usual_ones():
    report = evaluate(CAPTIONS, References(REFERENCES), extra={"SPICE": lengths})
    assert list(report.scores) == [*METRICS, "SPICE"] and report.scores["SPICE"] == 3
    assert [row["SPICE"] for row in report.segments] == [3, 3]
    assert report.notes == ()


def test_equal_metrics_are_computed_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        report_module, "METRICS", dict.fromkeys(("A", "B"), lambda c, r: calls.append(1) or lengths(c, r))
    )
    references = References(REFERENCES)
    found, _ = compute_scores(references.candidates(CAPTIONS), references)
    assert list(found) == ["A", "B"] and len(calls) == 1


def test_what_a_reader_should_know():
    assert evaluate({"x": "", "y": "..."}, References(REFERENCES)).notes == ("2 captions have no words",)
    single = evaluate({"x": "a", "y": "b"}, References({"x": ["a"], "y": ["c"]})).notes
    assert len(single) == 1 and "each medium has a single reference" in single[0]
    alone = evaluate({"x": "a cat"}, References({"x": ["a cat", "the cat"]}))
    assert len(alone.notes) == 1 and "CIDEr is 0" in alone.notes[0] and alone.scores["CIDEr"] == 0


def test_empty_captions_score_nothing_and_shift_nothing():
    references = References({"x": ["a cat sat"], "y": ["a dog ran"], "z": ["the bird"]})
    report = evaluate({"x": "a cat sat", "y": "", "z": "the bird"}, references)
    rows = {row["id"]: row for row in report.segments}
    assert rows["y"] | {"id": "", "caption": ""} == dict.fromkeys(("id", "caption"), "") | dict.fromkeys(
        ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L"), 0
    )
    whole = evaluate({"x": "a cat sat", "y": "a dog ran", "z": "the bird"}, references)
    assert [rows[id] for id in ("x", "z")] == [row for row in whole.segments if row["id"] != "y"]


def test_ten_thousand_words():
    long = " ".join(f"w{i % 700}" for i in range(10_000))
    report = evaluate({"x": long, "y": "a dog"}, References({"x": [long, "a"], "y": ["a dog"]}))
    assert report.scores["BLEU-1"] == pytest.approx(1) and report.segments[0]["ROUGE-L"] == pytest.approx(1)


def test_novelty_is_that_of_words():
    report = evaluate(CAPTIONS, References(REFERENCES), training=["A DOG RAN!"])
    assert report.novelty == 0 and "0.0% of the captions not in training" in printed(report_table(report))
    assert evaluate(CAPTIONS, References(REFERENCES), training=["a cat"]).novelty == 1
    assert evaluate(CAPTIONS, References(REFERENCES)).novelty is None


def test_the_micro_world_is_judged_exactly():
    scenes = {"x": Scene((SceneObject("circle", "red", "large", ((0.1, 0.1, 0.4, 0.4),)),))}
    scenes["y"] = Scene((SceneObject("star", "blue", "small", ((0.1, 0.1, 0.3, 0.3),)),))
    references = References({"x": ["a red circle"], "y": ["a blue star"]})
    report = evaluate({"x": "a red circle", "y": "a green star"}, references, scenes=scenes)
    assert report.exact == {"object": 1, "colour": 0.5, "hallucination": 0.5}
    assert "50.0%" in printed(microworld_table(report.exact)) and report_to_json(report)["exact"]["colour"] == 0.5
    assert evaluate({"x": "a", "y": "b"}, references).exact == {}


def test_several_captions_per_image():
    references = References({"x": ["a cat sat down"], "y": ["the dog ran off"]})
    samples = {"x": ["a cat", "a cat sat down", "dog"], "y": ["the", "the dog ran off", "the dog ran off"]}
    report = evaluate_samples(samples, references, extra={"length": lengths}, training=["a cat"])
    assert report.diversity == diversity(samples, references, ["a cat"]) and report.diversity.novelty == 5 / 6
    assert report.oracle["ROUGE-L"] == pytest.approx(1)  # the second of both
    assert report.mean["length"] == pytest.approx((2 + 4 + 1 + 1 + 4 + 4) / 6)
    assert report.oracle["length"] == 4
    each = [evaluate({id: texts[k] for id, texts in samples.items()}, references) for k in range(3)]
    for name in ("CIDEr", "BLEU-4", "ROUGE-L"):
        rows = np.array([[row[name] for row in one.segments] for one in each])
        assert report.mean[name] == pytest.approx(rows.mean())
        assert report.oracle[name] == pytest.approx(rows.max(0).mean())
    shown = " ".join(printed(sample_report_table(report)).split())
    assert "mean" in shown and "best" in shown and "self-CIDEr" in shown and "83.3% not in training" in shown
    assert json.loads(json.dumps(report_to_json(report)))["diversity"]["samples"] == 3
