"""Parts of one list of media, for jobs on several machines: which media are in a part, and the record of a part.

The media are sorted by name, and part i of n takes the media i, i + n, i + 2n, ...: no part depends on the machine, and
large media that are neighbours come into different parts.  The record says what a part is of, and is kept beside its
output, so that `limner merge` finds what is missing or double.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from limner.core.files import read_json, write_json
from limner.core.messages import short_repr

FORMAT, VERSION = "limner-part", 1
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Part:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def part_of(names: Sequence[str], part: Part) -> list[str]:
    """The names that are in a part, in their order; which ones does not depend on that order.

    Raises ValueError when the index is not one from 1 to `count`, when a name occurs twice, and when there are fewer
    names than parts.

    >>> part_of(["d", "a", "c", "b", "e"], Part(1, 2)), part_of(["d", "a", "c", "b", "e"], Part(2, 2))
    (['a', 'c', 'e'], ['d', 'b'])
    """
    if not 1 <= part.index <= part.count:
        raise ValueError(f"there is no part {part}: the index is from 1 to {part.count}")
    if len(names) < part.count:
        raise ValueError(f"part {part} of {len(names)} media: some parts would be empty; take at most {len(names)}")
    chosen = set(sorted(names, key=os.fsencode)[part.index - 1 :: part.count])
    if len(set(names)) < len(names):
        raise ValueError("a name occurs twice in the list that is divided into parts")
    return [name for name in names if name in chosen]


def part_size(total: int, part: Part) -> int:
    """How many of `total` media are in a part.

    >>> [part_size(8, Part(index, 3)) for index in (1, 2, 3)]
    [3, 3, 2]
    """
    return len(range(part.index - 1, total, part.count))


def hash_of_list(items: Any) -> str:
    """SHA-256 (hex) of the undivided list, as JSON; its order counts."""
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()


@dataclass(frozen=True)
class PartRecord:
    """What a part holds, and of what.

    total      media in the undivided list
    list_hash  SHA-256 of that list
    made_with  what decides about the output: model and decoding, or encoder, augmentations and frames
    items      (place in the undivided output, name) of everything that the part should hold
    finished   facts about the finished output; empty while it is being written, and always for a feature store, whose
               index is written last
    """

    kind: str  # captions or features
    part: Part
    total: int
    list_hash: str
    made_with: dict[str, Any]
    items: tuple[tuple[int, str], ...]
    finished: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.items]

    def differences(self, other: "PartRecord") -> list[str]:
        """What keeps two records from being of one undivided run; [] when nothing does."""
        facts = (
            ("kind", self.kind, other.kind),
            ("number of parts", self.part.count, other.part.count),
            ("number of media", self.total, other.total),
            ("list of media (other names, or another order)", self.list_hash, other.list_hash),
        )
        names = [f"{what}: {short_repr(mine)} and {short_repr(its)}" for what, mine, its in facts[:3] if mine != its]
        names += [facts[3][0]] if not names and self.list_hash != other.list_hash else []
        keys = [*self.made_with, *(key for key in other.made_with if key not in self.made_with)]
        return names + [
            f"{key}: {short_repr(self.made_with.get(key), 160)} and {short_repr(other.made_with.get(key), 160)}"
            for key in keys
            if self.made_with.get(key) != other.made_with.get(key)
        ]


def make_record(
    kind: str, part: Part, total: int, list_hash: str, made_with: Mapping[str, Any], items: Sequence[tuple[int, str]]
) -> PartRecord:
    """A record of an unfinished part; `made_with` as JSON gives it back, where tuples are lists."""
    return PartRecord(kind, part, total, list_hash, json.loads(json.dumps(made_with)), tuple(items))


def write_record(path: Path, record: PartRecord) -> None:
    """Write a record, atomically, with a checksum."""
    facts = json.loads(json.dumps(asdict(record)))
    write_json(path, {"format": FORMAT, "version": VERSION, **facts, "sha256": _checksum(facts)}, indent=None)


def read_record(path: Path) -> PartRecord | None:
    """Read a record; None when there is none.  Raises ValueError when it is damaged or of another kind or version."""
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, dict) or (value.pop("format", None), value.pop("version", None)) != (FORMAT, VERSION):
        raise ValueError(f"{path} is no record of a part that this limner reads")
    if value.pop("sha256", None) != _checksum(value):
        raise ValueError(f"{path} is damaged: its checksum is another one; make this part again")
    items = tuple((place, name) for place, name in value["items"])
    return PartRecord(**{**value, "part": Part(**value["part"]), "items": items})


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def require_same(path: Path, stored: PartRecord, wanted: PartRecord, remedy: str) -> None:
    """Raise ValueError, with every difference, when an output was begun as another part or with other settings."""
    lines = stored.differences(wanted)
    if stored.part.index != wanted.part.index:
        lines.insert(0, f"part: {stored.part} and {wanted.part}")
    if lines:
        raise ValueError(
            f"{path} was begun as part {stored.part} of {stored.total} media, and this command is another one:\n  "
            + "\n  ".join(lines)
            + f"\n{remedy}"
        )


def require_complete(
    parts: Sequence[tuple[Path, PartRecord]], unfinished: Mapping[int, str], unnamed: Mapping[int, str]
) -> None:
    """Check that these are all parts of one run, each once and finished.

    unfinished  index of a part among them that is not finished -> what it lacks and what to do
    unnamed     index of a part that may not be among them -> what is known of it

    Raises ValueError that names the outputs that are of another run, that are double, or that are missing.
    """
    first_path, first = parts[0]
    differences = [(path, first.differences(record)) for path, record in parts]
    if lines := [f"{path}: {'; '.join(found)}" for path, found in differences if found]:
        raise ValueError(f"not of the same run as {first_path}, which has what comes first:\n  " + "\n  ".join(lines))
    paths: dict[int, list[str]] = {}
    for path, record in parts:
        paths.setdefault(record.part.index, []).append(str(path))
    count = first.part.count
    if double := [f"part {index}/{count}: {', '.join(paths[index])}" for index in sorted(paths) if paths[index][1:]]:
        raise ValueError("given more than once; give each part once:\n  " + "\n  ".join(double))
    missing = [Part(index, count) for index in range(1, count + 1) if index in unfinished or index not in paths]
    if missing:
        known = [unfinished.get(part.index) or unnamed.get(part.index) or _not_given(first, part) for part in missing]
        lines = [f"part {part}: {what}" for part, what in zip(missing, known, strict=True)]
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(f"{len(missing)} of {count} parts {verb} not there or unfinished:\n  " + "\n  ".join(lines))
    places = sorted(place for _, record in parts for place, _ in record.items)
    if places != list(range(len(places))):
        raise ValueError("the records of these parts do not make up one list: make the parts again")


def _not_given(record: PartRecord, part: Part) -> str:
    return f"not given, {part_size(record.total, part)} of {record.total} media"


def some_of(names: Sequence[str]) -> str:
    """Names for a message.

    >>> some_of(["a", "b"]), some_of("abcdefg")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
