"""CIDEr-D of sampled id sequences, the reward of self-critical training (Rennie et al., CVPR 2017).

    reward = CiderD([[[5, 9, EOS], [5, 8, 9, EOS]], ...])      # per training image its references as ids
    reward.score(sampled, image)                               # (R, L) ids, (R,) which image each -> (R,) in [0, 10]

The references of all training images are given once; a call counts the n-grams of the hypotheses and of their images'
references only, so that it costs the same however large the training split is.  One call may score samples and greedy
captions together, any number of rows per image, in any order.

**The end is a word.**  As in the published training code, the end token takes part in the n-grams of hypotheses and
references alike: a caption that never ends is missed by it.
"""

from collections.abc import Mapping, Sequence
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
from limner.metrics.cider import Sentences, cider_d
from limner.metrics.ngrams import ORDERS, Ngrams, Postings, ranges, tabulate

Sequences = Sequence[Sequence[Sequence[int]]]  # per image, per reference: ids up to and including EOS, without BOS
FORMAT = "limner document frequencies 1"
LARGEST = (1 << 31) - 1  # of the ids, so that a key of `ngrams` is an int64


@dataclass(frozen=True, eq=False)
class DocumentFrequencies:
    """Of how many images' references an n-gram is part; `images` is how many there are (`ref_len` elsewhere)."""

    images: int
    ngrams: Ngrams
    count: Int[np.ndarray, " G"]

    @classmethod
    def of(cls, references: Sequences) -> "DocumentFrequencies":
        """Counted over the references of the training split.  Raises ValueError as `CiderD` does."""
        return cls.of_postings(Postings(*_flat(references)))

    @classmethod
    def of_postings(cls, postings: Postings) -> "DocumentFrequencies":
        return cls(len(postings.per_image), postings.ngrams, postings.frequency)

    @classmethod
    def of_table(cls, table: Mapping[tuple[int, ...], int], images: int) -> "DocumentFrequencies":
        """From n-grams of 1 to 4 ids and their counts.  Raises ValueError for other n-grams, or for no images."""
        if images < 1:
            raise ValueError(f"document frequencies of {images} images; expected 1 or more")
        lengths = np.array([len(gram) for gram in table], np.int64)
        if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= ORDERS:
            raise ValueError(f"an n-gram of {lengths.min()} or {lengths.max()} ids; expected 1 to {ORDERS}")
        tokens = np.fromiter(chain.from_iterable(table), np.int64, int(lengths.sum()))
        _check(tokens, "n-gram")
        ngrams, entries = tabulate(tokens, lengths)  # also numbers n-grams that are part of those given
        whole = entries.order == lengths[entries.row] - 1
        count = np.zeros(len(ngrams), np.int64)
        count[entries.gram[whole]] = np.fromiter(table.values(), np.int64, len(table))[entries.row[whole]]
        return cls(images, ngrams, count)

    @cached_property
    def idf(self) -> Float[np.ndarray, " _"]:
        """(G+1,) log(images) - log(max(1, count)); last: an n-gram that is not in the table."""
        return np.log(self.images) - np.log(np.maximum(1, np.append(self.count, 0)))

    def save(self, path: str | Path) -> None:
        """Write as safetensors, atomically."""
        arrays = {f"keys{n}": keys for n, keys in enumerate(self.ngrams.keys, 1)} | {"count": self.count}
        facts = {"images": str(self.images), "width": str(self.ngrams.width), "format": FORMAT}
        write_safetensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, facts)

    @classmethod
    def load(cls, path: str | Path) -> "DocumentFrequencies":
        """Read what `save` wrote.  Raises ValueError for another or a damaged file."""
        try:
            with safe_open(path, "np") as file:
                facts = file.metadata() or {}
                keys = tuple(file.get_tensor(f"keys{n}") for n in range(1, ORDERS + 1))
                count = file.get_tensor("count")
            found = cls(int(facts["images"]), Ngrams(keys, int(facts["width"])), count)
            if facts["format"] != FORMAT or not found._sound():
                raise ValueError(f"format {facts['format']!r}")
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} does not hold document frequencies ({error}); build them again") from error
        return found

    def _sound(self) -> bool:
        before, width = 1, self.ngrams.width
        for keys in self.ngrams.keys:
            if keys.dtype != np.int64 or keys.ndim != 1:
                return False
            if (np.diff(keys, prepend=-1) <= 0).any() or (keys >= before * width).any():
                return False
            before = len(keys)
        return self.images > 0 and self.count.shape == (len(self.ngrams),) and bool((self.count >= 0).all())


class CiderD:
    """CIDEr-D against the references of the training images, which are 0 .. I-1 in the order given.

    Letters in shapes: R hypotheses, L ids.
    """

    def __init__(self, references: Sequences, frequencies: DocumentFrequencies | None = None) -> None:
        """`references`: per image, per reference, `vocabulary.encode(text)[1:]`, that is ids up to and including EOS.

        `frequencies` are counted over these references unless given.  Raises ValueError when there are no images, when
        an image has no reference, or for ids that no reference has: BOS, PAD, words after EOS, negative ones.
        """
        self._tokens, self._lengths, self._per_image = _flat(references)
        self._start = np.cumsum(self._lengths) - self._lengths
        self._first = np.cumsum(self._per_image) - self._per_image
        postings = Postings(self._tokens, self._lengths, self._per_image)
        self.frequencies = frequencies or DocumentFrequencies.of_postings(postings)
        self._norms = postings.table.norms(self._idf(postings.ngrams)[postings.table.gram], len(self._lengths))

    def __len__(self) -> int:
        return len(self._per_image)

    def score(
        self, hypotheses: Integer[np.ndarray, "R L"], image: Integer[np.ndarray, " R"]
    ) -> Float[np.ndarray, " R"]:
        """CIDEr-D in [0, 10] of each row against the references of its image.

        A row ends with its first EOS, which counts as a word, or before its first PAD, or with the last column.
        Raises ValueError for an image that is not there or not told, and for BOS or negative ids in a hypothesis.
        """
        if len(image) != len(hypotheses):
            raise ValueError(f"{len(hypotheses)} hypotheses, but the images of {len(image)}; expected one per row")
        if len(image) and not 0 <= image.min() <= image.max() < len(self):
            raise ValueError(f"images {image.min()} to {image.max()} are asked for; there are 0 to {len(self) - 1}")
        order = np.argsort(image, kind="stable")
        scores = np.empty(len(image))
        scores[order] = self._score(hypotheses[order], image[order])
        return scores

    def _score(
        self, hypotheses: Integer[np.ndarray, "R L"], image: Integer[np.ndarray, " R"]
    ) -> Float[np.ndarray, " R"]:
        """Of rows sorted by image, which makes what is looked up sorted too."""
        tokens, lengths = spoken(hypotheses)
        ngrams, table = tabulate(tokens, lengths)
        images, image = np.unique(image, return_inverse=True)
        references, rows = self.postings(images)
        pair = references.find(references.ngrams.find(ngrams)[table.gram], image[table.row])
        idf = self._idf(ngrams)[table.gram]
        return cider_d(Sentences(table, idf, pair, lengths, image), references, self._norms[rows])

    def postings(self, images: Int[np.ndarray, " B"]) -> tuple[Postings, Int[np.ndarray, " _"]]:
        """The references of these images, and which rows of all references they are."""
        many = self._per_image[images]
        rows = ranges(self._first[images], many)
        lengths = self._lengths[rows]
        return Postings(self._tokens[ranges(self._start[rows], lengths)], lengths, many), rows

    def _idf(self, ngrams: Ngrams) -> Float[np.ndarray, " G"]:
        return self.frequencies.idf[self.frequencies.ngrams.find(ngrams)]


def spoken(hypotheses: Integer[np.ndarray, "R L"]) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " R"]]:
    """Ids end to end and ids per row: a row ends with its first EOS, or before its first PAD."""
    stop = (hypotheses == EOS) | (hypotheses == PAD)
    counted = (np.cumsum(stop, 1) - stop == 0) & (hypotheses != PAD)
    tokens = hypotheses[counted].astype(np.int64)
    _check(tokens, "hypothesis")
    return tokens, counted.sum(1)


def _flat(references: Sequences) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " R"], Int[np.ndarray, " I"]]:
    """Ids end to end, ids per reference, references per image."""
    per_image = np.fromiter(map(len, references), np.int64, len(references))
    if not len(per_image):
        raise ValueError("no references: expected for each image a list of id sequences")
    if not per_image.all():
        without = np.flatnonzero(per_image == 0)
        raise ValueError(f"{len(without)} images have no reference, the first is number {without[0]}; leave them out")
    lengths = np.fromiter(map(len, chain.from_iterable(references)), np.int64, int(per_image.sum()))
    tokens = np.fromiter(chain.from_iterable(chain.from_iterable(references)), np.int64, int(lengths.sum()))
    _check(tokens, "reference")
    last = np.zeros(len(tokens), bool)
    last[np.cumsum(lengths)[lengths > 0] - 1] = True
    if ((tokens == PAD) | (tokens == EOS) & ~last).any():
        raise ValueError(f"a reference goes on after EOS ({EOS}) or holds PAD ({PAD}); give its ids as far as EOS")
    return tokens, lengths, per_image


def _check(tokens: Int[np.ndarray, " T"], where: str) -> None:
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() <= LARGEST:
        raise ValueError(f"a {where} holds ids {tokens.min()} to {tokens.max()}; expected 0 to {LARGEST}")
    if (tokens == BOS).any():
        raise ValueError(f"a {where} holds BOS ({BOS}), which is no word of a caption; give the ids after it")
