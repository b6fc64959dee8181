"""The files of a feature store: the index, with a checksum of itself, and shards, with a checksum of every entry.

The checksum of the index is compared whenever the store is opened, that of an entry when it is first read, and the
SHA-256 of whole shards by `FeatureStore.verify`.  Stores of versions 1 and 2 have only the last.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from limner.core.files import parse_json, sha256, write_text
from limner.core.messages import short_repr
from limner.core.migration import migrate
from limner.core.types import Layout
from limner.core.untrusted import check_safetensors

FORMAT, VERSION = "limner-features", 3  # versions 1 and 2 are read too
INDEX = "index.json"
SHARD_FIELDS = ("file", "sha256", "bytes", "keys", "layouts", "crc32")  # of an entry of the index, in this order
METADATA = "limner"  # key of the JSON string in a shard's safetensors metadata
RERUN = "run `limner extract` again: it keeps complete shards and extracts the rest"
_DTYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64}
_CHECKSUM = ', "sha256": "'  # between the index, of which it is the checksum, and the checksum


def write_index(folder: Path, index: dict[str, Any]) -> Path:
    """Write the index of a store, atomically, with the SHA-256 of all that stands before it -> its path."""
    body = json.dumps(index, ensure_ascii=False)[:-1]
    write_text(folder / INDEX, f'{body}{_CHECKSUM}{hashlib.sha256(body.encode()).hexdigest()}"}}\n')
    return folder / INDEX


def read_index(folder: Path) -> dict[str, Any]:
    """Read and check the index of a store.

    Raises ValueError when it is damaged, of another kind or of a newer version.
    """
    path = folder / INDEX
    text = path.read_bytes()
    index = parse_json(text, path)
    format, version = (index.get("format"), index.get("version")) if isinstance(index, dict) else (None, None)
    if format != FORMAT or type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(
            f"{path} is {short_repr(format)} version {short_repr(version)}; this limner reads {FORMAT} up to version "
            f"{VERSION}"
        )
    if version >= 3 or "sha256" in index:
        body, mark, _ = text.rpartition(_CHECKSUM.encode())
        if not mark or hashlib.sha256(body).hexdigest() != index.get("sha256"):
            raise ValueError(f"{path} is damaged: its checksum is another one; delete it and {RERUN}")
    return index


def checksums(grid: Tensor, boxes: Tensor | None, layouts: Sequence[Sequence[int]]) -> list[int]:
    """The checksum of every entry of a shard with these layouts."""
    found, start = [], 0
    for sizes in layouts:
        stop = start + Layout(*sizes).cells
        found.append(checksum(grid[start:stop], None if boxes is None else boxes[start:stop]))
        start = stop
    return found


def checksum(grid: Tensor, boxes: Tensor | None) -> int:
    """CRC-32 of the bytes of an entry: its cells, then its boxes."""
    crc = zlib.crc32(grid.reshape(-1).view(torch.uint8).numpy().data)
    return crc if boxes is None else zlib.crc32(boxes.reshape(-1).view(torch.uint8).numpy().data, crc)


def describe_shard(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(entry of the index, metadata) of a shard; None when it is incomplete.

    The keys of the entry are left out.  Raises ValueError when the file is no shard of a store.
    """
    check_safetensors(path)
    try:
        with safe_open(path, "pt") as shard:
            facts = migrate(parse_json((shard.metadata() or {}).get(METADATA, "{}"), path))
            grid = shard.get_tensor("grid")
            boxes = shard.get_tensor("boxes") if "boxes" in shard.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError, KeyError):
        return None
    if facts.get("format") != FORMAT:
        raise ValueError(f"{path} is not a shard of a feature store; extract into an empty folder")
    entry = {
        "file": path.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "layouts": facts["layouts"],
        "crc32": checksums(grid, boxes, facts["layouts"]),
        "dim": grid.shape[1],
    }
    return entry, facts


def map_shard(path: Path, size: int) -> tuple[Tensor, Tensor | None]:
    """The cells and boxes of a shard of `size` bytes, memory-mapped.  Raises ValueError when its header is damaged.

    The file is 8 bytes of header length, a JSON header, and the tensors with the widest type first.
    """
    check_safetensors(path)
    # a private mapping keeps no file handle, so 2,000 shards do not reach the limit of open files
    storage: Any = torch.UntypedStorage.from_file(str(path), False, size)
    data = torch.empty(0, dtype=torch.uint8).set_(storage)
    length = int.from_bytes(data[:8].numpy().tobytes(), "little")
    try:
        header = json.loads(data[8 : 8 + length].numpy().tobytes())
        body = data[8 + length :]
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                tensors[name] = body[first:last].view(_DTYPES[entry["dtype"]]).view(entry["shape"])
        return tensors["grid"], tensors.get("boxes")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged (unreadable header); delete it and {RERUN}") from error
