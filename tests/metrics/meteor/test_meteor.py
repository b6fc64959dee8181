"""METEOR of captions: by hand with small tables, and with METEOR's own tables compared with the jar."""

import gc
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limner.metrics.meteor import evaluation, meteor, meteor_lines, tables, why_unavailable
from limner.metrics.meteor.evaluation import MeteorReferences
from limner.metrics.references import References

JAR = "meteor-1.5.jar"


@pytest.fixture
def with_little(package: Path) -> None:
    """METEOR uses the small tables in this test."""


@pytest.mark.usefixtures("with_little")
def test_what_is_known_of_references_is_kept_as_long_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[MeteorReferences] = []

    class Counted(MeteorReferences):
        def __init__(self, *args: Any) -> None:
            made.append(self)
            super().__init__(*args)

    monkeypatch.setattr(evaluation, "MeteorReferences", Counted)
    references = References({"1": ["a dog runs", "the hound"], "2": ["a cat"]}, "split")
    first = meteor(references.candidates({"1": "the dog", "2": "a big cat"}), references)
    again = meteor(references.candidates({"1": "the dog", "2": "a cat"}), references)
    assert len(made) == 1
    assert first.segments[0] == again.segments[0]
    assert again.segments[1] == 1 and 0 < first.segments[1] < 1
    before = len(evaluation._PREPARED)
    del references, made[:]
    gc.collect()
    assert len(evaluation._PREPARED) == before - 1


@pytest.mark.usefixtures("with_little")
def test_a_synonym_by_hand() -> None:
    # "big" and "large" are of one set; "dog" is exact; no function words; one chunk of all words: no penalty
    score = meteor_lines(["big dog"], [["large dog"]])
    assert score.segments[0] == pytest.approx((0.8 + 1) / 2, abs=1e-15)
    assert score.corpus == pytest.approx(score.segments[0], abs=1e-15)


@pytest.mark.usefixtures("with_little")
def test_the_best_reference_counts() -> None:
    each = [meteor_lines(["the big dog"], [[line]]).corpus for line in ("a cat", "the big dogs", "the big dog .")]
    assert meteor_lines(["the big dog"], [["a cat", "the big dogs", "the big dog ."]]).segments == [max(each)]


@pytest.mark.usefixtures("with_little")
@pytest.mark.parametrize("caption", ["", " ", "|||", "\x00", "\ud800", "\u2028", "zebra", "zebra " * 10_000])
def test_nothing_in_common_scores_nothing(caption: str) -> None:
    for score in (meteor_lines([caption], [["a dog"]]), meteor_lines(["a dog"], [[caption]])):
        assert score.corpus == 0 and score.segments.tolist() == [0]


@pytest.mark.usefixtures("with_little")
def test_the_protocols_separator_is_taken_as_coco_caption_takes_it() -> None:
    assert meteor_lines(["a |||dog"], [["a dog"]]).corpus == 1
    assert meteor_lines(["a dog"], [["a cat ||| a dog"]]).corpus == 1  # two references


@pytest.mark.usefixtures("with_little")
def test_ten_thousand_words_are_aligned() -> None:
    words = " ".join(f"w{i % 4_000}" for i in range(10_000))
    assert meteor_lines([words], [[words]]).corpus == 1
    assert 0 < meteor_lines([words], [["the dog w7 runs"]]).corpus < 0.01
    assert 0 < meteor_lines(["the dog w7 runs"], [[words]]).corpus < 0.01


@pytest.mark.usefixtures("with_little")
def test_a_caption_that_is_far_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.metrics.meteor.records.MAX_WORDS", 3)
    with pytest.raises(ValueError, match="a caption of 4 words; expected at most 3"):
        meteor_lines(["a"], [["a b c d"]])


@pytest.mark.parametrize(("candidates", "references"), [(["a"], []), (["a"], [[]]), ([], [["a"]])])
def test_lists_that_do_not_fit_are_refused(candidates: list[str], references: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="expected one list for each candidate"):
        meteor_lines(candidates, references)


def segments() -> tuple[list[dict[str, Any]], float]:
    header, *rows = map(json.loads, (Path(__file__).parent / "segments.jsonl").read_text(encoding="utf-8").splitlines())
    return rows, header["corpus"]


@pytest.mark.slow  # METEOR's tables are converted, once per machine
@pytest.mark.skipif(why_unavailable() is not None, reason="needs pycocoevalcap")
def test_scores_are_the_jars() -> None:
    rows, corpus = segments()
    assert len(rows) == 310
    score = meteor_lines([row["hypothesis"] for row in rows], [row["references"] for row in rows])
    expected = np.array([row["score"] for row in rows])
    assert np.abs(score.segments - expected).max() < 1e-12
    assert score.corpus == pytest.approx(corpus, abs=1e-12)
    known = MeteorReferences([row["references"] for row in rows], evaluation.load_tables())
    counts = known.count([row["hypothesis"] for row in rows])
    assert counts.tolist() == [row["counts"] for row in rows]
    assert np.array_equal(
        known.count_without_numba(*known.lexicon.sentences([row["hypothesis"] for row in rows])), counts
    )


@pytest.mark.java
def test_the_file_holds_what_the_jar_says() -> None:
    package = tables.find_pycocoevalcap()
    if package is None:
        pytest.skip("needs pycocoevalcap")
    rows, corpus = segments()
    command = ["java", "-Xmx2G", "-Duser.country=US", "-jar", JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    asked = [" ||| ".join(["SCORE", *row["references"], row["hypothesis"]]) for row in rows]
    asked.append(" ||| ".join(["EVAL", *(" ".join(map(str, row["counts"])) for row in rows)]))
    found = subprocess.run(
        command, cwd=package / "meteor", input="\n".join(asked) + "\n", stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    assert [[float(count) for count in line.split()] for line in found[: len(rows)]] == [row["counts"] for row in rows]
    assert [float(line) for line in found[len(rows) :]] == [*(row["score"] for row in rows), corpus]
