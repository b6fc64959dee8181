"""How diverse several captions of the same medium are, and how many captions are copied from the training captions.

The definitions are those of the multi-caption evaluation in self-critical.pytorch.  Captions are tokenised as the
references are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from jaxtyping import Float

from limner.metrics.bleu import bleu
from limner.metrics.ngrams import count_ngrams
from limner.metrics.references import References
from limner.text.tokens import get_tokenizer

TokenizedCaptions = Sequence[Sequence[str]]  # per medium its captions, as tokens joined by one blank


@dataclass(frozen=True)
class Diversity:
    """The diversity of n captions for each of many media.  Higher is more diverse, except for mBLEU.

    samples     captions per medium, n
    div_1       distinct words / words of a medium's captions; mean over the media, in [0, 1]
    div_2       distinct bigrams / words, as in the published code
    mbleu_4     corpus BLEU-4 of a caption against the others of its medium; mean over the n positions, in [0, 1]
    self_cider  see `self_cider`, in [0, 1]
    vocabulary  distinct words in all captions (gDiv-1)
    distinct    distinct captions
    novelty     share of captions that are no training caption; None without training captions
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
    """Measure several captions per medium, the same number for every medium.

    captions    {id: list of captions}, with the ids of the references
    references  give the tokenizer, and the document frequencies of self-CIDEr
    training    training captions, for the novelty

    Raises ValueError for other ids, fewer than two captions for a medium, or another number than for the others.
    """
    samples = _captions_per_medium(captions, references)
    tokens = iter(get_tokenizer(references.tokenizer)([text for id in references.ids for text in captions[id]]))
    tokenized = [[next(tokens) for _ in range(samples)] for _ in references.ids]
    all_captions = list(chain.from_iterable(tokenized))
    return Diversity(
        samples=samples,
        div_1=distinct_ngrams(tokenized, 1),
        div_2=distinct_ngrams(tokenized, 2),
        mbleu_4=mutual_bleu(tokenized),
        self_cider=float(self_cider(tokenized, references.tokenized).mean()),
        vocabulary=len({word for caption in all_captions for word in caption.split()}),
        distinct=len(set(all_captions)),
        novelty=None if training is None else novelty(all_captions, training, references.tokenizer),
    )


def distinct_ngrams(tokenized: TokenizedCaptions, n: int) -> float:
    """Div-n: distinct n-grams of a medium's captions / its words (words for every n); the mean over the media.

    Four distinct words (a, cat, sat, ran) of six; three distinct bigrams (a cat, cat sat, cat ran), also of six words:

    >>> captions = [["a cat sat", "a cat ran"]]
    >>> round(distinct_ngrams(captions, 1), 3), round(distinct_ngrams(captions, 2), 3)
    (0.667, 0.5)
    """
    shares = []
    for captions in tokenized:
        words = [caption.split() for caption in captions]
        ngrams = {tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)}
        shares.append(len(ngrams) / (sum(map(len, words)) + 1e-6))
    return float(np.mean(shares))


def mutual_bleu(tokenized: TokenizedCaptions, order: int = 4) -> float:
    """mBLEU-n: corpus BLEU-n of the k-th caption of every medium against the other captions; the mean over k."""
    scores = []
    for k in range(len(tokenized[0])):
        others = References({str(i): [*c[:k], *c[k + 1 :]] for i, c in enumerate(tokenized)}, "split")
        scores.append(bleu(others.candidates({str(i): c[k] for i, c in enumerate(tokenized)}), others, order).corpus)
    return float(np.mean(scores))


def self_cider(tokenized: TokenizedCaptions, references: TokenizedCaptions) -> Float[np.ndarray, " I"]:
    """Self-CIDEr of each medium (Wang and Chan, "Describing like humans", CVPR 2019), in [0, 1].

    The n captions of a medium give an n x n kernel matrix of their similarities, CIDEr / 10: the mean over n-gram
    orders of the cosines of tf-idf vectors, with the document frequencies of the references.  With its eigenvalues l,
    clipped at 0, the score is -log(sqrt(max l) / sum of sqrt(l)) / log(n).

    Equal captions give a matrix of equal numbers, which has one eigenvalue above 0, and the score 0.  Captions without
    common words give a diagonal matrix, whose eigenvalues are equal if the captions are equally long, and the score 1.
    The score is also 0 where every idf is 0, as with a single medium.

    >>> references = [["a cat sat"], ["the dog ran"]]
    >>> abs(self_cider([["a cat", "a cat"], ["the dog", "a cat"]], references)).round(3).tolist()
    [0.0, 1.0]
    """
    word_ids: dict[str, int] = {}
    sentences = [line.split() for line in chain(chain.from_iterable(references), chain.from_iterable(tokenized))]
    ids = np.array([word_ids.setdefault(w, len(word_ids)) for words in sentences for w in words], dtype=np.int64)
    index, counts = count_ngrams(ids, np.array([len(words) for words in sentences]))
    medium_of = np.repeat(np.arange(len(references)), [len(captions) for captions in references])
    of_reference = counts.sentence < len(medium_of)
    pairs = np.unique(
        np.stack([counts.ngram[of_reference], medium_of[counts.sentence[of_reference]]]), axis=1
    )  # (n-gram, medium whose references contain it)
    df = np.bincount(pairs[0], minlength=len(index))
    idf = (np.log(len(references)) - np.log(np.maximum(1, df)))[counts.ngram]
    norms = counts.tfidf_norms(idf, len(sentences))[counts.sentence, counts.order]
    weight = np.divide(counts.count * idf, norms, out=np.zeros(len(norms)), where=norms > 0)

    samples = len(tokenized[0])
    by_sentence = np.argsort(counts.sentence, kind="stable")
    sentence, ngram, weight = counts.sentence[by_sentence], counts.ngram[by_sentence], weight[by_sentence]
    first = np.searchsorted(sentence, len(medium_of) + samples * np.arange(len(tokenized) + 1))
    scores = np.zeros(len(tokenized))
    for medium, (begin, end) in enumerate(pairwise(first)):
        column = np.unique(ngram[begin:end], return_inverse=True)[1]
        vectors = np.zeros((samples, column.max(initial=-1) + 1))
        vectors[sentence[begin:end] - len(medium_of) - samples * medium, column] = weight[begin:end]
        roots = np.sqrt(np.clip(np.linalg.eigvalsh(vectors @ vectors.T), 0, None))
        if roots[-1] > 0:
            scores[medium] = -np.log(roots[-1] / roots.sum()) / np.log(samples)
    return scores


def novelty(tokenized: Sequence[str], training: Sequence[str], tokenizer: str) -> float:
    """The share of tokenised captions that are no training caption, in [0, 1]; `training` is text.

    >>> novelty(["a cat", "a dog"], training=["A cat."], tokenizer="simple")
    0.5
    """
    known = set(get_tokenizer(tokenizer)(training))
    return sum(caption not in known for caption in tokenized) / len(tokenized)


def _captions_per_medium(captions: Mapping[str, Sequence[str]], references: References) -> int:
    if set(captions) != set(references.ids):
        raise ValueError(
            f"captions are of {len(captions)} media and references of {len(references.ids)}, or of other ids; "
            "expected captions for exactly the media that have references"
        )
    counts = {len(texts): id for id, texts in captions.items()}
    if len(counts) > 1 or min(counts) < 2:
        examples = ", ".join(f"{id!r} has {count}" for count, id in sorted(counts.items())[:3])
        raise ValueError(f"diversity needs the same number of captions for every medium, at least 2; {examples}")
    return next(iter(counts))
