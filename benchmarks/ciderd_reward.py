"""The CIDEr-D reward of 250 sampled captions x 5 references against the usual Python; equal scores, CPU time compared.

    OMP_NUM_THREADS=1 python benchmarks/ciderd_reward.py --rounds 5

20,000 images of COCO val2014 x 5 captions (from the jar in an installed pycocoevalcap) are the training split: words
seen 5 times, document frequencies, references.  A step scores 50 images x 5 samples, captions of the image with
a fifth of their words replaced at random; a round is 8 steps.  `usual` is what self-critical training commonly runs,
written anew: ids as strings, references split and counted again for every hypothesis at every call, vectors as dicts,
numpy's scalar functions on every n-gram.  For a sense of scale the same with Python's scalar functions, and
pycocoevalcap's CIDEr (which counts its document frequencies at each call too, so that its scores are others).  limner
indexes the references once, which is timed apart.
"""

import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocoevalcap.cider.cider import Cider

from limner.core.types import EOS, PAD
from limner.metrics.ciderd import CiderD
from limner.text.vocabulary import Vocabulary
from paired import PUBLISHED, arguments, report, take_turns
from scores import coco_captions

IMAGES, BATCH, SAMPLES, REFERENCES, STEPS = 20_000, 50, 5, 5, 8
REPLACED = 0.2

Vector = list[dict[tuple[str, ...], float]]


def count(sentence: str) -> Counter[tuple[str, ...]]:
    words = sentence.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


def frequencies(references: Iterable[Sequence[str]]) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = defaultdict(int)
    for sentences in references:
        for gram in {gram for sentence in sentences for gram in count(sentence)}:
            found[gram] += 1
    return found


def usual(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    df: Mapping[tuple[str, ...], int],
    images: int,
    scalar: Any = np,
) -> list[float]:
    """CIDEr-D of each hypothesis against the references beside it; `scalar` has log, sqrt and exp."""

    def vector(counts: Counter[tuple[str, ...]]) -> tuple[Vector, list[float], int]:
        weights: Vector = [{}, {}, {}, {}]
        squares, bigrams = [0.0] * 4, 0
        for gram, times in counts.items():
            n = len(gram) - 1
            weight = times * (scalar.log(images) - scalar.log(max(1.0, df.get(gram, 0))))
            weights[n][gram] = weight
            squares[n] += weight * weight
            bigrams += times if n == 1 else 0
        return weights, [scalar.sqrt(square) for square in squares], bigrams

    scores = []
    for hypothesis, sentences in zip(hypotheses, references, strict=True):
        ours, our_norms, our_bigrams = vector(count(hypothesis))
        total = 0.0
        for sentence in sentences:
            theirs, norms, bigrams = vector(count(sentence))
            penalty = scalar.exp(-((our_bigrams - bigrams) ** 2) / 72)
            for n in range(4):
                value = sum(min(w, theirs[n].get(gram, 0.0)) * theirs[n].get(gram, 0.0) for gram, w in ours[n].items())
                if our_norms[n] and norms[n]:
                    total += value / (our_norms[n] * norms[n]) * penalty / 4
        scores.append(10 * total / len(sentences))
    return scores


def sampled(references: Sequence[Sequence[Sequence[int]]], words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hypotheses (BATCH * SAMPLES, L), and which image each is of."""
    images = np.repeat(random.sample(range(len(references)), BATCH), SAMPLES)
    rows = []
    for image in images:
        row = random.choice(references[image])
        rows.append([i if i == EOS or random.random() > REPLACED else random.randrange(4, words) for i in row])
    tokens = np.full((len(rows), max(map(len, rows))), PAD)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens, images


def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    random.seed(0)
    captions = [texts[:REFERENCES] for texts in list(coco_captions().values())[:IMAGES]]
    vocabulary = Vocabulary.build((text for texts in captions for text in texts), 5)
    references = [[vocabulary.encode(text)[1:] for text in texts] for texts in captions]
    begin = time.process_time()
    reward = CiderD(references)
    print(f"{len(references)} images x {REFERENCES}, {len(vocabulary)} words: indexed in", end=" ")
    print(f"{time.process_time() - begin:.2f} s, {len(reward.frequencies.count)} n-grams")

    steps = [sampled(references, len(vocabulary)) for _ in range(STEPS)]
    text = [[" ".join(map(str, ids)) for ids in sentences] for sentences in references]
    df = frequencies(text)
    plain = [
        ([" ".join(str(i) for i in row if i != PAD) for row in tokens], [text[image] for image in images])
        for tokens, images in steps
    ]

    def fast() -> list[float]:
        return [score for tokens, images in steps for score in reward.score(tokens, images).tolist()]

    def slow(scalar: Any) -> Callable[[], list[float]]:
        return lambda: [score for both in plain for score in usual(*both, df=df, images=len(references), scalar=scalar)]

    def coco() -> None:
        for hypotheses, beside in plain:
            Cider().compute_score(dict(enumerate(beside)), {i: [text] for i, text in enumerate(hypotheses)})

    gap = max(abs(a - b) for a, b in zip(fast(), slow(np)(), strict=True))
    print(f"{STEPS} x {BATCH * SAMPLES} captions, mean CIDEr-D {np.mean(fast()):.3f}, largest difference {gap:.1e}")
    if gap > 1e-9:
        return 1
    variants = {
        "limner": fast,
        "the usual Python": slow(np),
        "the same, Python's scalar functions": slow(math),
        "pycocoevalcap's CIDEr": coco,
    }
    seconds = take_turns(variants, rounds)
    report(seconds, {"the usual Python": 30}, paired_with=f"{PUBLISHED} of self-critical training, and pycocoevalcap")
    for name, times in seconds.items():
        print(f"{name}: {STEPS * BATCH * SAMPLES / sorted(times)[len(times) // 2]:,.0f} captions/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
