"""Pseudo-captions: captions of the training media by another model, mixed with the human captions.

A student that is trained on sentences of a teacher learns the mode of the teacher's distribution over sentences
(sequence-level distillation, Kim and Rush 2016, arXiv:1606.07947).
"""

import json
import random
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import exp, isfinite
from pathlib import Path
from typing import Any

from limner.core.fields import Fraction
from limner.core.types import UNK, Medium
from limner.data.captions_file import CaptionsFile, read_captions
from limner.data.dataset import Dataset, missing_caption_problems
from limner.data.image_ids import coco_id
from limner.data.layouts.content import read_text
from limner.data.layouts.entry import ID_COLUMNS
from limner.text.vocabulary import Vocabulary

NO_CAPTION = re.compile(r": (no caption|none of its \d+ media has a caption)$")  # lines of `missing_caption_problems`
SCORE_KEYS = ("score", "logprob")  # `limner caption` writes the second


@dataclass(frozen=True)
class PseudoCaptionsConfig:
    """The recipe's field `pseudo_captions`.

    A human caption of a medium is replaced with `probability` by a caption that `file` has for the medium.  When
    the file has several, one is drawn in proportion to exp(score), where a score is the natural log of a probability
    (up to a constant); captions without scores are equally likely.
    """

    file: str = ""  # any caption file that `limner score` reads; a JSONL file may have scores, and `others` of n-best
    probability: Fraction = 0.5
    fill: bool = False  # media of training and validation without a human caption have those of the file as their own


@dataclass(frozen=True)
class PseudoCaptions:
    """Pseudo-captions as token ids, by the ids of training media, with the weights with which they are drawn."""

    captions: dict[str, tuple[tuple[int, ...], ...]]
    weights: dict[str, tuple[float, ...]]
    probability: float
    problems: tuple[str, ...] = ()  # a line for each reason why captions were skipped

    def replacement(self, id: str, caption: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
        """The human `caption` of a medium, or with `probability` a pseudo-caption in its place."""
        if id not in self.captions or rng.random() >= self.probability:
            return caption
        return rng.choices(self.captions[id], self.weights[id])[0]


def read_pseudo_captions(
    config: PseudoCaptionsConfig, media: Sequence[Medium], vocabulary: Vocabulary, max_words: int, split: str = "train"
) -> PseudoCaptions:
    """Read the pseudo-captions of the media in `split`; captions of other splits are ignored.

    Three kinds of captions are skipped and add a problem line: those of an unknown id, those without a known word, and
    those of more than `max_words` words, because truncated captions would teach to stop in the middle of a sentence.
    Raises ValueError when no caption is left, or a score is not a number.
    """
    file = read_captions(config.file)
    rows = _json_rows(file)
    scores, others = _read_scores(file, rows), _read_others(file, rows)
    names, training = _ids_by_name(media), {medium.id for medium in media if medium.split == split}
    captions: dict[str, list[tuple[int, ...]]] = {}
    weights: dict[str, list[float]] = {}
    unknown_ids, unknown_words, too_long = [], [], []
    for name, texts in file.captions.items():
        id = names.get(name) or names.get(Path(name).name) or ""
        if not id:
            unknown_ids.append(name)
        if id not in training:
            continue
        has_scores = name in scores
        best = zip(texts, scores.get(name, [0.0] * len(texts)), strict=True)
        further = ((text, score if has_scores else 0.0) for text, score in others.get(name, []))
        usable = []
        for text, score in [*best, *further]:
            ids = tuple(vocabulary.encode(text))
            if all(word == UNK for word in ids[1:-1]):
                unknown_words.append(name)
            elif len(ids) - 2 > max_words:
                too_long.append(name)
            else:
                usable.append((ids, score))
        if usable:
            captions.setdefault(id, []).extend(ids for ids, _ in usable)
            highest = max(score for _, score in usable)
            weights.setdefault(id, []).extend(exp(score - highest) for _, score in usable)
    skipped = {
        "ids of no medium": unknown_ids,
        "captions without a known word": unknown_words,
        f"captions of more than {max_words} words (vocabulary.max_words)": too_long,
    }
    problems = tuple(
        f"{config.file}: {len(ids)} {reason} skipped, {_examples(ids)}" for reason, ids in skipped.items() if ids
    )
    if not any(sum(values) > 0 for values in weights.values()):
        reasons = "; ".join(problems) or "all its ids are in other splits"
        raise ValueError(f"{config.file} has no usable caption of the training media; {reasons}")
    packed = {id: tuple(rows) for id, rows in captions.items()}
    return PseudoCaptions(packed, {id: tuple(values) for id, values in weights.items()}, config.probability, problems)


def fill_captions(dataset: Dataset, file: str | Path, splits: Collection[str]) -> Dataset:
    """A data set whose media in `splits` without a caption have those of a caption file as their own.

    Further captions in the field `others` count as well.  Media that the file does not have stay without captions, and
    add a problem line if they are in `splits`.
    """
    captions = read_captions(file)
    others = _read_others(captions, _json_rows(captions))
    names = _ids_by_name(dataset.media)
    filled: dict[str, tuple[str, ...]] = {}
    for name, texts in captions.captions.items():
        if id := names.get(name) or names.get(Path(name).name):
            filled[id] = (*texts, *(text for text, _ in others.get(name, [])))
    media = tuple(
        replace(medium, references=filled[medium.id])
        if not medium.references and medium.split in splits and medium.id in filled
        else medium
        for medium in dataset.media
    )
    problems = [line for line in dataset.problems if not NO_CAPTION.search(line)]
    missing = missing_caption_problems(medium for medium in media if medium.split in splits)
    return replace(dataset, media=media, problems=(*problems, *missing))


def _ids_by_name(media: Sequence[Medium]) -> dict[str, str]:
    """Every name that a caption file may use for a medium -> its id; a name that fits several media is left out."""
    names: dict[str, str] = {}
    namings = [  # later ones take precedence
        [(Path(medium.path).stem, medium.id) for medium in media],
        [(Path(medium.path).name, medium.id) for medium in media],
        [(str(coco_id(medium.own_id)), medium.id) for medium in media],
        [(medium.own_id, medium.id) for medium in media],
        [(medium.id, medium.id) for medium in media],
    ]
    for pairs in namings:
        counts = Counter(name for name, _ in pairs)
        names |= {name: id for name, id in pairs if counts[name] == 1 and name}
    return names


def _json_rows(file: CaptionsFile) -> list[tuple[str, dict[str, Any]]]:
    """(id, fields in lower case) of each row of a JSONL file or a JSON list; [] for other files."""
    if file.format not in ("JSONL", "COCO results"):
        return []
    text = read_text(file.path)
    rows: list[dict[str, Any]] = (
        json.loads(text)
        if text.lstrip().startswith("[")
        else [json.loads(line) for line in text.split("\n") if line.strip()]
    )
    lower = [{key.lower(): value for key, value in row.items()} for row in rows]
    return [(str(next(row[name] for name in ID_COLUMNS if name in row)).strip(), row) for row in lower]


def _read_scores(file: CaptionsFile, rows: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, list[float]]:
    """The scores of each id's captions; ids without scores are left out.

    Raises ValueError when a score is not a number, or only some captions of an id have one.
    """
    scores: dict[str, list[Any]] = {}
    for id, row in rows:
        scores.setdefault(id, []).append(next((row[name] for name in SCORE_KEYS if name in row), None))
    scored = {id: given for id, given in scores.items() if any(score is not None for score in given)}
    for id, given in scored.items():
        if any(not _is_number(score) for score in given) or len(given) != len(file.captions[id]):
            raise ValueError(
                f"{file.path}: the scores of {id!r} are {given}; expected a number for each of its "
                f"{len(file.captions[id])} captions, the natural log of its probability, or none at all"
            )
    return scored


def _read_others(file: CaptionsFile, rows: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, list[tuple[str, float]]]:
    """Further captions of each id, as (caption, log-probability); `limner caption --n-best` writes them as `others`.

    Raises ValueError when one is not such a pair.
    """
    others: dict[str, list[tuple[str, float]]] = {}
    for id, row in rows:
        for pair in row.get("others") or []:
            known = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
            if not (known and (pair[1] is None or _is_number(pair[1]))):  # None: a server told none
                raise ValueError(
                    f"{file.path}: {id!r} has {pair!r} in its field 'others'; expected [caption, log-probability]"
                )
            others.setdefault(id, []).append((pair[0], pair[1] or 0.0))
    return others


def _is_number(score: Any) -> bool:
    return not isinstance(score, bool) and isinstance(score, int | float) and isfinite(score)


def _examples(ids: Sequence[str]) -> str:
    return f"for example {', '.join(map(repr, list(dict.fromkeys(ids))[:3]))}"
