"""A data set: its media, and what was wrong with the rest."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from limner.core.torch_free import Medium

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataSet:
    """Media in file order; `problems` says, one line each, what was dropped while reading and why."""

    media: tuple[Medium, ...]
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = [id for id, count in Counter(medium.id for medium in self.media).items() if count > 1]
        if twice:
            raise ValueError(
                f"{len(twice)} ids stand twice in the data set, for example {twice[:3]}; ids must be unique"
            )

    def split(self, name: str) -> list[Medium]:
        """The media of one split.  Raises ValueError that lists the splits there are."""
        chosen = [medium for medium in self.media if medium.split == name]
        if not chosen:
            counts = dict(Counter(medium.split for medium in self.media))
            raise ValueError(f"no media in split '{name}'; the data set has {counts or 'no media at all'}")
        return chosen


def drop_empty(media: Iterable[Medium]) -> DataSet:
    """Drop empty captions and report them; a medium may be left without captions."""
    kept, problems = [], []
    for medium in media:
        references = tuple(text for text in medium.references if any(letter.isalnum() for letter in text))
        if len(references) < len(medium.references):
            problems.append(f"{medium.id}: {len(medium.references) - len(references)} empty caption(s) dropped")
        kept.append(replace(medium, references=references))
    return DataSet(tuple(kept), tuple(problems))


def without_captions(media: Iterable[Medium]) -> list[str]:
    """A line for every medium without a caption, or for a split in which none has one."""
    bare: dict[str, list[str]] = {}
    total: Counter[str] = Counter()
    for medium in media:
        total[medium.split] += 1
        if not medium.references:
            bare.setdefault(medium.split, []).append(medium.id)
    lines = []
    for split, ids in bare.items():
        whole = len(ids) == total[split] > 1
        lines += (
            [f"split {split}: none of its {len(ids)} media has a caption"]
            if whole
            else [f"{id}: no caption" for id in ids]
        )
    return lines


def hashed_split(id: str) -> str:
    """A split that depends on the id alone: about 80 % train, 10 % val, 10 % test, stable when media are added."""
    share = int(hashlib.sha256(id.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"
