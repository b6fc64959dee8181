"""CIDEr-D of sampled captions, given as ids: the reward of self-critical training (Rennie et al., CVPR 2017).

    reward = CiderD([[[5, 9, EOS], [5, 8, 9, EOS]], ...])      # for each training medium its references as ids
    reward.score(sampled, medium)                              # (H, L) ids, (H,) place of each row's medium -> (H,)

The references of all training media are given once.  A call counts the n-grams of the hypotheses and of the references
of their media only, so its cost does not depend on the size of the training split.  One call may score samples and
greedy captions together: any number of rows per medium, in any order.

**EOS is a word.**  As in the published training code, the end token takes part in the n-grams of hypotheses and
references alike.  A caption that never ends therefore scores less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from safetensors import SafetensorError, safe_open

from limner.core.files import write_safetensors
from limner.core.types import BOS, EOS, PAD
from limner.metrics.cider import Hypotheses, cider_d
from limner.metrics.ngrams import MAX_ORDER, NgramIndex, Postings, concatenated_ranges, count_ngrams

ReferenceIds = Sequence[Sequence[Sequence[int]]]  # per medium, per reference: ids up to and including EOS, without BOS
FORMAT = "limner document frequencies 1"
MAX_ID = (1 << 31) - 1  # so that a key of `NgramIndex` fits into an int64


@dataclass(frozen=True, eq=False)
class DocumentFrequencies:
    """For each n-gram the number of media whose references contain it.

    media  number of all media (`ref_len` in the published training code)
    index  the n-grams
    count  (G,) number of media per n-gram

    >>> frequencies = DocumentFrequencies.from_references([[[4, 5, EOS]], [[4, 6, EOS]]])
    >>> frequencies.count[:4].tolist()                                  # of EOS, 4, 5, 6
    [2, 2, 1, 1]
    >>> frequencies.idf[:4].round(3).tolist()
    [0.0, 0.0, 0.693, 0.693]
    """

    media: int
    index: NgramIndex
    count: Int[np.ndarray, " G"]

    @classmethod
    def from_references(cls, references: ReferenceIds) -> "DocumentFrequencies":
        """Count the references of the training split.  Raises ValueError as `CiderD` does."""
        return cls.from_postings(Postings(*_flatten_references(references)))

    @classmethod
    def from_postings(cls, postings: Postings) -> "DocumentFrequencies":
        """The document frequencies that an inverted index of references has."""
        return cls(len(postings.per_medium), postings.index, postings.document_frequency)

    @cached_property
    def idf(self) -> Float[np.ndarray, " _"]:
        """(G+1,) log(media) - log(max(1, count)).  The last value is that of an n-gram that the index lacks."""
        return np.log(self.media) - np.log(np.maximum(1, np.append(self.count, 0)))

    def save(self, path: str | Path) -> None:
        """Write as safetensors, atomically."""
        arrays = {f"keys{n}": keys for n, keys in enumerate(self.index.keys, 1)} | {"count": self.count}
        metadata = {"images": str(self.media), "width": str(self.index.width), "format": FORMAT}
        write_safetensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "DocumentFrequencies":
        """Read a file that `save` wrote.  Raises ValueError for another file or a damaged one."""
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                keys = tuple(file.get_tensor(f"keys{n}") for n in range(1, MAX_ORDER + 1))
                count = file.get_tensor("count")
            loaded = cls(int(metadata["images"]), NgramIndex(keys, int(metadata["width"])), count)
            if metadata["format"] != FORMAT or not loaded._is_valid():
                raise ValueError(f"format {metadata['format']!r}")
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} does not hold document frequencies ({error}); build them again") from error
        return loaded

    def _is_valid(self) -> bool:
        """Whether the arrays have the types, sizes and orders that `NgramIndex` needs."""
        prefixes, width = 1, self.index.width
        for keys in self.index.keys:
            if keys.dtype != np.int64 or keys.ndim != 1:
                return False
            if (np.diff(keys, prepend=-1) <= 0).any() or (keys >= prefixes * width).any():
                return False
            prefixes = len(keys)
        return self.media > 0 and self.count.shape == (len(self.index),) and bool((self.count >= 0).all())


class CiderD:
    """CIDEr-D against the references of the training media, which are numbered 0 .. I-1 in the given order.

    Letters in shapes: H hypotheses, L ids, R references, B media of a call.

    Two media with one reference each.  The ids 4 and EOS occur in the references of both, so their idf is 0; all other
    n-grams have the idf log(2).  The hypothesis "4 5 EOS" equals the reference of medium 0: the cosine is 1 for
    n = 1, 2, 3, there is no 4-gram, and the score is 10 * 3 / 4.  It shares with the reference of medium 1 only
    n-grams of idf 0.

    >>> reward = CiderD([[[4, 5, EOS]], [[4, 6, EOS]]])
    >>> rows = np.array([[4, 5, EOS, PAD], [4, 5, EOS, PAD]])
    >>> reward.score(rows, medium=np.array([0, 1])).round(6).tolist()
    [7.5, 0.0]
    """

    def __init__(self, references: ReferenceIds, frequencies: DocumentFrequencies | None = None) -> None:
        """Count the references.

        references   per medium, per reference: `vocabulary.encode(text)[1:]`, the ids up to and including EOS
        frequencies  document frequencies; None: those of these references

        Raises ValueError when there are no media, when a medium has no reference, and for ids that no reference can
        have: BOS, PAD, words after EOS, negative ids.
        """
        self._tokens, self._lengths, self._per_medium = _flatten_references(references)
        self._start = np.cumsum(self._lengths) - self._lengths
        self._first = np.cumsum(self._per_medium) - self._per_medium
        postings = Postings(self._tokens, self._lengths, self._per_medium)
        self.frequencies = frequencies or DocumentFrequencies.from_postings(postings)
        counts = postings.counts
        self._norms = counts.tfidf_norms(self._idf(postings.index)[counts.ngram], len(self._lengths))

    def __len__(self) -> int:
        return len(self._per_medium)

    def score(
        self, hypotheses: Integer[np.ndarray, "H L"], medium: Integer[np.ndarray, " H"]
    ) -> Float[np.ndarray, " H"]:
        """CIDEr-D in [0, 10] of each row against the references of its medium.

        A row ends with its first EOS, which counts as a word, or before its first PAD, or with the last column.
        Raises ValueError for a number that is no medium, for another number of media than rows, and for BOS or negative
        ids in a hypothesis.
        """
        if len(medium) != len(hypotheses):
            raise ValueError(f"{len(hypotheses)} hypotheses, but {len(medium)} numbers of media; expected one per row")
        if len(medium) and not 0 <= medium.min() <= medium.max() < len(self):
            raise ValueError(f"media {medium.min()} to {medium.max()} are asked for; expected 0 to {len(self) - 1}")
        order = np.argsort(medium, kind="stable")
        scores = np.empty(len(medium))
        scores[order] = self._score(hypotheses[order], medium[order])
        return scores

    def _score(
        self, hypotheses: Integer[np.ndarray, "H L"], medium: Integer[np.ndarray, " H"]
    ) -> Float[np.ndarray, " H"]:
        """`score` of rows that are sorted by medium, which makes the keys that are looked up sorted too."""
        tokens, lengths = flatten_hypotheses(hypotheses)
        index, counts = count_ngrams(tokens, lengths)
        media, medium = np.unique(medium, return_inverse=True)
        references, rows = self.postings(media)
        pair = references.lookup(references.index.lookup(index)[counts.ngram], medium[counts.sentence])
        idf = self._idf(index)[counts.ngram]
        return cider_d(Hypotheses(counts, idf, pair, lengths, medium), references, self._norms[rows])

    def postings(self, media: Int[np.ndarray, " B"]) -> tuple[Postings, Int[np.ndarray, " _"]]:
        """An inverted index of the references of these media, and the place of each among all references."""
        per_medium = self._per_medium[media]
        rows = concatenated_ranges(self._first[media], per_medium)
        lengths = self._lengths[rows]
        return Postings(self._tokens[concatenated_ranges(self._start[rows], lengths)], lengths, per_medium), rows

    def _idf(self, index: NgramIndex) -> Float[np.ndarray, " G"]:
        return self.frequencies.idf[self.frequencies.index.lookup(index)]


def flatten_hypotheses(hypotheses: Integer[np.ndarray, "H L"]) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " H"]]:
    """The ids of all rows, one after another, and the number of ids of each row.

    A row ends with its first EOS, which is included, or before its first PAD.  Raises ValueError for BOS and for
    negative ids.

    >>> rows = np.array([[4, 5, EOS, 7], [6, PAD, PAD, PAD]])
    >>> [array.tolist() for array in flatten_hypotheses(rows)]
    [[4, 5, 2, 6], [3, 1]]
    """
    stop = (hypotheses == EOS) | (hypotheses == PAD)
    counted = (np.cumsum(stop, 1) - stop == 0) & (hypotheses != PAD)
    tokens = hypotheses[counted].astype(np.int64)
    _check_ids(tokens, "hypothesis")
    return tokens, counted.sum(1)


def _flatten_references(
    references: ReferenceIds,
) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " R"], Int[np.ndarray, " I"]]:
    """The ids of all references, one after another; the number of ids of each; the number of references per medium."""
    per_medium = np.fromiter(map(len, references), np.int64, len(references))
    if not len(per_medium):
        raise ValueError("no references: expected for each medium a list of id sequences")
    if not per_medium.all():
        empty = np.flatnonzero(per_medium == 0)
        raise ValueError(f"{len(empty)} media have no reference, the first is number {empty[0]}; leave them out")
    lengths = np.fromiter(map(len, chain.from_iterable(references)), np.int64, int(per_medium.sum()))
    tokens = np.fromiter(chain.from_iterable(chain.from_iterable(references)), np.int64, int(lengths.sum()))
    _check_ids(tokens, "reference")
    last = np.zeros(len(tokens), bool)
    last[np.cumsum(lengths)[lengths > 0] - 1] = True
    if ((tokens == PAD) | (tokens == EOS) & ~last).any():
        raise ValueError(f"a reference has ids after EOS ({EOS}) or holds PAD ({PAD}); give its ids up to EOS")
    return tokens, lengths, per_medium


def _check_ids(tokens: Int[np.ndarray, " T"], where: str) -> None:
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() <= MAX_ID:
        raise ValueError(f"a {where} holds ids {tokens.min()} to {tokens.max()}; expected 0 to {MAX_ID}")
    if (tokens == BOS).any():
        raise ValueError(f"a {where} holds BOS ({BOS}), which is no word of a caption; give the ids after it")
