"""Several data sets as one: ids that are kept apart by a label, and the share of each in an epoch of training."""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from limner.core.torch_free import Medium
from limner.data.archives import medium_exists
from limner.data.dataset import Dataset

T = TypeVar("T")


def unite(parts: Mapping[str, Dataset]) -> Dataset:
    """One data set of all media of `parts`, which are named by their labels, in their order.

    The id of a medium becomes LABEL/ID, so equal ids of two data sets stay apart.  Problems and notes begin with the
    label too.  Raises ValueError when a file is in two data sets, or when prepared files fix different words.

    >>> cats, dogs = (Dataset((Medium("7", f"{name}/7.jpg", "train"),)) for name in ("cats", "dogs"))
    >>> [medium.id for medium in unite({"cats": cats, "dogs": dogs}).media]
    ['cats/7', 'dogs/7']
    """
    media, problems, notes = [], [], []
    for label, dataset in parts.items():
        ids = {medium.id for medium in dataset.media}
        media += [replace(medium, id=f"{label}/{medium.id}", part=label) for medium in dataset.media]
        problems += [f"{label}{'/' if line.partition(': ')[0] in ids else ': '}{line}" for line in dataset.problems]
        notes += [f"{label}: {line}" for line in dataset.notes]
    _refuse_shared_files(media)
    return Dataset(tuple(media), tuple(problems), tuple(notes), _common_words(parts))


def _common_words(parts: Mapping[str, Dataset]) -> tuple[str, ...]:
    """The words that prepared files fix.  Raises ValueError unless all data sets fix the same ones, or none does."""
    first, *others = parts
    for other in others:
        if parts[other].words != parts[first].words:
            fixed, free = (first, other) if parts[first].words else (other, first)
            raise ValueError(
                f"the prepared files of the data set '{fixed}' fix the vocabulary, and '{free}' has another one; data "
                "sets with prepared files can only be trained together when their words are the same"
            )
    return parts[first].words


def _refuse_shared_files(media: Sequence[Medium]) -> None:
    """Raise ValueError when a file that exists belongs to two data sets, whatever its path looks like."""
    first: dict[str, Medium] = {}
    folders: dict[str, str] = {}  # folder as written -> its real path
    shared = []
    for medium in (medium for medium in media if medium.path):
        folder, name = os.path.split(medium.path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        path = os.path.join(folders[folder], name)
        path = os.path.realpath(path) if os.path.islink(path) else path
        if first.setdefault(path, medium).part != medium.part:
            shared.append((path, medium))
    for path, medium in shared:
        if medium_exists(path):  # with stored features, files may be missing, and then their names mean nothing
            count = len(shared)
            raise ValueError(
                f"{count} file{'s are' if count > 1 else ' is'} in two data sets, for example {path}, which is "
                f"'{first[path].id}' and '{medium.id}': remove one of the two, because a file that is trained on may "
                "be in the validation or test split of the other"
            )


def share_size(count: int, share: float) -> int:
    """The number of items in a share of `count` items: the nearest integer, and at least 1.

    >>> share_size(4400, 0.5), share_size(3, 0.01)
    (2200, 1)
    """
    return max(1, round(share * count)) if count else 0


def draw_share(items: Sequence[T], share: float, epoch: int, seed: str) -> list[T]:
    """The items of an epoch: `share` of all of them, without replacement, in their order.

    The draw depends on (seed, epoch) alone.  Items are shuffled once for every floor(1 / share) epochs, which take one
    piece after the other: with a share of 0.5, two epochs see every item once.  Then they are shuffled anew.

    >>> first, second, third = (draw_share("abcd", 0.5, epoch, "seed") for epoch in range(3))
    >>> sorted(first + second), len(third)
    (['a', 'b', 'c', 'd'], 2)
    """
    size = share_size(len(items), share)
    if size == len(items):
        return list(items)
    cycle, piece = divmod(epoch, len(items) // size)
    places = list(range(len(items)))
    random.Random(f"{seed}/{cycle}").shuffle(places)
    return [items[place] for place in sorted(places[piece * size : (piece + 1) * size])]


def first_of_each(media: Sequence[Medium], limit: int | None) -> list[Medium]:
    """The first `limit` media of each data set (None: all), in their order.

    >>> media = [Medium("a/1", "", part="a"), Medium("a/2", "", part="a"), Medium("b/1", "", part="b")]
    >>> [medium.id for medium in first_of_each(media, 1)]
    ['a/1', 'b/1']
    """
    taken: dict[str, int] = {}
    chosen = []
    for medium in media:
        taken[medium.part] = taken.get(medium.part, 0) + 1
        if limit is None or taken[medium.part] <= limit:
            chosen.append(medium)
    return chosen
