"""Read any torch checkpoint to plain tensors without executing what it says.

`torch.load(weights_only=True)` refuses files in which whole modules are pickled.  For those there is a second reader:
it admits no class and no function at all.  Every global that the pickle names becomes an inert `Record` of what it was
called with; afterwards the records of tensors, parameters and modules are read as data.  It parses torch's two file
formats itself, because `torch.load` with a pickle module of one's own also dispatches to TorchScript and may compare
and write source files.
"""

import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C  # first object of the format before torch 1.6 (torch/serialization.py)
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")  # (storage, offset, size, stride, ...)
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")  # (tensor, ...)
SETS = ("builtins.set", "__builtin__.set")
MODULE = {"_parameters", "_buffers", "_modules"}  # what every torch.nn.Module has in its state


def read_checkpoint(path: str | Path) -> Any:
    """-> tensors in nested dicts and lists, on the CPU; a module becomes its state dict.

    Other objects stay `Record`s.  Raises ValueError with the reason when no tensors can be got without running code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever torch dislikes, the second reader tells the reason in fewer words
        return read_records(path)


def read_records(path: str | Path) -> Any:
    """The second reader; see the head of this file.  Raises ValueError as `read_checkpoint` does."""
    asked: dict[str, None] = {}
    try:
        tree = _read_zip(Path(path), asked) if zipfile.is_zipfile(path) else _read_legacy(Path(path), asked)
    except Exception as error:  # a hostile or damaged pickle may fail anywhere
        raise ValueError(
            f"{path} is no torch checkpoint whose tensors can be read without executing code: "
            f"{type(error).__name__}: {error}{_names(asked)}"
        ) from error
    if not has_tensors(tree):
        raise ValueError(
            f"{path} holds no tensors that can be read without executing code{_names(asked)}; "
            "load it where it was made and save the state_dict() of its modules"
        )
    return tree


def has_tensors(tree: Any) -> bool:
    """Is there a tensor in these nested dicts and lists?"""
    waiting, seen = [tree], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            return True
        if isinstance(item, (dict, list, tuple)) and id(item) not in seen:  # a hostile file may nest them in a circle
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item
    return False


def _names(asked: dict[str, None]) -> str:
    strange = [name for name in asked if name not in (*TENSORS, *PARAMETERS, *SETS) and "Storage" not in name]
    return f" (it asks for {', '.join(strange[:8])})" if strange else ""


class Record:
    """What a pickle wanted made: the name of the class or function, and what it would have been given."""

    __slots__ = ("args", "items", "state")
    args: tuple[Any, ...]
    items: dict[Any, Any]
    state: Any
    origin = ""

    def __new__(cls, *args: Any, **options: Any) -> "Record":
        record = super().__new__(cls)
        record.args, record.items, record.state = args, {}, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, item: Any) -> None:
        """Objects that behave like lists are of no interest."""

    extend = add = append

    def __repr__(self) -> str:
        return f"<pickled {self.origin}>"


class Storage(NamedTuple):
    """A named block of numbers, or a part of it."""

    key: str
    dtype: torch.dtype
    view: tuple[int, int] | None  # offset and size in numbers


class _Unpickler(pickle.Unpickler):
    """Makes nothing but plain Python values, `Record`s and `Storage`s."""

    def __init__(self, file: Any, asked: dict[str, None]) -> None:
        super().__init__(file, encoding="utf-8")  # files of Python 2
        self.asked = asked
        self.item_sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        origin = f"{module}.{name}"
        self.asked[origin] = None
        return type(name, (Record,), {"__slots__": (), "origin": origin})  # a new one each time: nothing is shared

    def persistent_load(self, pid: Any) -> Any:
        """("storage", type, key, device, numel[, view]), or before torch 1.6 ("module", class, file, source)."""
        if pid[0] == "module":
            return pid[1]
        if pid[0] != "storage":
            raise pickle.UnpicklingError(f"unknown kind of external object {pid[0]!r}")
        kind, key = pid[1], str(pid[2])
        dtype = DTYPES.get(kind.origin.rpartition(".")[2])
        if dtype is None:
            raise pickle.UnpicklingError(f"numbers of the kind {kind.origin} are not supported")
        self.item_sizes[key] = dtype.itemsize
        view = pid[5] if len(pid) > 5 else None
        return Storage(key, dtype, None if view is None else (view[1], view[2]))


def _read_zip(path: Path, asked: dict[str, None]) -> Any:
    """torch >= 1.6: a zip archive, stored uncompressed, with data.pkl and a file data/KEY for every storage."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("the zip archive has no single data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if root + "constants.pkl" in names:
            raise ValueError("it is a TorchScript program")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("the zip archive is compressed, which torch never does")
        if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        with archive.open(pickles[0]) as file:
            tree = _Unpickler(file, asked).load()
        return _Plain(lambda key: archive.read(f"{root}data/{key}")).value(tree)


def _read_legacy(path: Path, asked: dict[str, None]) -> Any:
    """torch < 1.6: five pickles (magic, version, system, object, keys), then per key a count (int64) and numbers."""
    if tarfile.is_tarfile(path):
        raise ValueError("it is in the tar format of torch before 0.1.10")
    with open(path, "rb") as file:
        if _Unpickler(file, {}).load() != MAGIC:
            raise ValueError("it does not begin like a file of torch")
        _Unpickler(file, {}).load()
        system = _Unpickler(file, {}).load()
        if not system.get("little_endian", True):
            raise ValueError("its numbers are big-endian")
        unpickler = _Unpickler(file, asked)
        tree = unpickler.load()
        keys = _Unpickler(file, {}).load()
        blocks = {str(key): _block(file, unpickler.item_sizes[str(key)]) for key in keys}
    return _Plain(blocks.__getitem__).value(tree)


def _block(file: BinaryIO, item_size: int) -> bytes:
    (count,) = struct.unpack("<q", file.read(8))
    data = file.read(max(count, 0) * item_size)
    if len(data) != count * item_size:
        raise ValueError("it ends too early")
    return data


class _Plain:
    """Records -> tensors and plain values.  `raw` gives the bytes of a storage."""

    def __init__(self, raw: Callable[[str], bytes]) -> None:
        self.raw = raw
        self.flat: dict[tuple[str, torch.dtype], Tensor] = {}
        self.done: dict[int, Any] = {}  # shared objects are read once, or a small file could grow without bounds

    def value(self, item: Any) -> Any:
        if not isinstance(item, (dict, list, tuple, Record)) or isinstance(item, Storage):
            return item
        if id(item) not in self.done:
            self.done[id(item)] = self._read(item)
        return self.done[id(item)]

    def _read(self, item: Any) -> Any:
        if isinstance(item, dict):
            return {key: self.value(value) for key, value in item.items()}
        if isinstance(item, Record):
            return self._record(item)
        return [self.value(value) for value in item]

    def _record(self, item: Record) -> Any:
        plain: Any = item
        if item.origin in TENSORS:
            plain = self._tensor(*item.args[:4])
        elif item.origin in PARAMETERS:
            plain = self.value(item.args[0])
        elif item.origin == "collections.OrderedDict":
            pairs = item.args[0] if item.args else ()  # Python 2 passes [[key, value], ...]
            plain = {key: self.value(value) for key, value in [*pairs, *item.items.items()]}
        elif item.origin in SETS:
            plain = set(item.args[0]) if item.args else set()
        elif isinstance(item.state, dict) and item.state.keys() >= MODULE:
            plain = self._state_dict(item.state)
        return plain

    def _tensor(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        place = (storage.key, storage.dtype)
        if place not in self.flat:
            data = bytearray(self.raw(storage.key))
            self.flat[place] = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0).to(storage.dtype)
        numbers = self.flat[place]
        if storage.view is not None:
            numbers = numbers[storage.view[0] : storage.view[0] + storage.view[1]]
        return numbers.as_strided(size, stride, numbers.storage_offset() + offset)  # checks the bounds

    def _state_dict(self, state: dict[str, Any]) -> dict[str, Tensor]:
        """As `Module.state_dict` would give it: absent parts and buffers marked as not persistent are left out."""
        hidden = self.value(state.get("_non_persistent_buffers_set", set()))
        buffers = {key: value for key, value in self.value(state["_buffers"]).items() if key not in hidden}
        own = {**self.value(state["_parameters"]), **buffers}
        tensors = {key: value for key, value in own.items() if value is not None}
        for name, child in self.value(state["_modules"]).items():
            if child is not None:
                tensors |= {f"{name}.{key}": value for key, value in child.items()}
        return tensors


def check_keys(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str, passed_over: Collection[str] = ()
) -> None:
    """A state dict has exactly these keys and shapes, and perhaps what is `passed_over`.  Raises ValueError that begins
    with `what` and names every misfit."""
    missing, unknown = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys() - set(passed_over))
    misshapen = [
        f"{key} {tuple(tensors[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in tensors and tensors[key].shape != shape
    ]
    if missing or unknown or misshapen:
        raise ValueError(f"{what}: missing {missing}; unknown {unknown}; shapes {misshapen}")
