"""Seeded corpora with the corner cases: empty captions, repeated words, one image, one reference, a perfect copy."""

import random

WORDS = [f"w{i}" for i in range(12)]  # few, so that words repeat and n-grams match

Corpus = tuple[dict[str, str], dict[str, list[str]]]


def corpus(seed: int) -> Corpus:
    """Captions and 1-12 references per image; at least one reference has a word (the oracle fails on none)."""
    rng = random.Random(seed)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.choice([0, 1, 2, 3, 4, 5, 8, 12])))

    images = [str(i) for i in range(rng.choice([1, 2, 5, 20]))]
    most = rng.choice([1, 12])
    references = {id: [sentence() for _ in range(rng.randint(1, most))] for id in images}
    references["0"][0] = references["0"][0] or "w1"
    return {id: rng.choice([sentence(), references[id][0]]) for id in images}, references
