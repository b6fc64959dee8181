import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.metrics.references import References, Score, position_masks
from limner.metrics.rouge import lcs_length, rouge_l
from tests.metrics.corpus import corpus


def score(captions: dict[str, str], references: dict[str, list[str]]) -> Score:
    known = References(references, "split")
    return rouge_l(known.candidates(captions), known)


def slow_lcs(a: list[str], b: list[str]) -> int:
    """The length of the longest common subsequence by dynamic programming, as in a textbook."""
    row = [0] * (len(b) + 1)
    for x in a:
        left = [0]
        for j, y in enumerate(b):
            left.append(row[j] + 1 if x == y else max(row[j + 1], left[j]))
        row = left
    return row[-1]


def test_one_reference():
    # common "the cat sat": P 3/3, R 3/4; (1 + 1.44) .75 / (.75 + 1.44) = 1.83 / 2.19
    assert score({"x": "the cat sat"}, {"x": ["the cat sat down"]}).corpus == pytest.approx(1.83 / 2.19, abs=1e-12)


def test_words_need_not_be_neighbours():
    # common "a b c": P 3/5, R 3/3; 2.44 * .6 / (1 + 1.44 * .6) = 1.464 / 1.864
    assert score({"x": "a x b y c"}, {"x": ["a b c"]}).corpus == pytest.approx(1.464 / 1.864, abs=1e-12)


def test_precision_and_recall_take_their_best_reference_separately():
    # "the cat sat down" gives P 1, R 3/4; "cat" gives P 1/3, R 1: both maxima are 1
    assert score({"x": "the cat sat"}, {"x": ["the cat sat down", "cat"]}).corpus == pytest.approx(1, abs=1e-12)


def test_an_empty_caption_is_one_empty_word():
    found = score({"x": "", "y": "", "z": "a"}, {"x": ["a"], "y": [""], "z": [""]})
    assert found.segments.tolist() == [0, 1, 0]
    assert found.corpus == pytest.approx(1 / 3)


words = st.lists(st.sampled_from("abcd"), max_size=80)


@settings(deadline=None)
@given(words, words)
def test_the_bit_parallel_lcs_equals_the_table(a, b):
    assert lcs_length(a, position_masks(b), len(b)) == slow_lcs(a, b)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_references_is_nothing(seed):
    captions, references = corpus(seed)
    shuffled = {id: random.Random(seed).sample(texts, len(texts)) for id, texts in references.items()}
    assert score(captions, references).segments.tolist() == score(captions, shuffled).segments.tolist()


@pytest.mark.parametrize("seed", range(40))
def test_equals_coco_caption(seed):
    oracle = pytest.importorskip("pycocoevalcap.rouge.rouge")
    captions, references = corpus(seed)
    whole, parts = oracle.Rouge().compute_score(references, {id: [text] for id, text in captions.items()})
    found = score(captions, references)
    assert found.corpus == whole and found.segments.tolist() == list(parts)
