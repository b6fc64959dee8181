"""What a captioner has to beat: captions copied from the nearest training medium, and one caption for all.

    python benchmarks/baselines.py recipes/msrvtt1000_sa_lstm.yaml --split test

A medium is the mean of its real cells, each channel standardised over the training split; near is a high cosine.
Copied is the neighbour's first caption, or its most typical one: that with the highest ROUGE-L against its others.
The caption for all is the one that occurs most often in the training split, or the training caption that scores
highest, as the caption of every training medium, against their references (of the 200 with the likeliest words).
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from math import log

import numpy as np
from jaxtyping import Float

from limner.core.types import Features, Medium
from limner.data.datasets import read_dataset
from limner.metrics.cider import cider
from limner.metrics.references import References
from limner.metrics.report import evaluate
from limner.metrics.rouge import rouge_l
from limner.runs.inputs import RecipeInputs, open_inputs
from limner.runs.recipe_file import load_recipe
from limner.text.tokens import get_tokenizer

CANDIDATES = 200
SHOWN = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


def pooled(inputs: RecipeInputs, media: Sequence[Medium]) -> Float[np.ndarray, "M D"]:
    """The mean of every medium's real cells."""
    rows = []
    for medium in media:
        features = inputs.reader([(medium, "full")])
        if not isinstance(features, Features):
            features = inputs.encoder(features)
        weight = features.mask[0][:, None].float()
        rows.append(((features.grid[0] * weight).sum(0) / weight.sum()).detach().numpy())
    return np.stack(rows)


def nearest(known: Float[np.ndarray, "M D"], asked: Float[np.ndarray, "N D"]) -> list[int]:
    """For every row of `asked` the row of `known` that is most like it."""
    mean, spread = known.mean(0), known.std(0) + 1e-6
    unit = [(x - mean) / spread for x in (known, asked)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in unit]
    return (unit[1] @ unit[0].T).argmax(1).tolist()


def typical(medium: Medium) -> str:
    """The caption that is most like the medium's other ones."""
    texts = medium.references
    if len(texts) < 3:
        return texts[0]
    ids = [str(k) for k in range(len(texts))]
    others = References({id: [text for j, text in enumerate(texts) if j != int(id)] for id in ids})
    return texts[int(np.argmax(rouge_l(others.candidates(dict(zip(ids, texts, strict=True))), others).segments))]


def likely(train: Sequence[Medium]) -> list[str]:
    """Training captions whose words are the likeliest ones, by their mean log frequency and not too short."""
    lines = Counter(get_tokenizer("ptb")([text for medium in train for text in medium.references]))
    words = Counter(word for line, count in lines.items() for word in line.split() * count)
    total = sum(words.values())

    def mean(line: str) -> float:
        return sum(log(words[word] / total) for word in line.split()) / len(line.split())

    long = [line for line in lines if 5 <= len(line.split()) <= 12]
    return sorted(long, key=mean, reverse=True)[:CANDIDATES]


def best_for_all(train: Sequence[Medium]) -> str:
    references = References({medium.id: medium.references for medium in train})
    found = {
        text: cider(references.candidates({medium.id: text for medium in train}), references).corpus
        for text in likely(train)
    }
    return max(found, key=found.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    dataset, inputs = read_dataset(recipe.data), open_inputs(recipe)
    train = inputs.split_readable([m for m in dataset.split("train") if m.references])[0]
    asked = inputs.split_readable([m for m in dataset.split(options.split) if m.references])[0]
    copied = [train[k] for k in nearest(pooled(inputs, train), pooled(inputs, asked))]
    common = Counter(text for medium in train for text in medium.references).most_common(1)[0][0]
    best = best_for_all(train)
    baselines = {
        "nearest, its first caption": [medium.references[0] for medium in copied],
        "nearest, its most typical caption": [typical(medium) for medium in copied],
        f"most frequent caption: {common!r}": [common] * len(asked),
        f"best caption for all: {best!r}": [best] * len(asked),
    }
    references = References({medium.id: medium.references for medium in asked})
    print(f"{options.split}: {len(asked)} media, {len(train)} for training; PTB tokens")
    for name, captions in baselines.items():
        report = evaluate({medium.id: text for medium, text in zip(asked, captions, strict=True)}, references)
        told = "  ".join(f"{key} {report.scores[key]:.3f}" for key in SHOWN if key in report.scores)
        print(f"{told}  distinct {report.distinct:4}  {name}")


if __name__ == "__main__":
    main()
