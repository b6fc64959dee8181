"""Captions that somebody else tells of the training media, such as a teacher or a large model, mixed with human ones.

A student that learns a teacher's sentences learns what is likely of all that could be said (Kim and Rush 2016,
arXiv:1606.07947, sequence-level distillation).
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite
from pathlib import Path
from typing import Any

from limner.core.fields import Fraction
from limner.core.types import UNK, Medium
from limner.data.captions_file import ID_COLUMNS, CaptionsFile, read_captions
from limner.data.karpathy import coco_id
from limner.text.vocabulary import Vocabulary

SCORES = ("score", "logprob")  # `limner caption` writes the second


@dataclass(frozen=True)
class PseudoCaptionsConfig:
    """A training caption comes from `file` with probability `share`, where the file tells of its medium.

    Of several captions of a medium one is drawn in proportion to exp(score), a score being the natural log of a
    probability (up to a constant); without scores all are as likely.
    """

    file: str = ""  # any caption file that `limner score` reads; scores, and `others` of n-best, are read of JSONL
    share: Fraction = 0.5


@dataclass(frozen=True)
class PseudoCaptions:
    """What can be learnt of a caption file: encoded captions by the ids of training media, and how likely each is."""

    captions: dict[str, tuple[tuple[int, ...], ...]]
    weights: dict[str, tuple[float, ...]]
    share: float
    problems: tuple[str, ...] = ()  # a line for each kind of captions that are not used

    def replacement(self, id: str, caption: tuple[int, ...], draw: random.Random) -> tuple[int, ...]:
        """The human caption of a medium, or what is told in its place."""
        if id not in self.captions or draw.random() >= self.share:
            return caption
        return draw.choices(self.captions[id], self.weights[id])[0]


def read_pseudo_captions(
    config: PseudoCaptionsConfig, media: Sequence[Medium], vocabulary: Vocabulary, max_words: int, split: str = "train"
) -> PseudoCaptions:
    """Captions of those of `media` that are in `split`; what is told of the others is left alone.

    Reported and skipped: ids of no medium, captions without a known word, and captions of more than `max_words` words,
    which would teach to stop in the middle.  Raises ValueError when nothing is left, or a score is no number.
    """
    found = read_captions(config.file)
    rows = _rows(found)
    scores, others = _scores(found, rows), _others(found, rows)
    names, training = _names(media), {medium.id for medium in media if medium.split == split}
    captions: dict[str, list[tuple[int, ...]]] = {}
    weights: dict[str, list[float]] = {}
    strange, empty, long = [], [], []
    for name, texts in found.captions.items():
        id = names.get(name) or names.get(Path(name).name) or ""
        if not id:
            strange.append(name)
        if id not in training:
            continue
        more, unscored = others.get(name, []), name not in scores
        best = zip(texts, scores.get(name, [0.0] * len(texts)), strict=True)
        kept = []
        for text, score in [*best, *((text, 0.0 if unscored else score) for text, score in more)]:
            ids = tuple(vocabulary.encode(text))
            if all(word == UNK for word in ids[1:-1]):
                empty.append(name)
            elif len(ids) - 2 > max_words:
                long.append(name)
            else:
                kept.append((ids, score))
        if kept:
            captions.setdefault(id, []).extend(ids for ids, _ in kept)
            highest = max(score for _, score in kept)
            weights.setdefault(id, []).extend(exp(score - highest) for _, score in kept)
    kinds = {
        "ids of no medium": strange,
        "captions without a known word": empty,
        f"captions of more than {max_words} words (vocabulary.max_words)": long,
    }
    problems = tuple(f"{config.file}: {len(ids)} {kind} skipped, {_some(ids)}" for kind, ids in kinds.items() if ids)
    if not any(sum(of) > 0 for of in weights.values()):
        raise ValueError(
            f"{config.file} tells nothing of the training media; {'; '.join(problems) or 'other ids only'}"
        )
    packed = {id: tuple(rows) for id, rows in captions.items()}
    return PseudoCaptions(packed, {id: tuple(of) for id, of in weights.items()}, config.share, problems)


def _names(media: Sequence[Medium]) -> dict[str, str]:
    """What a file may call each medium -> its id; a name of several is none."""
    names: dict[str, str] = {}
    calls = [
        [(Path(medium.path).stem, medium.id) for medium in media],
        [(Path(medium.path).name, medium.id) for medium in media],
        [(str(coco_id(medium.id)), medium.id) for medium in media],
        [(medium.id, medium.id) for medium in media],
    ]
    for pairs in calls:
        counts = Counter(name for name, _ in pairs)
        names |= {name: id for name, id in pairs if counts[name] == 1 and name}
    return names


def _rows(found: CaptionsFile) -> list[tuple[str, dict[str, Any]]]:
    """(id, what else is said) of JSONL and of lists of objects; none of other files."""
    path = Path(found.path)
    if found.format not in ("JSONL", "COCO results") or path.suffix == ".zip":
        return []
    text = path.read_text(encoding="utf-8-sig")
    rows: list[dict[str, Any]] = (
        json.loads(text)
        if text.lstrip().startswith("[")
        else [json.loads(line) for line in text.split("\n") if line.strip()]
    )
    small = [{key.lower(): value for key, value in row.items()} for row in rows]
    return [(str(next(row[name] for name in ID_COLUMNS if name in row)).strip(), row) for row in small]


def _scores(found: CaptionsFile, rows: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, list[float]]:
    """Ids in which no caption has one are left out."""
    scores: dict[str, list[Any]] = {}
    for id, row in rows:
        scores.setdefault(id, []).append(next((row[name] for name in SCORES if name in row), None))
    scored = {id: given for id, given in scores.items() if any(score is not None for score in given)}
    for id, given in scored.items():
        if any(not _number(score) for score in given) or len(given) != len(found.captions[id]):
            raise ValueError(
                f"{found.path}: the scores of {id!r} are {given}; expected a number for each of its "
                f"{len(found.captions[id])} captions, the natural log of its probability, or none at all"
            )
    return scored


def _others(found: CaptionsFile, rows: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, list[tuple[str, float]]]:
    """Captions next to the best, as `limner caption --n-best` writes them: pairs of a text and its log-probability."""
    others: dict[str, list[tuple[str, float]]] = {}
    for id, row in rows:
        for pair in row.get("others") or []:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _number(pair[1])):
                raise ValueError(
                    f"{found.path}: {id!r} has {pair!r} among its others; expected [caption, log-probability]"
                )
            others.setdefault(id, []).append((pair[0], pair[1]))
    return others


def _number(score: Any) -> bool:
    return not isinstance(score, bool) and isinstance(score, int | float) and isfinite(score)


def _some(ids: Sequence[str]) -> str:
    return f"for example {', '.join(map(repr, list(dict.fromkeys(ids))[:3]))}"
