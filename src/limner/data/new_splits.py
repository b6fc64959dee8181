"""`plan_splits`: splits for a data set that lacks some, decided by hashes of the ids, so the same on every computer."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from limner.core.files import write_json, write_text
from limner.core.torch_free import Medium
from limner.data.dataset import SPLITS, split_by_hash

SHARE = 0.1  # of the media that go into val, and into test
MOST = 1000  # media in a new val or test split


class SplitPlan(NamedTuple):
    """The split of each medium, by id.

    `is_new` says that it is not the one that the data set's reader gives, so that it has to be written as lists.
    `reason` says in a sentence how the splits came about.
    """

    splits: dict[str, str]
    is_new: bool
    reason: str

    def count(self, split: str) -> int:
        """The number of media in a split."""
        return sum(name == split for name in self.splits.values())


def plan_splits(
    media: Sequence[Medium], usable: Collection[str], duplicates: Sequence[Sequence[str]] = ()
) -> SplitPlan:
    """Decide the splits of a data set.

    A data set that has train, val and test keeps them.  One without splits keeps those of `split_by_hash`, if they are
    large enough and no two of the `duplicates` (groups of ids of equal files) are in different ones; otherwise a tenth
    each becomes val and test.  One that lacks val or test gets them from a tenth of train.  Only `usable` media, by id,
    go into a new val or test.  Raises ValueError when there are too few media, or splits without train.
    """
    own = {medium.id: medium.split for medium in media}
    counts = Counter(medium.split for medium in media if medium.id in usable)
    if len(usable) < 3:
        raise ValueError(f"{len(usable)} media with captions can be read; at least 3 are needed, better some hundreds")
    by_hash = all(medium.split == split_by_hash(medium.id) for medium in media)
    if by_hash:
        enough = all(counts[split] >= len(usable) * SHARE / 2 for split in SPLITS)
        apart = any(len({own[id] for id in group}) > 1 for group in duplicates)
        if enough and not apart:
            return SplitPlan(own, False, "the data name no splits: a hash of each id decides")
    elif all(counts[split] for split in SPLITS):
        return SplitPlan(own, False, "as the data say")
    named = [split for split in counts if split]
    if by_hash or len(named) <= 1:
        splits = _with_new(dict.fromkeys(own, "train"), ("val", "test"), usable, duplicates)
        kept = " (equal files stay together)" if duplicates else ""
        return SplitPlan(splits, True, f"new, by hashes of the ids{kept}")
    if not counts["train"]:
        raise ValueError(
            f"no media that can be used are in split 'train'; the data have {dict(counts)}: name the splits train, val "
            "and test, or leave the column out"
        )
    lacking = tuple(split for split in ("val", "test") if not counts[split])
    splits = _with_new(own, lacking, usable, duplicates)
    return SplitPlan(splits, True, f"{' and '.join(lacking)} taken from train, since the data have none")


def _with_new(
    splits: dict[str, str], lacking: Sequence[str], usable: Collection[str], duplicates: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Splits in which each one that is `lacking` gets a share of train: the groups with the smallest hashes."""
    leader = {id: group[0] for group in duplicates for id in group}
    groups: dict[str, list[str]] = {}
    for id, split in splits.items():
        if split == "train" and id in usable:
            groups.setdefault(leader.get(id, id), []).append(id)
    order = sorted(groups, key=lambda id: hashlib.sha256(id.encode()).hexdigest())
    number = max(1, min(MOST, round(sum(map(len, groups.values())) * SHARE)))
    splits = dict(splits)
    for split in lacking:
        taken = 0
        while taken < number and len(order) > 1:
            ids = groups[order.pop(0)]
            splits |= dict.fromkeys(ids, split)
            taken += len(ids)
    return splits


def write_split_lists(splits: Mapping[str, str], folder: str | Path) -> None:
    """Write the lists train.txt, val.txt and test.txt into a folder, one id per line, for `data.splits`.

    Ids that are no plain lines are written as JSON arrays, train.json ...
    """
    plain = all(id == id.strip() and len(id.splitlines()) == 1 and id[0] not in "[{" for id in splits)
    for split in SPLITS:
        ids = [id for id, name in splits.items() if name == split]
        if plain:
            write_text(Path(folder) / f"{split}.txt", "".join(f"{id}\n" for id in ids))
        else:
            write_json(Path(folder) / f"{split}.json", ids)
