"""The numbers of an explained caption: by hand, and equal to what the metrics give for random sentences."""

from dataclasses import replace
from math import exp, log, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.metrics.bleu import bleu
from limner.metrics.breakdown import break_down, caption, find_id
from limner.metrics.breakdown.cider import break_down_cider
from limner.metrics.breakdown.rouge import break_down_rouge, common_subsequence
from limner.metrics.cider import cider
from limner.metrics.meteor import MissingTablesError
from limner.metrics.references import References, position_masks
from limner.metrics.rouge import lcs_length, rouge_l
from tests.metrics.corpus import corpus


@pytest.fixture(autouse=True)
def without_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR's tables are large and may be missing; `test_meteor` has tables of its own."""

    def missing(line: str, references: object) -> None:
        raise MissingTablesError("METEOR needs tables")

    monkeypatch.setattr(caption, "break_down_meteor", missing)


TWO = References({"x": ["the cat sat on the mat", "a cat sat"], "y": ["the dog ran"]}, "split")


def test_bleu_by_hand() -> None:
    """ "the" twice, of which a reference has two; "dog" in none; "the cat" and "cat sat" match, "sat the" does not."""
    found = break_down(TWO, "x", "the cat sat the dog").bleu
    first, second, third, fourth = found.orders
    assert [(it.ngram, it.count, it.reference, it.clipped) for it in first.matches] == [
        (("the",), 2, 2, 2),
        (("cat",), 1, 1, 1),
        (("sat",), 1, 1, 1),
        (("dog",), 1, 0, 0),
    ]
    assert (first.correct, first.total, first.precision) == (4, 5, 4 / 5)
    assert (second.correct, second.total) == (2, 4) and (third.correct, third.total) == (1, 3)
    assert (fourth.correct, fourth.total, fourth.precision) == (0, 2, 0.0)
    assert (found.length, found.reference_lengths, found.closest) == (5, (6, 3), 6)
    assert found.brevity_penalty == exp(1 - 6 / 5)
    assert second.score == pytest.approx(sqrt(4 / 5 * 2 / 4) * exp(1 - 6 / 5))


def test_cider_by_hand() -> None:
    """ "cat" and "sat" are of one medium (idf log 2), "the" of both (0).  The caption is one word longer."""
    found = break_down(TWO, "x", "the cat sat sat").cider
    assert [(it.ngram, it.count, it.media, it.idf) for it in found.weights[:3]] == [
        (("the",), 1, 2, 0.0),
        (("cat",), 1, 1, log(2)),
        (("sat",), 2, 1, log(2)),
    ]
    assert found.weights[-1].ngram == ("the", "cat", "sat", "sat") and found.weights[-1].media == 0
    unigrams = found.references[1].cosines[0]  # of "a cat sat": a, cat, sat with log 2 each
    assert [(it.ngram, it.count, it.reference) for it in unigrams.shared] == [(("cat",), 1, 1), (("sat",), 2, 1)]
    assert unigrams.dot == pytest.approx(2 * log(2) ** 2)
    assert unigrams.norm == pytest.approx(sqrt(1 + 4) * log(2)) and unigrams.reference_norm == pytest.approx(
        sqrt(3) * log(2)
    )
    assert unigrams.cosine == pytest.approx(2 / sqrt(15))
    assert found.references[1].difference == 1 and found.references[1].length_penalty == exp(-1 / 72)
    assert found.score == pytest.approx(10 * (found.references[0].value + found.references[1].value) / 2)


def test_rouge_by_hand() -> None:
    """Precision 3 / 4 with the first reference, recall 2 / 3 with the second: of two references."""
    found = break_down(TWO, "x", "the cat on mat").rouge
    assert [it.pairs for it in found.references] == [((0, 0), (1, 1), (2, 3), (3, 5)), ((1, 1),)]
    assert (found.precision, found.recall) == (1.0, 4 / 6)
    assert found.score == pytest.approx((1 + 1.44) * (2 / 3) / (2 / 3 + 1.44))
    assert break_down_rouge([""], [["a"]]).score == 0


words = st.lists(st.sampled_from("abc"), max_size=7)


@given(first=words, second=words)
def test_the_common_subsequence_is_a_longest_one(first: list[str], second: list[str]) -> None:
    pairs = common_subsequence(first, second)
    assert len(pairs) == lcs_length(first, position_masks(second), len(second))
    assert all(first[i] == second[j] for i, j in pairs)
    assert list(pairs) == sorted(pairs) and len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_the_numbers_reproduce_the_scores(seed: int) -> None:
    """BLEU and ROUGE-L to the last bit, CIDEr up to the order of its sums."""
    texts, by_id = corpus(seed)
    references = References(by_id, "split")
    candidates = references.candidates(texts)
    bleus = [bleu(candidates, references, n).segments for n in range(1, 5)]
    rouge, scores = rouge_l(candidates, references).segments, cider(candidates, references).segments
    for row, id in enumerate(references.ids[:3]):
        found = break_down(references, id, texts[id])
        assert [order.score for order in found.bleu.orders] == [segments[row] for segments in bleus]
        assert found.rouge.score == rouge[row]
        assert found.cider.score == pytest.approx(scores[row], abs=1e-12)
        check_sums(found)


def check_sums(found: caption.CaptionBreakdown) -> None:
    """What a reader would add and multiply gives the numbers below it."""
    for order in found.bleu.orders:
        assert order.correct == sum(match.clipped for match in order.matches)
        assert order.total == sum(match.count for match in order.matches)
        assert all(match.clipped == min(match.count, match.reference) for match in order.matches)
        product = 1.0
        for other in found.bleu.orders[: order.n]:
            assert other.precision == (other.correct / other.total if other.total else 0)
            product *= (other.correct + 1e-15) / (other.total + 1e-9)
        assert order.score == pytest.approx(product ** (1 / order.n) * found.bleu.brevity_penalty, rel=1e-6, abs=1e-9)
    for reference in found.cider.references:
        for cosine in reference.cosines:
            assert cosine.dot == pytest.approx(sum(it.product for it in cosine.shared))
            assert cosine.cosine * cosine.norm * cosine.reference_norm == pytest.approx(cosine.dot, abs=1e-9)
            assert all(
                it.product == pytest.approx(min(it.count, it.reference) * it.reference * it.idf**2)
                for it in cosine.shared
            )
        mean = sum(cosine.cosine for cosine in reference.cosines) / 4
        assert reference.value == pytest.approx(mean * reference.length_penalty)
    values = [reference.value for reference in found.cider.references]
    assert found.cider.score == pytest.approx(10 * sum(values) / len(values))


def test_document_frequencies_are_counted_on_all_media() -> None:
    ngrams = [("the",), ("cat", "sat"), ("dog", "ran"), ("the", "dog", "ran"), ("dog", "the"), ("zebra",)]
    assert TWO.document_frequency(ngrams).tolist() == [2, 1, 1, 1, 0, 0]
    assert TWO.document_frequency([]).tolist() == []
    assert break_down_cider([], [["a"]], TWO).score == 0


def test_notes_say_what_surprises() -> None:
    alone = break_down(References({"x": ["a cat"]}, "split"), "x", "a dog")
    assert alone.cider.score == 0 and alone.meteor is None
    assert alone.notes == (
        "METEOR is not shown: METEOR needs tables",
        "every idf is log(1 / 1) = 0 with the references of a single medium, and so is CIDEr",
        "BLEU of an order without a match is not 0: coco-caption adds 1e-15 to the matches and 1e-9 to the n-grams",
    )
    assert list(alone.scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert alone.to_json()["rouge"]["precision"] == 0.5 and alone.to_json()["caption"] == "a dog"


def test_ids() -> None:
    ids = ["val/7.jpg", "42", "cat_on_mat"]
    assert [find_id(id, ids) for id in ("42", "COCO_val2014_000000000042.jpg", "7")] == ["42", "42", "val/7.jpg"]
    with pytest.raises(ValueError, match="no caption with the id 'cat_mat'; near ones are 'cat_on_mat'"):
        find_id("cat_mat", ids)
    with pytest.raises(ValueError, match=r"the id 'zzz'; the 3 ids are 'val/7.jpg', '42', 'cat_on_mat'"):
        find_id("zzz", ids)
    with pytest.raises(ValueError, match="no caption with the id 'z'"):
        break_down(TWO, "z", "a")
    with pytest.raises(ValueError, match="no caption with the id '07'"):
        find_id("07", ["7", "007"])  # two of them
    assert replace(break_down(TWO, "x", ""), notes=()).scores["ROUGE-L"] == 0
