"""Consensus of captions: which of several sentences agrees most with all of them (minimum Bayes risk decoding).

    consensus([[5, 6, 7], [5, 6, 8], [9]], logprobs=np.log([0.3, 0.4, 0.3]))    # captions as ids -> the best first

Kumar and Byrne, "Minimum Bayes-risk decoding for statistical machine translation", NAACL 2004.  The gain is CIDEr-D, as
in metrics and in self-critical training.  All n-grams weigh the same: document frequencies of training captions gave no
better captions of clips (docs/experiments/video-captioning.md).
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float

from limner.metrics.cider import Hypotheses, cider_d
from limner.metrics.ngrams import Postings


def consensus(captions: Sequence[Sequence[int]], logprobs: Float[np.ndarray, " H"], n_best: int = 1) -> list[int]:
    """The places of the `n_best` different captions with the largest expected CIDEr-D, best first.

    `captions` are token ids without BOS and EOS.  `logprobs` are natural logarithms of their probabilities, which need
    not sum to 1; a caption of -inf is none.  The same caption may stand there several times, as when several frames of
    a clip lead to it; its probabilities then add up.  Of captions with equal values the more probable one comes first.
    Fewer places are returned when there are fewer captions.

    Raises ValueError when no caption has a probability.

    Two captions share "5 6" and "6"; the third one is likelier than each, and alone.

    >>> consensus([[5, 6, 7], [5, 6, 8], [9, 4]], np.log([0.3, 0.3, 0.4]), n_best=3)
    [0, 1, 2]
    """
    usable = np.flatnonzero(np.isfinite(logprobs))
    if not len(usable):
        raise ValueError("none of the captions has a probability above 0: there is nothing to choose from")
    places: dict[tuple[int, ...], int] = {}  # each different caption and the first place where it stands
    for place in usable.tolist():
        places.setdefault(tuple(captions[place]), place)
    number = {caption: k for k, caption in enumerate(places)}
    share = np.exp(logprobs[usable] - logprobs[usable].max())
    probabilities = np.bincount([number[tuple(captions[place])] for place in usable], share / share.sum())
    gain = expected_cider_d([*places], probabilities).round(9)  # rounded: sums in another order are equal
    order = np.lexsort((-probabilities, -gain))
    return [[*places.values()][k] for k in order[:n_best]]


def expected_cider_d(
    captions: Sequence[Sequence[int]], probabilities: Float[np.ndarray, " H"]
) -> Float[np.ndarray, " H"]:
    """CIDEr-D of every caption, in [0, 10], expected where the right one is among them with these probabilities.

    `captions` are token ids without BOS and EOS.  `probabilities` sum to 1.

    "5 6" equals itself: the cosine is 1 for n = 1 and 2, and 0 for n = 3 and 4, because there are no such n-grams, so
    CIDEr-D is 10 * 2 / 4 = 5.  "9" equals itself in one order, 10 / 4.  The two share nothing.

    >>> expected_cider_d([[5, 6], [9]], np.array([0.8, 0.2])).round(6).tolist()
    [4.0, 0.5]
    """
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    tokens = np.fromiter(chain.from_iterable(captions), np.int64, int(lengths.sum()))
    postings = Postings(tokens, lengths, np.array([len(captions)]))  # one medium, which all captions describe
    counts = postings.counts
    pair = postings.lookup(counts.ngram, np.zeros_like(counts.ngram))
    equal = np.ones(len(counts.ngram))
    hypotheses = Hypotheses(counts, equal, pair, lengths, np.zeros(len(captions), np.int64))
    return cider_d(hypotheses, postings, counts.tfidf_norms(equal, len(captions)), probabilities)


def agreement(captions: Sequence[Sequence[str]]) -> list[float | None]:
    """How much each caption of a medium, as words, agrees with the others: its mean CIDEr-D with them, in [0, 1].

    A caption of less than four words cannot reach 1, because it has no n-grams of all sizes.  A caption without others
    has None.

    The first two are equal, and have no n-grams of three and four words: 10 * 2 / 4 = 5 of 10.

    >>> agreement([["red", "dog"], ["red", "dog"], ["blue", "sky"]]), agreement([["red", "dog"]])
    ([0.25, 0.25, 0.0], [None])
    """
    if len(captions) < 2:
        return [None] * len(captions)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(chain(*captions)))}
    tokens = [[numbers[word] for word in caption] for caption in captions]
    others = (1 - np.eye(len(tokens))) / (len(tokens) - 1)
    return [round(float(expected_cider_d(tokens, share)[place]) / 10, 6) for place, share in enumerate(others)]
