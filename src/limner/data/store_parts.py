"""Feature stores of parts: `part.json` in a store says which part it holds; `merge_stores` makes one store of them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from limner.core.files import atomic_folder
from limner.core.torch_free import Medium
from limner.data.augmentations import AUGMENTATIONS
from limner.data.parts import (
    Part,
    PartRecord,
    hash_of_list,
    make_record,
    read_record,
    require_complete,
    require_same,
    some_of,
    write_record,
)
from limner.data.store import FeatureStore, StoreWriter, encoder_identity
from limner.data.store_files import INDEX, RERUN

RECORD = "part.json"


def require_undivided(folder: Path) -> None:
    """Raise ValueError when a store holds a part of a data set."""
    if stored := read_record(folder / RECORD):
        raise ValueError(
            f"{folder} holds part {stored.part} of a data set: give --part {stored.part} to continue it, or extract "
            "into another folder"
        )


def begin_store_part(
    folder: Path,
    part: Part,
    media: Sequence[Medium],
    keys: Sequence[tuple[int, str]],
    made_with: Mapping[str, Any],
) -> None:
    """Record which part a store will hold; the caller holds the lock of its folder.

    media      of the undivided data set
    keys       (place, key) of the entries of the part among those of the undivided store
    made_with  the encoder's provenance, the augmentations, and how frames are sampled

    Raises ValueError when the folder holds another part, or a store that is not of a part.
    """
    stored = read_record(folder / RECORD)
    if stored is None and ((folder / INDEX).exists() or any(folder.glob("shard-*"))):
        raise ValueError(f"{folder} holds features that are not of a part: extract into another folder")
    made_with = {**made_with, "encoder": encoder_identity(made_with["encoder"])}
    items = [[medium.id, medium.split] for medium in media]
    record = make_record("features", part, len(media), hash_of_list(items), made_with, keys)
    if stored is not None:
        before, now = stored.made_with["augmentations"], record.made_with["augmentations"]
        more = before == now[: len(before)]  # further augmentations may be added
        same = replace(stored, made_with={**stored.made_with, "augmentations": now if more else before})
        require_same(folder, same, record, "give the same data and options as before, or extract into another folder")
    write_record(folder / RECORD, record)


def merge_stores(folders: Sequence[Path], out: Path) -> tuple[int, dict[str, str]]:
    """Make one store of all parts of a data set -> (its number of entries, {id: why it has no features}).

    The files are those that one undivided extraction writes, and take the place of `out` in one step.  Every entry is
    compared with its checksum.  Raises ValueError when a part is missing, double, unfinished, damaged or of another
    run; `out` is as it was then.
    """
    parts = [(folder, _record_of(folder)) for folder in folders]
    unfinished = {
        record.part.index: f"{folder} is unfinished: {len(list(folder.glob('shard-*')))} shards and no {INDEX}; {RERUN}"
        for folder, record in parts
        if not (folder / INDEX).exists()
    }
    require_complete(parts, unfinished, _neighbours(parts))
    stores = [FeatureStore(folder) for folder in folders]
    places: list[tuple[int, str, FeatureStore]] = []
    failures: dict[str, str] = {}
    for (folder, record), store in zip(parts, stores, strict=True):
        missing = [name for name in record.names if name not in store and _id_of(name) not in store.failures]
        if missing:
            raise ValueError(
                f"{folder} (part {record.part}) lacks {len(missing)} of {len(record.items)} entries: "
                f"{some_of(missing)}; run its `limner extract` again"
            )
        if len(store) > sum(name in store for name in record.names):
            raise ValueError(f"{folder} holds entries that are not of part {record.part}: make this part again")
        places += [(place, name, store) for place, name in record.items if name in store]
        failures |= store.failures
    with atomic_folder(out) as work:
        writer = StoreWriter(work, stores[0].provenance)
        for _, key, store in sorted(places, key=lambda entry: entry[0]):
            id = _id_of(key)
            augmentation = key[len(id) + 1 :] or "full"
            grid, layout, boxes = store.get(id, augmentation)
            writer.add(id, augmentation, grid, layout, boxes)
        for id, reason in failures.items():
            writer.fail(id, reason)
        writer.finish()
    return len(places), failures


def _id_of(key: str) -> str:
    """The id of the medium of an entry."""
    id, mark, augmentation = key.rpartition("#")
    return id if mark and augmentation in AUGMENTATIONS else key


def _record_of(folder: Path) -> PartRecord:
    record = read_record(folder / RECORD)
    if record is None:
        what = "is no folder" if not folder.is_dir() else f"has no {RECORD}"
        raise ValueError(f"{folder} {what}: give feature stores that `limner extract --part` wrote")
    return record


def _neighbours(parts: Sequence[tuple[Path, PartRecord]]) -> dict[int, str]:
    """What is known of the parts of the same run in folders beside these: index -> words."""
    found: dict[int, str] = {}
    for parent in {folder.absolute().parent for folder, _ in parts}:
        for path in sorted(parent.glob(f"*/{RECORD}")):
            with suppress(ValueError, OSError):
                record = read_record(path)
                if record is not None and not parts[0][1].differences(record):
                    finished = (path.parent / INDEX).exists()
                    state = "was not given" if finished else f"is unfinished; {RERUN}"
                    found[record.part.index] = f"{path.parent} {state}"
    return found
