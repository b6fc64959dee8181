"""`Dataset`: the media that a reader found, and a line for everything that it dropped."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from limner.core.torch_free import Medium
from limner.data.split_names import normalise_split_name

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """Media in the order of their file.

    problems  one line for each thing that was dropped, with the reason
    notes     one line for each kind of repair or choice, after which nothing is missing

    `words` is the vocabulary that the prepared files of another system fix, in its order; empty where words are free.

    Raises ValueError when two media have the same id.
    """

    media: tuple[Medium, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        repeated = [id for id, count in Counter(medium.id for medium in self.media).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{len(repeated)} ids occur twice in the dataset, for example {repeated[:3]}; make the ids unique"
            )

    @property
    def labels(self) -> list[str]:
        """The labels of the data sets that this one is made of; [""] for a data set without a label."""
        return list(dict.fromkeys(medium.part for medium in self.media))

    def part(self, label: str) -> "Dataset":
        """One of the data sets that this one is made of; its media keep their ids.

        Raises ValueError, which lists the labels, when there is no such data set.
        """
        chosen = tuple(medium for medium in self.media if medium.part == label)
        if not chosen:
            known = ", ".join(filter(None, self.labels)) or "none, because the recipe has a single data set"
            raise ValueError(f"no data set has the label '{label}'; the labels are {known}")
        return replace(self, media=chosen)

    def split(self, name: str) -> list[Medium]:
        """The media of one split, in any spelling (dev is val).

        Raises ValueError, which lists the known splits, when the split is empty.
        """
        wanted = name if any(medium.split == name for medium in self.media) else normalise_split_name(name)
        chosen = [medium for medium in self.media if medium.split == wanted]
        if not chosen:
            counts = dict(Counter(medium.split for medium in self.media))
            remedy = "; a column `split`, data.splits (lists of ids) or data.default_split says where media belong"
            raise ValueError(
                f"no media in split '{name}'; the dataset has {counts or 'no media at all'}"
                f"{remedy if wanted in SPLITS and counts else ''}"
            )
        return chosen


def drop_empty_captions(media: Iterable[Medium]) -> Dataset:
    """A dataset without captions that have no letter and no digit; each medium that loses some adds a problem line.

    A medium may be left without captions.
    """
    cleaned, problems = [], []
    for medium in media:
        references = tuple(text for text in medium.references if any(letter.isalnum() for letter in text))
        if len(references) < len(medium.references):
            problems.append(f"{medium.id}: {len(medium.references) - len(references)} empty caption(s) dropped")
        cleaned.append(replace(medium, references=references))
    return Dataset(tuple(cleaned), tuple(problems))


def missing_caption_problems(media: Iterable[Medium]) -> list[str]:
    """One problem line per medium without a caption, or one per split in which no medium has a caption."""
    without: dict[str, list[str]] = {}
    total: Counter[str] = Counter()
    for medium in media:
        total[medium.split] += 1
        if not medium.references:
            without.setdefault(medium.split, []).append(medium.id)
    lines = []
    for split, ids in without.items():
        if len(ids) == total[split] > 1:
            lines.append(f"split {split}: none of its {len(ids)} media has a caption")
        else:
            lines += [f"{id}: no caption" for id in ids]
    return lines


def split_by_hash(id: str) -> str:
    """A split that depends on the id alone: about 80 % train, 10 % val, 10 % test.

    Media keep their split when others are added.
    """
    place = int(hashlib.sha256(id.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if place < 0.8 else "val" if place < 0.9 else "test"
