"""How various captions are: words and n-grams of several captions per image, and how much is copied from training.

The definitions are those of the multi-caption evaluation in self-critical.pytorch; tokens are the references'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from jaxtyping import Float

from limner.metrics.bleu import bleu
from limner.metrics.ngrams import tabulate
from limner.metrics.references import References
from limner.text.tokens import get_tokenizer

Lines = Sequence[Sequence[str]]  # per image its captions, as tokens joined by one blank


@dataclass(frozen=True)
class Diversity:
    """n captions for each of many images; more of everything but mBLEU is more diverse.

    samples     captions per image, n
    div_1       different words / words, of an image's captions; mean over the images, in [0, 1]
    div_2       different bigrams / words (so the published code has it)
    mbleu_4     BLEU-4 of a caption against the image's others: corpus BLEU, mean over the n positions, in [0, 1]
    self_cider  see `self_cider`, in [0, 1]
    vocabulary  different words in all captions (gDiv-1)
    distinct    different captions
    novelty     share of captions that are no training caption; None: there are none to compare with
    """

    samples: int
    div_1: float
    div_2: float
    mbleu_4: float
    self_cider: float
    vocabulary: int
    distinct: int
    novelty: float | None


def diversity(
    captions: Mapping[str, Sequence[str]], references: References, training: Sequence[str] | None = None
) -> Diversity:
    """Measure several captions per image; every image has as many.

    The references give the tokenizer and the document frequencies of self-CIDEr; the ids must be theirs.
    Raises ValueError for other ids, fewer than two captions for an image, or not equally many.
    """
    samples = _samples(captions, references)
    tokens = iter(get_tokenizer(references.tokenizer)([text for id in references.ids for text in captions[id]]))
    lines = [[next(tokens) for _ in range(samples)] for _ in references.ids]
    every = list(chain.from_iterable(lines))
    return Diversity(
        samples=samples,
        div_1=distinct_ngrams(lines, 1),
        div_2=distinct_ngrams(lines, 2),
        mbleu_4=mutual_bleu(lines),
        self_cider=float(self_cider(lines, references.lines).mean()),
        vocabulary=len({word for line in every for word in line.split()}),
        distinct=len(set(every)),
        novelty=None if training is None else novelty(every, training, references.tokenizer),
    )


def distinct_ngrams(lines: Lines, n: int) -> float:
    """Div-n: different n-grams of an image's captions over their words (words for every n), mean over the images."""
    shares = []
    for captions in lines:
        words = [line.split() for line in captions]
        grams = {tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)}
        shares.append(len(grams) / (sum(map(len, words)) + 1e-6))
    return float(np.mean(shares))


def mutual_bleu(lines: Lines, order: int = 4) -> float:
    """mBLEU-n: the k-th captions of all images against their images' others, corpus BLEU-n; mean over k."""
    scores = []
    for k in range(len(lines[0])):
        others = References({str(i): [*c[:k], *c[k + 1 :]] for i, c in enumerate(lines)}, "split")
        scores.append(bleu(others.candidates({str(i): c[k] for i, c in enumerate(lines)}), others, order).corpus)
    return float(np.mean(scores))


def self_cider(lines: Lines, references: Lines) -> Float[np.ndarray, " I"]:
    """Self-CIDEr of each image (Wang and Chan, "Describing like humans", CVPR 2019), in [0, 1].

    The kernel holds the CIDEr / 10 of every two of the n captions: the mean over n-gram orders of the cosines of their
    tf-idf vectors, with document frequencies of the references.  Of its eigenvalues l, clipped at 0, the score is
    -log(sqrt(max l) / sum of sqrt(l)) / log(n): 0 for captions that are all the same, 1 for such that share nothing.
    0 where no n-gram has a weight, as with a single image.
    """
    number: dict[str, int] = {}
    words = [line.split() for line in chain(chain.from_iterable(references), chain.from_iterable(lines))]
    ids = np.array([number.setdefault(word, len(number)) for sentence in words for word in sentence], dtype=np.int64)
    grams, table = tabulate(ids, np.array([len(sentence) for sentence in words]))
    owner = np.repeat(np.arange(len(references)), [len(captions) for captions in references])
    known = table.row < len(owner)
    pairs = np.unique(np.stack([table.gram[known], owner[table.row[known]]]), axis=1)
    df = np.bincount(pairs[0], minlength=len(grams))
    idf = (np.log(len(references)) - np.log(np.maximum(1, df)))[table.gram]
    norms = table.norms(idf, len(words))[table.row, table.order]
    weight = np.divide(table.count * idf, norms, out=np.zeros(len(norms)), where=norms > 0)

    samples = len(lines[0])
    order = np.argsort(table.row, kind="stable")
    row, gram, weight = table.row[order], table.gram[order], weight[order]
    first = np.searchsorted(row, len(owner) + samples * np.arange(len(lines) + 1))
    scores = np.zeros(len(lines))
    for image, (begin, end) in enumerate(pairwise(first)):
        column = np.unique(gram[begin:end], return_inverse=True)[1]
        vectors = np.zeros((samples, column.max(initial=-1) + 1))
        vectors[row[begin:end] - len(owner) - samples * image, column] = weight[begin:end]
        roots = np.sqrt(np.clip(np.linalg.eigvalsh(vectors @ vectors.T), 0, None))
        if roots[-1] > 0:
            scores[image] = -np.log(roots[-1] / roots.sum()) / np.log(samples)
    return scores


def novelty(lines: Sequence[str], training: Sequence[str], tokenizer: str) -> float:
    """Share of captions (`lines` of tokens) that are no training caption (text), in [0, 1]."""
    known = set(get_tokenizer(tokenizer)(training))
    return sum(line not in known for line in lines) / len(lines)


def _samples(captions: Mapping[str, Sequence[str]], references: References) -> int:
    if set(captions) != set(references.ids):
        raise ValueError(
            f"captions are of {len(captions)} images and references of {len(references.ids)}, not the same"
        )
    counts = {len(texts): id for id, texts in captions.items()}
    if len(counts) > 1 or min(counts) < 2:
        shown = ", ".join(f"{id!r} has {count}" for count, id in sorted(counts.items())[:3])
        raise ValueError(f"diversity is that of equally many captions for each image, at least 2; {shown}")
    return next(iter(counts))
