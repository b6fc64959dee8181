"""Rewards of sampled captions: sentence scores against the references of their media, computed on word ids with EOS."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer
from safetensors import SafetensorError, safe_open

import limner.text
from limner.core.files import write_safetensors
from limner.core.types import Medium
from limner.metrics.bleu import bleu_from_counts
from limner.metrics.ciderd import CiderD, flatten_hypotheses
from limner.metrics.ngrams import MAX_ORDER, concatenated_ranges, count_ngrams
from limner.text.vocabulary import Vocabulary

Ids = list[list[list[int]]]  # per medium, per reference: ids up to and including EOS, without BOS


class Bleu4:
    """BLEU-4 of single captions, in [0, 1], as coco-caption computes it for a segment (closest reference length)."""

    def __init__(self, references: CiderD) -> None:
        self.references = references

    def score(
        self, hypotheses: Integer[np.ndarray, "R L"], image: Integer[np.ndarray, " R"]
    ) -> Float[np.ndarray, " R"]:
        """BLEU-4 of each row of ids; `image` is the number of the row's medium (as in `CiderD.score`)."""
        tokens, lengths = flatten_hypotheses(hypotheses)
        index, counts = count_ngrams(tokens, lengths)
        images, image = np.unique(image, return_inverse=True)
        references, _ = self.references.postings(images)
        pair = references.lookup(references.index.lookup(index)[counts.ngram], image[counts.sentence])
        correct = counts.sum_by_order(np.minimum(counts.count, references.max_count[pair]), len(lengths))
        guess = np.maximum(0, lengths[:, None] - np.arange(MAX_ORDER))
        many = references.per_medium[image]
        reference_lengths = references.lengths[concatenated_ranges(references.first[image], many)]
        beyond = int(reference_lengths.max(initial=0)) + 1
        # sort by difference, then by length: of two references that are equally near, the shorter one counts
        ranked = np.abs(reference_lengths - np.repeat(lengths, many)) * beyond + reference_lengths
        closest = np.minimum.reduceat(ranked, np.cumsum(many) - many) % beyond
        return np.asarray(bleu_from_counts(correct, guess, lengths, closest))


REWARDS: dict[str, Callable[[CiderD], CiderD | Bleu4]] = {
    "cider_d": lambda references: references,  # in [0, 10]; document frequencies of the training split
    "bleu_4": Bleu4,  # in [0, 1]
}


class Rewards:
    """A weighted sum of rewards for captions of training media.  Document frequencies come from the training split."""

    def __init__(self, weights: Mapping[str, float], media: Sequence[Medium], vocabulary: Vocabulary) -> None:
        """Raises ValueError for an unknown reward, or when no medium has a reference."""
        if not weights or set(weights) - set(REWARDS):
            raise ValueError(f"reward {dict(weights)}: give weights to some of {', '.join(REWARDS)}")
        captioned = [medium for medium in media if medium.references]
        if not captioned:
            raise ValueError(
                f"none of {len(media)} training media has a caption, so samples cannot be rewarded: check the data"
            )
        self.place = {medium.id: place for place, medium in enumerate(captioned)}
        references = CiderD(encode_references(captioned, vocabulary))
        self.scorers = {name: (weight, REWARDS[name](references)) for name, weight in weights.items()}

    def score(
        self, hypotheses: Integer[np.ndarray, "R L"], ids: Sequence[str]
    ) -> tuple[Float[np.ndarray, " R"], dict[str, Float[np.ndarray, " R"]]]:
        """Rows of word ids, R / len(ids) neighbouring ones per medium -> the weighted sum, and each reward by name."""
        image = np.repeat([self.place[id] for id in ids], len(hypotheses) // len(ids))
        parts = {name: scorer.score(hypotheses, image) for name, (_, scorer) in self.scorers.items()}
        total = sum(weight * parts[name] for name, (weight, _) in self.scorers.items())
        return np.asarray(total), parts


def encode_references(media: Sequence[Medium], vocabulary: Vocabulary) -> Ids:
    """The references as word ids, from the user's cache when they are in it (PTB tokens take minutes for COCO).

    The cache folder is LIMNER_CACHE, or `limner` in XDG_CACHE_HOME (~/.cache).  `cache_key` names the file.  A file
    that cannot be read is replaced; a cache that cannot be written costs only time.
    """
    path = cache_folder() / f"references-{cache_key(media, vocabulary)}.safetensors"
    if path.is_file():
        try:
            return _load(path)
        except (SafetensorError, ValueError, KeyError) as error:
            print(f"{path} is damaged ({error}); the references are encoded again", file=sys.stderr)
    ids = [[vocabulary.encode(text)[1:] for text in medium.references] for medium in media]
    try:
        _save(ids, path)
    except OSError as error:
        print(
            f"the encoded references could not be kept in {path} ({error}); the next run encodes them again",
            file=sys.stderr,
        )
    return ids


def cache_key(media: Sequence[Medium], vocabulary: Vocabulary) -> str:
    """A hash of everything that the ids depend on: captions, vocabulary (kind, words, tokenizer, merges) and code of
    `limner.text`."""
    code = "".join(file.read_text(encoding="utf-8") for file in sorted(Path(limner.text.__path__[0]).glob("*.py")))
    words = [type(vocabulary).__name__, *(getattr(vocabulary, member.name) for member in fields(vocabulary))]
    what = [code, words, [medium.references for medium in media]]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """The folder of cached references."""
    base = os.environ.get("LIMNER_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "limner"


def _save(ids: Ids, path: Path) -> None:
    flat = [i for references in ids for one in references for i in one]
    lengths = [len(one) for references in ids for one in references]
    columns = {"ids": flat, "lengths": lengths, "references": [len(references) for references in ids]}
    write_safetensors(path, {name: torch.tensor(column) for name, column in columns.items()}, {})


def _load(path: Path) -> Ids:
    with safe_open(path, "pt") as file:
        flat, lengths, many = (file.get_tensor(name).tolist() for name in ("ids", "lengths", "references"))
    if sum(lengths) != len(flat) or sum(many) != len(lengths):
        raise ValueError("the lengths of its parts do not fit each other")
    one = iter(flat)
    each = iter([[next(one) for _ in range(length)] for length in lengths])
    return [[next(each) for _ in range(count)] for count in many]
