"""Feature store: encoded media on disk, as float16 shards and an index that is written last.

A shard is one safetensors file with the tensors `grid` (cells of all its entries, D), `offsets` (entries + 1) and, for
detectors, `boxes` (cells, 4).  Its metadata is one JSON string with ids, augmentations, layouts and the encoder's
provenance.  A shard is written atomically, so an extraction that is killed loses at most the shard in progress.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from limner.core.files import sha256, write_safetensors
from limner.core.migration import migrate
from limner.core.types import Layout
from limner.data.augmentations import AUGMENTATIONS
from limner.data.store_files import (
    FORMAT,
    INDEX,
    METADATA,
    RERUN,
    SHARD_FIELDS,
    VERSION,
    checksum,
    checksums,
    describe_shard,
    map_shard,
    read_index,
    write_index,
)


class Float16RangeError(ValueError):
    """Raised for features of a medium that float16 cannot hold (inf, nan, or beyond 65504)."""


class ChannelCountError(ValueError):
    """Raised for cells with another number of channels than the cells of the store."""


def entry_key(id: str, augmentation: str = "full") -> str:
    """Key of an entry: the id of the medium, followed by `#augmentation` unless that is "full".

    >>> entry_key("7"), entry_key("7", "flip")
    ('7', '7#flip')
    """
    return id if augmentation == "full" else f"{id}#{augmentation}"


def encoder_identity(provenance: dict[str, Any]) -> dict[str, Any]:
    """The fields of a provenance on which features depend: all but `source`, the folder or hub id of the weights."""
    return {key: value for key, value in provenance.items() if key != "source"}


def provenance_hash(provenance: dict[str, Any]) -> str:
    """SHA-256 (hex) of an encoder's identity; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(encoder_identity(provenance), sort_keys=True).encode()).hexdigest()


def provenance_differences(
    stored: dict[str, Any], wanted: dict[str, Any], holder: str = "the store", prefix: str = ""
) -> list[str]:
    """One line for each field (by dotted name) in which two provenances differ; `holder` is who has `stored`."""
    lines: list[str] = []
    for key in sorted(stored.keys() | wanted.keys()):
        have, want = stored.get(key), wanted.get(key)
        if isinstance(have, dict) and isinstance(want, dict):
            lines += provenance_differences(have, want, holder, f"{prefix}{key}.")
        elif have != want:
            lines.append(f"{prefix}{key}: {holder} has {have!r}, this encoder {want!r}")
    return lines


class StoreWriter:
    """Writes a feature store, shard by shard; opening an unfinished store continues after its last complete shard.

    A finished store can be extended too; until `finish` is called, readers see its old index.
    """

    def __init__(self, folder: str | Path, provenance: dict[str, Any], shard_items: int = 256) -> None:
        """`shard_items` is the number of entries in a shard.

        Raises ValueError when the folder holds features of another encoder (the message lists the differences), or
        shards with different numbers of channels.
        """
        if shard_items < 1:
            raise ValueError(f"shard_items is {shard_items}; it must be at least 1")
        self.folder = Path(folder)
        # as JSON gives it back: tuples become lists
        self.provenance: dict[str, Any] = json.loads(json.dumps(provenance))
        self.shard_items = shard_items
        self.failures: dict[str, str] = {}
        self.dim: int | None = None  # channels of a cell; None while the store is empty
        self._shards: dict[str, dict[str, Any]] = {}  # file name -> its entry in the index
        self._keys: set[str] = set()
        self._pending: list[tuple[str, str, Tensor, Layout, Tensor | None]] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def _resume(self) -> None:
        """Adopt every complete shard, and delete incomplete ones and temporary files of older versions."""
        indexed: dict[str, dict[str, Any]] = {}
        if (self.folder / INDEX).exists():
            index = read_index(self.folder)
            _check_same_encoder(index["encoder"], self.provenance, self.folder)
            indexed = {shard["file"]: {**shard, "dim": index["dim"]} for shard in index["shards"]}
            self.failures = {failure["id"]: failure["reason"] for failure in index["failures"]}
        shard_paths = sorted(self.folder.glob("shard-*.safetensors"))
        for path in shard_paths:
            shard = self._adopted(path, indexed.get(path.name))
            if shard is not None and self._keys.isdisjoint(shard["keys"]):
                self._shards[path.name] = shard
                self._keys.update(shard["keys"])
        self._check_channels()
        # the folder is known to be a store of this encoder only now, so nothing is deleted earlier
        for path in [*self.folder.glob(".shard-*"), *self.folder.glob(f".{INDEX}.*"), *shard_paths]:
            if path.name not in self._shards and path.is_file():
                path.unlink()

    def _adopted(self, path: Path, entry: dict[str, Any] | None) -> dict[str, Any] | None:
        """The index entry of a shard that is there; None when it is incomplete, or not what the index says."""
        if entry is None or path.stat().st_size != entry["bytes"]:
            return _describe_shard(path, self.provenance)
        if "crc32" in entry:
            return entry
        # a store of an earlier version: its entries get checksums
        return _describe_shard(path, self.provenance) if sha256(path) == entry["sha256"] else None

    def _check_channels(self) -> None:
        """Set `dim` to the number of channels of the shards.  Raises ValueError when they differ."""
        for name, shard in self._shards.items():
            if self.dim not in (None, shard["dim"]):
                raise ValueError(
                    f"{self.folder / name} holds cells of {shard['dim']} channels, the shards before it of {self.dim}; "
                    f"all cells of a store have equally many: move the shards of the other encoder away, and {RERUN}"
                )
            self.dim = shard["dim"]

    def add(
        self,
        id: str,
        augmentation: str,
        grid: Float[Tensor, "N D"],
        layout: Layout,
        boxes: Float[Tensor, "N 4"] | None = None,
    ) -> None:
        """Add one entry, as float16; nothing is done when the store has it already.

        `boxes` are relative xyxy in [0, 1], from a detector.  Raises Float16RangeError when a value does not fit
        float16, ChannelCountError when the cells of the store have another number of channels, and ValueError when the
        number of cells does not fit `layout` or `boxes`, or the id ends like an augmentation.
        """
        key = entry_key(id, augmentation)
        if "#" in id and id.rpartition("#")[2] in AUGMENTATIONS:
            raise ValueError(f"the id {id!r} ends like a stored augmentation; rename the medium")
        if key in self._keys:
            return
        if len(grid) != Layout(*layout).cells or (boxes is not None and len(boxes) != len(grid)):
            raise ValueError(f"{key}: {len(grid)} cells do not fit layout {tuple(layout)} or their boxes")
        half = grid.detach().to("cpu", torch.float16, copy=True)
        if not torch.isfinite(half).all():
            raise Float16RangeError(f"{key}: the features hold inf or nan in float16 (largest value 65504)")
        self._check_entry(key, half.shape[1], boxes is not None)
        self.dim = half.shape[1]
        self._pending.append((id, augmentation, half, Layout(*layout), boxes))
        self._keys.add(key)
        self.failures.pop(id, None)
        if len(self._pending) >= self.shard_items:
            self.flush()

    def fail(self, id: str, reason: str) -> None:
        """Record that a medium could not be encoded, and the reason."""
        self.failures[id] = reason

    def _check_entry(self, key: str, dim: int, has_boxes: bool) -> None:
        if self.dim not in (None, dim):
            raise ChannelCountError(f"{key}: {dim} channels; the cells in {self.folder} have {self.dim}")
        if self._pending and (self._pending[0][4] is not None) != has_boxes:
            this, others = ("has boxes", "no boxes") if has_boxes else ("has no boxes", "boxes")
            raise ValueError(
                f"{key} {this} and the entries before it have {others}: store regions and grids in two folders"
            )

    def flush(self) -> None:
        """Write the pending entries as one shard."""
        if not self._pending:
            return
        number = next(n for n in range(len(self._shards) + 1) if f"shard-{n:05d}.safetensors" not in self._shards)
        path = self.folder / f"shard-{number:05d}.safetensors"
        ids, augmentations, grids, layouts, boxes = zip(*self._pending, strict=True)
        cells = torch.tensor([0] + [len(grid) for grid in grids])
        tensors = {"grid": torch.cat(grids), "offsets": cells.cumsum(0)}
        if boxes[0] is not None:
            tensors["boxes"] = torch.cat(boxes).float().cpu()
        facts = {
            "format": FORMAT,
            "ids": ids,
            "augmentations": augmentations,
            "layouts": layouts,
            "provenance": self.provenance,
            "provenance_hash": provenance_hash(self.provenance),
        }
        # one string, because safetensors writes several in random order, and equal features must give equal files
        write_safetensors(path, tensors, {METADATA: json.dumps(facts, sort_keys=True)})
        self._shards[path.name] = {
            "file": path.name,
            "sha256": sha256(path),
            "bytes": path.stat().st_size,
            "keys": [entry_key(id, augmentation) for id, augmentation in zip(ids, augmentations, strict=True)],
            "layouts": [list(layout) for layout in layouts],
            "crc32": checksums(tensors["grid"], tensors.get("boxes"), layouts),
            "dim": grids[0].shape[1],
        }
        self._pending = []

    def finish(self, may_be_empty: bool = False) -> Path:
        """Write the last shard and then the index; returns the path of the index.

        Raises ValueError when nothing was stored, unless the store `may_be_empty`: all media of a part may be damaged.
        """
        self.flush()
        if not self._shards and not may_be_empty:
            with suppress(OSError):  # which a folder with other files raises
                self.folder.rmdir()
            reasons = "; ".join(f"{id}: {reason}" for id, reason in list(self.failures.items())[:3])
            cause = f"{len(self.failures)} media failed: {reasons}" if reasons else "no media were given"
            raise ValueError(f"{self.folder}: no features to store, {cause}")
        shards = [self._shards[name] for name in sorted(self._shards)]
        augmentations = {
            key.rpartition("#")[2] if _is_augmented(key) else "full" for shard in shards for key in shard["keys"]
        }
        index = {
            "format": FORMAT,
            "version": VERSION,
            "encoder": self.provenance,
            "augmentations": [augmentation for augmentation in AUGMENTATIONS if augmentation in augmentations],
            "dim": self.dim or 0,
            "dtype": "float16",
            "failures": [{"id": id, "reason": reason} for id, reason in sorted(self.failures.items())],
            "shards": [{key: shard[key] for key in SHARD_FIELDS} for shard in shards],
        }
        return write_index(self.folder, index)


class FeatureStore:
    """Reads a finished feature store.

    A shard is memory-mapped when it is first read, once per process; forked workers share its pages.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises ValueError when the folder is not a finished store, or a shard is missing or truncated."""
        self.folder = Path(folder)
        if not (self.folder / INDEX).exists():
            if any(self.folder.glob("*shard-*")):
                raise ValueError(f"{self.folder} holds an unfinished extraction (no {INDEX}); {RERUN}")
            raise ValueError(
                f"{self.folder} is not a feature store (no {INDEX}); make one of images or clips with `limner "
                "extract`, of a detector's regions with `limner convert`"
            )
        index = read_index(self.folder)
        self.version: int = index["version"]  # entries have checksums from 3 on
        try:
            self._read(index)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.folder / INDEX} is damaged ({error!r}); delete it and {RERUN}") from error

    def _read(self, index: dict[str, Any]) -> None:
        """Take over the facts of the index."""
        self.dim: int = index["dim"]
        self.provenance: dict[str, Any] = index["encoder"]
        self.augmentations: list[str] = migrate(index)["augmentations"]
        self.failures: dict[str, str] = {failure["id"]: failure["reason"] for failure in index["failures"]}
        self._files: list[tuple[Path, int, str]] = []
        # key -> shard, first cell, last cell + 1, layout, checksum (None: it was compared, or there is none)
        self._places: dict[str, tuple[int, int, int, Layout, int | None]] = {}
        for number, shard in enumerate(index["shards"]):
            path = self.folder / shard["file"]
            size = path.stat().st_size if path.exists() else None
            if size != shard["bytes"]:
                what = "is missing" if size is None else f"has {size} bytes instead of {shard['bytes']}"
                raise ValueError(f"{path} {what}; {RERUN}")
            self._files.append((path, shard["bytes"], shard["sha256"]))
            start = 0
            crcs = shard["crc32"] if self.version >= 3 else [None] * len(shard["keys"])
            for key, sizes, crc in zip(shard["keys"], shard["layouts"], crcs, strict=True):
                layout = Layout(*sizes)
                self._places[key] = (number, start, start + layout.cells, layout, crc)
                start += layout.cells
        self._maps: list[tuple[Tensor, Tensor | None] | None] = [None] * len(self._files)

    def __reduce__(self) -> tuple[type["FeatureStore"], tuple[Path]]:
        return FeatureStore, (self.folder,)  # a spawned worker opens the store again instead of receiving gigabytes

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ids(self) -> list[str]:
        """Ids of the stored media, in the order of extraction."""
        return [key for key in self._places if not _is_augmented(key)]

    def get(
        self, id: str, augmentation: str = "full"
    ) -> tuple[Float[Tensor, "N D"], Layout, Float[Tensor, "N 4"] | None]:
        """One entry: a float16 copy of its cells, their layout, and the boxes of a detector (None: derive them).

        Raises KeyError, with the reason, when the store does not have it, ValueError when it is read for the first time
        and its checksum differs.
        """
        key = entry_key(id, augmentation)
        place = self._places.get(key)
        if place is None:
            raise KeyError(self._why_missing(id, augmentation))
        number, start, stop, layout, crc = place
        grid, boxes = self._maps[number] or self._map(number)
        cells, box = grid[start:stop].clone(), None if boxes is None else boxes[start:stop].clone()
        if crc is not None:
            if checksum(cells, box) != crc:
                path = self._files[number][0]
                raise ValueError(f"{path} is damaged: {key} is not what was written; delete it and {RERUN}")
            self._places[key] = (number, start, stop, layout, None)
        return cells, layout, box

    def _why_missing(self, id: str, augmentation: str) -> str:
        if id in self.failures:
            return f"{id} is not in {self.folder}: {self.failures[id]}"
        if id in self._places:
            known = ", ".join(self.augmentations)
            return f"{id} has no augmentation {augmentation!r} in {self.folder}; it may have {known}"
        return f"{id} is not in {self.folder} ({len(self.ids)} media); extract it first"

    def _map(self, number: int) -> tuple[Tensor, Tensor | None]:
        path, size, _ = self._files[number]
        mapped = self._maps[number] = map_shard(path, size)
        return mapped

    def verify(self) -> None:
        """Read every shard again.  Raises ValueError, which names the shards, when bytes changed since extraction."""
        changed = [str(path) for path, _, digest in self._files if sha256(path) != digest]
        if changed:
            raise ValueError(f"changed since extraction: {', '.join(changed)}; delete them and {RERUN}")

    def require_encoder(self, provenance: dict[str, Any]) -> None:
        """Raises ValueError, with every field that differs, unless the store was made by this encoder."""
        _check_same_encoder(self.provenance, json.loads(json.dumps(provenance)), self.folder)


def _describe_shard(path: Path, provenance: dict[str, Any]) -> dict[str, Any] | None:
    """The index entry of a shard; None when it is incomplete.  Raises ValueError when another encoder made it."""
    described = describe_shard(path)
    if described is None:
        return None
    entry, facts = described
    if facts["provenance_hash"] != provenance_hash(provenance):
        _check_same_encoder(facts["provenance"], provenance, path.parent)
    places = zip(facts["ids"], facts["augmentations"], strict=True)
    return {**entry, "keys": [entry_key(id, augmentation) for id, augmentation in places]}


def _check_same_encoder(stored: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    lines = provenance_differences(encoder_identity(stored), encoder_identity(wanted))
    if lines:
        raise ValueError(
            f"{folder} was made by another encoder:\n  " + "\n  ".join(lines) + "\n"
            "use that encoder, or extract into another folder"
        )


def _is_augmented(key: str) -> bool:
    return "#" in key and key.rpartition("#")[2] in AUGMENTATIONS
