import contextlib
import io
import math
import random

import pytest

from limner.metrics.bleu import bleu
from limner.metrics.references import References, Score
from tests.metrics.corpus import corpus


def score(captions: dict[str, str], references: dict[str, list[str]], order: int) -> Score:
    known = References(references, "split")
    return bleu(known.candidates(captions), known, order)


def test_all_matched_but_too_short_for_four_grams():
    # 3/3 words, 2/2 bigrams, 1/1 trigram; closest length 3, so no penalty.
    # No 4-gram: (0 + 1e-15) / (0 + 1e-9) = 1e-6, whose fourth root is 10 ** -1.5.
    captions, references = {"x": "the cat sat"}, {"x": ["the cat sat down", "a cat sat"]}
    for order, expected in enumerate((1, 1, 1, 10**-1.5), 1):
        assert score(captions, references, order).corpus == pytest.approx(expected, abs=1e-8)


def test_clipping_and_brevity():
    # "the" counts once (no reference holds it twice): 2/3 words.  "the the" no, "the cat" yes: 1/2 bigrams.
    # Lengths 4 and 5: closest 4, penalty exp(1 - 4/3).
    captions, references = {"x": "the the cat"}, {"x": ["the cat sat on", "a cat by the door"]}
    penalty = math.exp(-1 / 3)
    assert score(captions, references, 1).corpus == pytest.approx(2 / 3 * penalty, abs=1e-8)
    assert score(captions, references, 2).corpus == pytest.approx(math.sqrt(2 / 3 * 1 / 2) * penalty, abs=1e-8)


def test_of_two_lengths_as_near_the_shorter_counts():
    # 3 words against 2 and 4: with 4 the penalty would be exp(-1/3)
    assert score({"x": "a b c"}, {"x": ["a b c d", "a b"]}, 1).corpus == pytest.approx(1, abs=1e-8)


def test_the_corpus_pools_its_counts():
    # 1/2 and 4/4 words: pooled 5/6, where the mean of the segments is 3/4
    found = score({"x": "a b", "y": "a b c d"}, {"x": ["a c"], "y": ["a b c d"]}, 1)
    assert found.corpus == pytest.approx(5 / 6, abs=1e-8)
    assert found.segments == pytest.approx([1 / 2, 1], abs=1e-8)


@pytest.mark.parametrize("references", [["a b"], [""], ["", "a"]])
def test_an_empty_caption_scores_nothing(references):
    assert score({"x": ""}, {"x": references}, 4).corpus == pytest.approx(0, abs=1e-6)


def test_another_order_is_refused():
    with pytest.raises(ValueError, match="BLEU-5"):
        score({"x": "a"}, {"x": ["a"]}, 5)


@pytest.mark.parametrize("seed", range(10))
def test_a_copy_scores_one_and_the_order_of_references_is_nothing(seed):
    captions, references = corpus(seed)
    long = {id: texts[0] + " a b c d" for id, texts in references.items()}
    perfect = score(long, {id: [*references[id], long[id]] for id in references}, 4)
    assert perfect.corpus == pytest.approx(1, abs=1e-8) and perfect.segments == pytest.approx(1, abs=1e-8)
    shuffled = {id: random.Random(seed).sample(texts, len(texts)) for id, texts in references.items()}
    assert score(captions, references, 4).corpus == score(captions, shuffled, 4).corpus


@pytest.mark.parametrize("seed", range(40))
def test_equals_coco_caption(seed):
    oracle = pytest.importorskip("pycocoevalcap.bleu.bleu")
    captions, references = corpus(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        whole, parts = oracle.Bleu(4).compute_score(
            references, {id: [text] for id, text in captions.items()}, verbose=0
        )
    for order in (1, 2, 3, 4):
        found = score(captions, references, order)
        assert found.corpus == pytest.approx(whole[order - 1], rel=0, abs=1e-14)
        assert found.segments == pytest.approx(parts[order - 1], rel=0, abs=1e-14)
