"""Reading of torch checkpoints without executing code from them, also of those that hold pickled modules.

`torch.load(weights_only=True)` refuses files with pickled modules.  For these there is a second reader, which imports
no class and no function.  Every class or function that the pickle names becomes an inert `PickledObject`, which records
the arguments of the call.  Then the records of tensors, parameters and modules are converted to tensors.  The second
reader parses torch's two file formats itself, because `torch.load` with another pickle module also runs TorchScript
code, and may compare and write source files.
"""

import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limner.core.addresses import refuse_address
from limner.core.torch_files import check_torch_file, is_zip
from limner.core.untrusted import check_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of the format before torch 1.6 (torch/serialization.py)
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
MODULE_STATE = {"_parameters", "_buffers", "_modules"}  # keys in the pickled state of every torch.nn.Module


def read_checkpoint(path: str | Path) -> Any:
    """Read a checkpoint -> tensors in nested dicts and lists, on the CPU.

    A module becomes its state dict; other objects become `PickledObject`s.  Raises FileNotFoundError, and ValueError
    with the reason when the file is cut or damaged, or when no tensors can be read without executing code.
    """
    refuse_address(path)
    path = Path(path)
    if not path.is_file():
        kind = " (it is a folder)" if path.is_dir() else ""
        raise FileNotFoundError(f"no checkpoint at {path}{kind}")
    check_torch_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # the second reader gives a shorter reason where it fails too
        return read_records(path)


def read_records(path: str | Path) -> Any:
    """The second reader, see the docstring of this module.  Raises ValueError as `read_checkpoint` does."""
    requested: dict[str, None] = {}
    try:
        tree = _read_zip(Path(path), requested) if is_zip(path) else _read_legacy(Path(path), requested)
    except Exception as error:  # a malicious or damaged pickle can fail anywhere
        if is_cut(error):
            raise ValueError(
                f"{path} is cut, so it is not a torch checkpoint any more: it ends too early, after "
                f"{Path(path).stat().st_size:,} bytes; copy or download it again"
            ) from error
        raise ValueError(
            f"{path} is not a torch checkpoint, or its tensors cannot be read without executing code: "
            f"{type(error).__name__}: {error}{_requested_note(requested)}"
        ) from error
    if not has_tensors(tree):
        raise ValueError(
            f"{path} holds no tensors that can be read without executing code{_requested_note(requested)}; "
            "load it with the original code and save the state_dict() of its modules"
        )
    return tree


def is_cut(error: Exception) -> bool:
    """True when the error of a reader says that a file ends too early."""
    texts = ("truncated", "exhausted", "Ran out of input", "ends too early")
    return isinstance(error, (EOFError, struct.error)) or any(text in str(error) for text in texts)


def has_tensors(tree: Any) -> bool:
    """True when there is a tensor in these nested dicts and lists."""
    queue, seen = [tree], set()
    while queue:
        item = queue.pop()
        if isinstance(item, Tensor):
            return True
        if isinstance(item, (dict, list, tuple)) and id(item) not in seen:  # a malicious file may nest them in a circle
            seen.add(id(item))
            queue += item.values() if isinstance(item, dict) else item
    return False


def _requested_note(requested: dict[str, None]) -> str:
    """The classes and functions that a pickle names, except those of tensors, for an error message."""
    unknown = [name for name in requested if name not in (*TENSORS, *PARAMETERS, *SETS) and "Storage" not in name]
    return f" (it needs {', '.join(unknown[:8])})" if unknown else ""


class PickledObject:
    """An inert stand-in for an object in a pickle: the name of its class or function, and the arguments.

    `args` are the arguments of the call, `items` the items set on it, `state` its pickled state, `origin` its name.
    """

    __slots__ = ("args", "items", "state")
    args: tuple[Any, ...]
    items: dict[Any, Any]
    state: Any
    origin = ""

    def __new__(cls, *args: Any, **options: Any) -> "PickledObject":
        pickled = super().__new__(cls)
        pickled.args, pickled.items, pickled.state = args, {}, None
        return pickled

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, item: Any) -> None:
        """Ignore the items of list-like objects, which hold no tensors that are needed."""

    extend = add = append

    def __repr__(self) -> str:
        return f"<pickled {self.origin}>"


class Storage(NamedTuple):
    """A named block of numbers in the file, or a part of it."""

    key: str
    dtype: torch.dtype
    view: tuple[int, int] | None  # offset and size, in numbers


def inert_class(origin: str) -> type[PickledObject]:
    """A new subclass of `PickledObject` for the class or function `origin`; nothing is shared between two calls."""
    return type(origin.rpartition(".")[2], (PickledObject,), {"__slots__": (), "origin": origin})


class DataUnpickler(pickle.Unpickler):
    """Reads any pickle to plain Python values and `PickledObject`s: it imports and calls nothing."""

    def find_class(self, module: str, name: str) -> type[PickledObject]:
        return inert_class(f"{module}.{name}")


def read_pickle(path: Path, encoding: str = "ASCII") -> Any:
    """Read a pickle to plain values and `PickledObject`s.  `encoding` is that of text which Python 2 wrote.

    Raises OSError, and whatever a damaged or malicious pickle makes the reader raise.
    """
    with open(path, "rb") as file:
        check_pickle(file)
        return DataUnpickler(file, encoding=encoding).load()


class _StorageUnpickler(pickle.Unpickler):
    """Reads a pickle of torch to plain Python values, `PickledObject`s and `Storage`s."""

    def __init__(self, file: Any, requested: dict[str, None]) -> None:
        """`requested` collects the names of all classes and functions in the pickle."""
        super().__init__(file, encoding="utf-8")  # for files of Python 2
        self.requested = requested
        self.item_sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> type[PickledObject]:
        origin = f"{module}.{name}"
        self.requested[origin] = None
        return inert_class(origin)

    def persistent_load(self, pid: Any) -> Any:
        """Read ("storage", type, key, device, numel[, view]), or before torch 1.6 ("module", class, file, source)."""
        if pid[0] == "module":
            return pid[1]
        if pid[0] != "storage":
            raise pickle.UnpicklingError(f"unknown kind of external object {pid[0]!r}")
        kind, key = pid[1], str(pid[2])
        dtype = DTYPES.get(kind.origin.rpartition(".")[2])
        if dtype is None:
            raise pickle.UnpicklingError(f"numbers of type {kind.origin} are not supported")
        self.item_sizes[key] = dtype.itemsize
        view = pid[5] if len(pid) > 5 else None
        return Storage(key, dtype, None if view is None else (view[1], view[2]))


class _LoadedPickle(NamedTuple):
    tree: Any
    item_sizes: dict[str, int]  # bytes of a number, by the key of its storage


def _load(file: BufferedIOBase, requested: dict[str, None]) -> _LoadedPickle:
    """Read the next pickle of a torch file."""
    check_pickle(file)
    unpickler = _StorageUnpickler(file, requested)
    return _LoadedPickle(unpickler.load(), unpickler.item_sizes)


def _read_zip(path: Path, requested: dict[str, None]) -> Any:
    """Read the format of torch >= 1.6: an uncompressed zip with data.pkl and a file data/KEY per storage."""
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
        tree = _load(BytesIO(archive.read(pickles[0])), requested).tree
        return _TensorReader(lambda key: archive.read(f"{root}data/{key}")).value(tree)


def _read_legacy(path: Path, requested: dict[str, None]) -> Any:
    """Read the format of torch < 1.6: five pickles (magic, version, system, object, keys), then the storages.

    A storage is the number of its values (int64), then the values.
    """
    if tarfile.is_tarfile(path):
        raise ValueError("it is in the tar format of torch before 0.1.10")
    with open(path, "rb") as file:
        if _load(file, {}).tree != LEGACY_MAGIC:
            raise ValueError("it does not begin like a torch file")
        _load(file, {})
        system = _load(file, {}).tree
        if not system.get("little_endian", True):
            raise ValueError("its numbers are big-endian")
        tree, item_sizes = _load(file, requested)
        blocks = {str(key): _block(file, item_sizes[str(key)]) for key in _load(file, {}).tree}
    return _TensorReader(blocks.__getitem__).value(tree)


def _block(file: BufferedIOBase, item_size: int) -> bytes:
    """The bytes of the next storage in a file of torch < 1.6."""
    (count,) = struct.unpack("<q", file.read(8))
    data = file.read(max(count, 0) * item_size)
    if len(data) != count * item_size:
        raise ValueError("it ends too early")
    return data


class _TensorReader:
    """Converts `PickledObject`s to tensors and plain values."""

    def __init__(self, read_storage: Callable[[str], bytes]) -> None:
        """`read_storage` gives the bytes of the storage with a key."""
        self.read_storage = read_storage
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}
        self.converted: dict[int, Any] = {}  # by id; each object once, or a small file could grow without limit

    def value(self, item: Any) -> Any:
        """Convert a value and everything in it."""
        if not isinstance(item, (dict, list, tuple, PickledObject)) or isinstance(item, Storage):
            return item
        if id(item) not in self.converted:
            self.converted[id(item)] = self._read(item)
        return self.converted[id(item)]

    def _read(self, item: Any) -> Any:
        """Convert a container or a pickled object."""
        if isinstance(item, dict):
            return {key: self.value(value) for key, value in item.items()}
        if isinstance(item, PickledObject):
            return self._pickled_object(item)
        return [self.value(value) for value in item]

    def _pickled_object(self, item: PickledObject) -> Any:
        """A tensor, a dict or a set where the object is known; else the object itself."""
        result: Any = item
        if item.origin in TENSORS:
            result = self._tensor(*item.args[:4])
        elif item.origin in PARAMETERS:
            result = self.value(item.args[0])
        elif item.origin == "collections.OrderedDict":
            pairs = item.args[0] if item.args else ()  # Python 2 passes [[key, value], ...]
            result = {key: self.value(value) for key, value in [*pairs, *item.items.items()]}
        elif item.origin in SETS:
            result = set(item.args[0]) if item.args else set()
        elif isinstance(item.state, dict) and item.state.keys() >= MODULE_STATE:
            result = self._state_dict(item.state)
        return result

    def _tensor(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """A view of a storage.  Raises RuntimeError when it goes beyond the storage."""
        key = (storage.key, storage.dtype)
        if key not in self.storages:
            data = bytearray(self.read_storage(storage.key))
            self.storages[key] = (
                torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0).to(storage.dtype)
            )
        numbers = self.storages[key]
        if storage.view is not None:
            numbers = numbers[storage.view[0] : storage.view[0] + storage.view[1]]
        return numbers.as_strided(size, stride, numbers.storage_offset() + offset)  # checks the bounds

    def _state_dict(self, state: dict[str, Any]) -> dict[str, Tensor]:
        """The state dict of a pickled module, as `Module.state_dict` gives it: only persistent buffers."""
        not_persistent = self.value(state.get("_non_persistent_buffers_set", set()))
        buffers = {key: value for key, value in self.value(state["_buffers"]).items() if key not in not_persistent}
        values = {**self.value(state["_parameters"]), **buffers}
        tensors = {key: value for key, value in values.items() if value is not None}
        for name, child in self.value(state["_modules"]).items():
            if child is not None:
                tensors |= {f"{name}.{key}": value for key, value in child.items()}
        return tensors


def check_keys(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    description: str,
    ignored: Collection[str] = (),
) -> None:
    """Check that a state dict has exactly these keys and shapes; keys in `ignored` may be there too.

    Raises ValueError that begins with `description` and names every key that is missing, unknown or of a wrong shape.
    """
    missing, unknown = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys() - set(ignored))
    wrong_shapes = [
        f"{key} {tuple(tensors[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in tensors and tensors[key].shape != shape
    ]
    if missing or unknown or wrong_shapes:
        raise ValueError(
            f"{description}: missing {missing}; unknown {unknown}; shapes {wrong_shapes}{near_names(missing, unknown)}"
        )


def near_names(missing: Collection[str], present: Collection[str]) -> str:
    """Say for missing names which present ones nearly fit; "" where none does.

    >>> near_names(["<start>"], ["<START>", "a"])
    " ('<START>' nearly is '<start>')"
    """
    lower = {name.lower(): name for name in present}
    pairs = [(name, near) for name in missing for near in get_close_matches(name.lower(), lower, 1, 0.8)]
    lines = [f"'{lower[near]}' nearly is '{name}'" for name, near in pairs[:3]]
    return f" ({'; '.join(lines)})" if lines else ""


def id_problem(ids: Mapping[str, int], first: int = 0) -> str:
    """What is wrong with word ids that must be `first`, `first` + 1, ..., each once; "" where nothing is.

    >>> id_problem({"a": 0, "b": 2, "c": 2})
    "2 is the id of 'b' and 'c'; no word has the id 1"
    """
    by_id: dict[int, str] = {}
    problems: list[str] = []
    for word, id in ids.items():
        if id in by_id and not problems:
            problems.append(f"{id} is the id of {by_id[id]!r} and {word!r}")
        by_id[id] = word
    expected = range(first, first + len(ids))
    absent = next((id for id in expected if id not in by_id), None)
    problems += [] if absent is None else [f"no word has the id {absent}"]
    beyond = next((id for id in by_id if id not in expected), None)
    problems += [] if beyond is None else [f"{by_id[beyond]!r} has the id {beyond}"]
    return "; ".join(problems)


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Check that every number is finite.  Raises ValueError that names the tensors with NaN or infinite ones."""
    bad = {
        key: count
        for key, tensor in tensors.items()
        if tensor.is_floating_point() and (count := int((~tensor.isfinite()).sum()))
    }
    if bad:
        shown = ", ".join(f"{key} ({count} of {tensors[key].numel()})" for key, count in [*bad.items()][:5])
        more = f" and {len(bad) - 5} more tensors" if len(bad) > 5 else ""
        raise ValueError(
            f"{source} has weights that are NaN or infinite: {shown}{more}; its training has diverged or the file is "
            "damaged: take an earlier checkpoint"
        )
