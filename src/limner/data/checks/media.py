"""Faults of the media of a data set: files that cannot be used, duplicates, near-duplicates, leaks across splits."""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from limner.core.torch_free import Medium
from limner.data.checks.captions import equal_captions
from limner.data.checks.findings import Finding
from limner.data.inspection import DataReport
from limner.data.picture_hash import PictureHash, hash_picture, near_pairs

_IDS = re.compile(
    r"no file name$| occurs twice; | has two files, | is in two splits, |two files below .* have this name"
)
_ID = re.compile(r"'(.*?)' (?:occurs twice|has two files|is in two splits)")


class PictureHashes:
    """The hash of the frame of each medium that was opened: about 300 bytes each.  Call it with every frame."""

    def __init__(self) -> None:
        self.media: list[Medium] = []
        self.hashes: list[PictureHash] = []

    def __call__(self, medium: Medium, frames: UInt8[np.ndarray, "T H W 3"]) -> None:
        """Keep the hash of a medium's frame; of a clip it is the one in the middle."""
        self.media.append(medium)
        self.hashes.append(hash_picture(frames[len(frames) // 2]))

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The pairs of ids of near-duplicates; parts of one clip are none."""
        for first, second in near_pairs(self.hashes):
            if self.media[first].path != self.media[second].path:
                yield self.media[first].id, self.media[second].id


def media_findings(report: DataReport, hashes: PictureHashes) -> Iterator[Finding]:
    """The faults of the media that a report of `inspect_data` has, with those that the hashes show."""
    absent = set(report.missing)
    for id, reason in report.unusable.items():
        yield Finding("missing" if f"{id}: {reason}" in absent else "corrupt", (id,), reason)
    yield from (Finding("damaged", (id,), line) for id, line in report.cut.items())
    yield from _copies(report, hashes)
    yield from _alike_ids(report.media)
    for line in report.other_problems:
        match = _ID.search(line)
        yield Finding("ids" if _IDS.search(line) else "rows", (match[1],) if match else (), line)
    yield from (Finding("no-caption", (id,), "no caption") for id in report.without_captions)
    bare = set(report.without_captions)  # all of whose captions are empty, or that have none
    for id, count in report.empty_captions.items():
        if id not in bare:
            yield Finding("empty", (id,), f"{count} empty caption{'s' if count > 1 else ''}")


def _copies(report: DataReport, hashes: PictureHashes) -> Iterator[Finding]:
    """Equal files, near-duplicates, and those of them that are in several splits, which are named as leaks only."""
    splits = {medium.id: medium.split for medium in report.media}
    equal = {id: ids[0] for ids in report.duplicates for id in ids}
    near = (pair for pair in hashes.pairs() if equal.get(pair[0], pair[0]) != equal.get(pair[1], pair[1]))
    captions = equal_captions(medium for medium in report.media if medium.id not in report.unusable)
    kinds = (
        ("duplicate", "files with equal bytes", report.duplicates),
        ("near-duplicate", "pictures that look the same", _groups(near)),
        ("", "the same captions", captions),
    )
    leaked: set[tuple[str, ...]] = set()
    for kind, what, groups in kinds:
        for ids in groups:
            ordered = tuple(sorted(ids, key=lambda id: _rank(splits[id])))
            names = list(dict.fromkeys(splits[id] for id in ordered))
            if len(names) == 1 and kind:
                yield Finding(kind, ordered, what)
            elif len(names) > 1 and ordered not in leaked:
                leaked.add(ordered)
                yield Finding("leak", ordered, f"{what}, in {' and '.join(name or 'no split' for name in names)}")


def _rank(split: str) -> int:
    """The place of a split in the order in which a cleaned data set keeps copies: test, val, others, train.

    What scores are computed on stays as it is.
    """
    return {"test": 0, "val": 1, "train": 3}.get(split, 2)


def _groups(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Join pairs with a common member.

    >>> _groups([("a", "b"), ("c", "d"), ("b", "e")])
    [['a', 'b', 'e'], ['c', 'd']]
    """
    group: dict[str, list[str]] = {}
    for first, second in pairs:
        one, other = group.setdefault(first, [first]), group.setdefault(second, [second])
        if one is not other:
            one += other
            group |= dict.fromkeys(other, one)
    return list({id(members): members for members in group.values()}.values())


def _alike_ids(media: Sequence[Medium]) -> Iterator[Finding]:
    """Ids that share one file: a medium that is there twice.  Parts of a clip are none."""
    by_path: dict[str, list[Medium]] = {}
    for medium in media:
        if medium.path and medium.start is None:
            by_path.setdefault(medium.path, []).append(medium)
    for path, same in by_path.items():
        if len(same) > 1:
            yield Finding("ids", tuple(medium.id for medium in same), f"{len(same)} ids for one file, {path}")
