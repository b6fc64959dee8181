import math
import random
from collections import Counter

import pytest

from limner.metrics.cider import cider
from limner.metrics.references import References, Score
from tests.metrics.corpus import corpus


def score(captions: dict[str, str], references: dict[str, list[str]]) -> Score:
    known = References(references, "split")
    return cider(known.candidates(captions), known)


def slow(captions: dict[str, str], references: dict[str, list[str]]) -> list[float]:
    """The paper's equations, one sum at a time."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def idf(gram: tuple[str, ...]) -> float:
        df = sum(any(gram in grams(text, len(gram)) for text in texts) for texts in references.values())
        return math.log(len(references)) - math.log(max(1, df))

    def similarity(caption: str, text: str) -> float:
        total = 0.0
        for n in (1, 2, 3, 4):
            h = {gram: count * idf(gram) for gram, count in grams(caption, n).items()}
            r = {gram: count * idf(gram) for gram, count in grams(text, n).items()}
            norm = math.sqrt(sum(v * v for v in h.values())) * math.sqrt(sum(v * v for v in r.values()))
            product = sum(min(v, r.get(g, 0)) * r.get(g, 0) for g, v in h.items())
            total += product / norm if norm else 0
        longer = max(0, len(caption.split()) - 1) - max(0, len(text.split()) - 1)
        return total / 4 * math.exp(-(longer**2) / (2 * 6**2))

    return [10 * sum(similarity(captions[id], text) for text in texts) / len(texts) for id, texts in references.items()]


def test_two_images_by_hand():
    # idf: a log(2/2) = 0; b, c, "a b", "a c" log 2.
    # x: cosine 1 for n = 1 (of "b", as "a" weighs 0) and n = 2, none for 3 and 4: 10 (1 + 1) / 4 = 5.
    # y: n = 1: caption (b log 2, c 2 log 2), reference (c log 2): min(2, 1) * 1 / (sqrt(5) * 1); no bigram in common;
    #    one word longer: exp(-1 / 72).
    captions, references = {"x": "a b", "y": "b c c"}, {"x": ["a b"], "y": ["a c"]}
    y = 10 / 4 / math.sqrt(5)
    found = score(captions, references)
    assert found.segments == pytest.approx([5, y * math.exp(-1 / 72)], abs=1e-12)
    assert found.corpus == pytest.approx((5 + y * math.exp(-1 / 72)) / 2, abs=1e-12)


def test_rare_words_weigh_more():
    # three images: idf a log(3/2), b log 3.  "a" against "a b": cosine log 1.5 / |(log 1.5, log 3)|, one word shorter.
    found = score({"x": "a", "y": "d", "z": "d"}, {"x": ["a b"], "y": ["a c"], "z": ["d"]})
    cosine = math.log(1.5) / math.hypot(math.log(1.5), math.log(3))
    assert found.segments == pytest.approx([10 / 4 * cosine * math.exp(-1 / 72), 0, 10 / 4], abs=1e-12)


def test_a_word_no_reference_holds_lengthens_the_caption():
    # "b q": q has df 0, counted as 1, idf log 2: n = 1 cosine 1 / sqrt(2); "b q" is no bigram of "a b"; same length
    found = score({"x": "b q", "y": "c"}, {"x": ["a b"], "y": ["a c"]})
    assert found.segments[0] == pytest.approx(10 / 4 / math.sqrt(2), abs=1e-12)


def test_references_are_averaged():
    # only one of x's two references shares a word: half of "a b" against itself, 10 (1 + 1) / 4 / 2
    assert score({"x": "a b", "y": "c"}, {"x": ["a b", "e f"], "y": ["a c"]}).segments[0] == pytest.approx(2.5)


def test_one_image_and_empty_captions_score_nothing():
    assert score({"x": "a b"}, {"x": ["a b", "a"]}).corpus == 0  # every idf is log 1
    assert score({"x": "", "y": ""}, {"x": ["a b"], "y": [""]}).segments.tolist() == [0, 0]
    assert score({"x": "a", "y": ""}, {"x": [""], "y": [""]}).segments.tolist() == [0, 0]  # the oracle fails on this


@pytest.mark.parametrize("seed", range(12))
def test_equals_its_slow_twin(seed):
    captions, references = corpus(seed)
    expected = slow(captions, references)
    found = score(captions, references)
    assert found.segments == pytest.approx(expected, rel=0, abs=1e-9)
    assert found.corpus == pytest.approx(sum(expected) / len(expected), rel=0, abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_references_and_images_is_nothing(seed):
    captions, references = corpus(seed)
    shuffled = {id: random.Random(seed).sample(texts, len(texts)) for id, texts in reversed(references.items())}
    assert score(captions, references).segments == pytest.approx(score(captions, shuffled).segments[::-1], abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_equals_coco_caption(seed):
    oracle = pytest.importorskip("pycocoevalcap.cider.cider")
    captions, references = corpus(seed)
    whole, parts = oracle.Cider().compute_score(references, {id: [text] for id, text in captions.items()})
    found = score(captions, references)
    assert found.corpus == pytest.approx(whole, rel=0, abs=1e-12)
    assert found.segments == pytest.approx(parts, rel=0, abs=1e-12)
