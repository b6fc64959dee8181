"""Diversity: values derived by hand, and plain versions that follow the definitions word for word."""

import math
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from limner.metrics.diversity import distinct_ngrams, diversity, mutual_bleu, novelty, self_cider
from limner.metrics.references import References
from tests.metrics.corpus import WORDS


def test_distinct_ngrams_by_hand():
    lines = [["a cat sat", "a cat ran"], ["dog dog dog", "dog"]]
    # words: {a, cat, sat, ran} of 6, {dog} of 4; bigrams: {a cat, cat sat, cat ran}, {dog dog}; divided by words
    assert distinct_ngrams(lines, 1) == pytest.approx((4 / 6 + 1 / 4) / 2, abs=1e-6)
    assert distinct_ngrams(lines, 2) == pytest.approx((3 / 6 + 1 / 4) / 2, abs=1e-6)
    assert distinct_ngrams([["", ""]], 1) == 0


def test_mutual_bleu_by_hand():
    assert mutual_bleu([["a cat sat down", "a cat sat down"]]) == pytest.approx(1)
    assert mutual_bleu([["a b c d", "e f g h"]]) < 1e-3
    # position 0: "a cat" and "dog" hold 1 of 2 and 1 of 1 words; lengths 3 against 1 + 1.
    # position 1: "cat" and "dog": 2 of 2 words; length 2 against 2 + 1, so exp(1 - 3/2).
    lines = [["a cat", "cat"], ["dog", "dog"]]
    assert mutual_bleu(lines, 1) == pytest.approx((2 / 3 + math.exp(-1 / 2)) / 2)


def test_self_cider_by_hand():
    references = [["a cat sat"], ["the dog ran"]]  # every word is in one of two images: idf log 2
    same = self_cider([["a cat", "a cat"], ["dog", "dog"]], references)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    apart = self_cider([["a cat", "the dog"], ["sat", "ran"]], references)
    np.testing.assert_allclose(apart, 1, atol=1e-9)
    # "a cat sat" and "a": cosine 1/sqrt(3) in words, no other n-gram in common.  The kernel, times 4, is
    # [[3, c], [c, 1]] (the first has three orders, the second one) with eigenvalues 2 +- sqrt(1 + c^2).
    c = 1 / math.sqrt(3)
    high, low = (math.sqrt(2 + sign * math.sqrt(1 + c * c)) for sign in (1, -1))
    found = self_cider([["a cat sat", "a"], ["dog", "ran"]], references)
    assert found[0] == pytest.approx(-math.log(high / (high + low)) / math.log(2))
    assert self_cider([["a cat", "a dog"]], [["a cat"]]).tolist() == [0]  # one image: every idf is 0


def slow_self_cider(captions: list[str], references: list[list[str]]) -> float:
    """Self-CIDEr of one medium with dictionaries, one pair of captions at a time."""

    def grams(line: str, n: int) -> Counter:
        words = line.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def idf(gram: tuple[str, ...]) -> float:
        holding = sum(any(gram in grams(line, len(gram)) for line in lines) for lines in references)
        return math.log(len(references)) - math.log(max(1, holding))

    def cosine(a: str, b: str, n: int) -> float:
        x, y = ({gram: count * idf(gram) for gram, count in grams(line, n).items()} for line in (a, b))
        product = sum(weight * y.get(gram, 0) for gram, weight in x.items())
        norm = math.sqrt(sum(w * w for w in x.values())) * math.sqrt(sum(w * w for w in y.values()))
        return product / norm if norm else 0.0

    kernel = [[sum(cosine(a, b, n) for n in (1, 2, 3, 4)) / 4 for b in captions] for a in captions]
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(np.array(kernel)), 0, None))
    return -math.log(roots[-1] / roots.sum()) / math.log(len(captions)) if roots[-1] else 0.0


def samples(seed: int, images: int = 6, count: int = 4) -> tuple[list[list[str]], list[list[str]]]:
    rng = random.Random(seed)

    def sentence(words: list[str]) -> str:
        return " ".join(rng.choices(words, k=rng.choice([0, 1, 2, 3, 5, 9])))

    lines = [[sentence([*WORDS, "unseen"]) for _ in range(count)] for _ in range(images)]
    return lines, [[sentence(WORDS) for _ in range(rng.randint(1, 5))] for _ in range(images)]


@pytest.mark.parametrize("seed", range(5))
def test_twins(seed: int):
    lines, references = samples(seed)
    slow = [slow_self_cider(captions, references) for captions in lines]
    np.testing.assert_allclose(self_cider(lines, references), slow, atol=1e-6)  # a root of 1e-16 is 1e-8
    for n in (1, 2):
        shares = []
        for captions in lines:
            seen = [tuple(c.split()[i : i + n]) for c in captions for i in range(max(0, len(c.split()) - n + 1))]
            shares.append(len(set(seen)) / (len(" ".join(captions).split()) + 1e-6))
        assert distinct_ngrams(lines, n) == pytest.approx(np.mean(shares))
    assert mutual_bleu(lines) == pytest.approx(slow_mutual_bleu(lines))


def slow_mutual_bleu(lines: list[list[str]]) -> float:
    """Corpus BLEU-4 for each position; mean over the positions."""
    scores = []
    for k in range(len(lines[0])):
        correct, guess, length, closest = [0] * 5, [0] * 5, 0, 0
        for captions in lines:
            mine, others = captions[k].split(), [c.split() for j, c in enumerate(captions) if j != k]
            length += len(mine)
            closest += min((abs(len(other) - len(mine)), len(other)) for other in others)[1]
            for n in range(1, 5):
                counts = [Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for w in (mine, *others)]
                guess[n] += sum(counts[0].values())
                correct[n] += sum(min(count, max(c[gram] for c in counts[1:])) for gram, count in counts[0].items())
        product = math.prod((correct[n] + 1e-15) / (guess[n] + 1e-9) for n in range(1, 5))
        ratio = (length + 1e-15) / (closest + 1e-9)
        scores.append(product ** (1 / 4) * math.exp(min(0, 1 - 1 / ratio)))
    return sum(scores) / len(scores)


def test_the_order_of_captions_does_not_matter_to_an_image():
    lines, references = samples(9)
    turned = [captions[::-1] for captions in lines]
    np.testing.assert_allclose(self_cider(turned, references), self_cider(lines, references), atol=1e-6)
    assert mutual_bleu(turned) == pytest.approx(mutual_bleu(lines))
    assert all(0 <= score <= 1 for score in self_cider(lines, references))
    for a, b in combinations(range(3), 2):  # copies add nothing
        copies = [[captions[a]] * 2 + [captions[b]] * 2 for captions in lines]
        assert distinct_ngrams(copies, 1) <= distinct_ngrams([[c[a], c[b]] for c in lines], 1) + 1e-6


def test_novelty_compares_words():
    assert novelty(["a cat", "a dog", "a cat"], ["A cat.", "the dog"], "simple") == pytest.approx(1 / 3)
    assert novelty(["a cat"], [], "simple") == 1


def test_all_of_it():
    references = References({"x": ["A cat sat.", "a cat"], "y": ["the dog ran"]})
    found = diversity({"y": ["a dog", "The dog!"], "x": ["A cat.", "a cat"]}, references, ["a cat", "the dog"])
    assert found.samples == 2 and found.vocabulary == 4 and found.distinct == 3
    assert found.novelty == 1 / 4  # "a dog"
    assert found.div_1 == pytest.approx((2 / 4 + 3 / 4) / 2, abs=1e-6)
    assert found.div_2 == pytest.approx((1 / 4 + 2 / 4) / 2, abs=1e-6)
    lines = [["a cat", "a cat"], ["a dog", "the dog"]]
    assert found.self_cider == pytest.approx(self_cider(lines, references.tokenized).mean())
    assert found.mbleu_4 == pytest.approx(mutual_bleu(lines))
    assert diversity({"y": ["a", "b"], "x": ["c", "d"]}, references).novelty is None


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"x": ["a"], "y": ["b"]}, "at least 2; 'y' has 1"),
        ({"x": ["a", "b"], "y": ["b"]}, "the same number .* 'y' has 1, 'x' has 2"),
        ({"x": ["a", "b"]}, "captions are of 1 media and references of 2"),
    ],
)
def test_what_has_no_diversity(captions: dict[str, list[str]], message: str):
    with pytest.raises(ValueError, match=message):
        diversity(captions, References({"x": ["a"], "y": ["b"]}))
