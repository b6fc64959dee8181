import io
import json
import random
import time

import pytest
from rich.console import Console

from limner.metrics.references import References
from limner.metrics.report import METRICS, evaluate, table, to_json
from tests.metrics.corpus import corpus

REFERENCES = {"x": ["A cat sat.", "The cat sat down!"], "y": ["A dog ran."]}
CAPTIONS = {"y": "a dog ran", "x": "a dog ran"}


def test_a_report_says_what_was_measured_and_how():
    report = evaluate(CAPTIONS, References(REFERENCES))
    assert list(report.scores) == list(METRICS)
    # words of x: "a" of 3 (clipped to one match), of y: 3 of 3; same lengths
    assert report.scores["BLEU-1"] == pytest.approx(4 / 6, abs=1e-8)
    assert report.scores["CIDEr"] == report.scores["CIDEr-D"]
    assert [(row["id"], row["caption"]) for row in report.segments] == [("x", "a dog ran"), ("y", "a dog ran")]
    assert report.segments[1]["ROUGE-L"] == pytest.approx(1)
    assert set(report.segments[0]) == {"id", "caption", "CIDEr", "BLEU-4", "ROUGE-L"}
    assert (report.distinct, report.vocabulary, report.length) == (1, 3, 3.0)
    assert report.protocol["images"] == 2
    assert (report.protocol["references min"], report.protocol["references mean"]) == (1, 1.5)
    assert "stand-in" in str(report.protocol["tokenizer"])


def test_each_image_has_the_scores_of_its_id_whatever_the_order():
    captions, references = corpus(3)
    rows = evaluate(captions, References(references, "split")).segments
    turned = evaluate(dict(reversed(captions.items())), References(references, "split")).segments
    assert rows == turned


def test_json_and_table():
    report = evaluate(CAPTIONS, References(REFERENCES))
    again = json.loads(json.dumps(to_json(report)))
    assert again["scores"] == report.scores and again["segments"] == list(report.segments)
    out = io.StringIO()
    Console(file=out, width=120).print(table(report))
    assert "66.7" in out.getvalue() and "x100" in out.getvalue() and "2 images" in out.getvalue()


def test_other_ids_are_an_error_that_shows_both_sides():
    references = References({str(i): ["a"] for i in range(5)})
    with pytest.raises(
        ValueError, match=r"no caption: 5 images \('0', '1', '2', \.\.\.\); .*references: 1 image \('q'\)"
    ):
        evaluate({"q": "a"}, references)
    with pytest.raises(ValueError, match=r"no caption: 1 image \('4'\); caption but no references: 0 images"):
        evaluate({str(i): "a" for i in range(4)}, references)


@pytest.mark.parametrize(
    ("texts", "message"),
    [({}, "empty"), ({"x": ["a"], "y": []}, r"1 image \('y'\)"), ({"x": "a cat"}, "'x' are 'a cat'")],
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
        "limner.metrics.references.find_tokenizer",
        lambda name: lambda texts: [" ".join(text.split(",")) for text in texts],
    )
    report = evaluate({"x": "4 1/2"}, References({"x": ["4\u00a01/2"]}))
    assert report.scores["BLEU-1"] == pytest.approx(1, abs=1e-8)
    assert report.scores["ROUGE-L"] == 0


def test_a_thousand_images_score_in_a_second():
    rng = random.Random(0)
    words = [f"w{i}" for i in range(2000)]
    captions = {str(i): " ".join(rng.choices(words[:200], k=11)) for i in range(1000)}
    references = References({id: [" ".join(rng.choices(words, k=11)) for _ in range(5)] for id in captions})
    begin = time.process_time()
    evaluate(captions, references)
    assert time.process_time() - begin < 1  # measured: .06 s
