"""Old checkpoints: whole modules whose classes are gone are read as tensors, and nothing that a file says is run."""

import io
import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limner.convert.checkpoint import PickledObject, has_tensors, read_checkpoint, read_records

CLASSES = """
from torch import nn
import torch

class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 2, bias=False)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("hidden", torch.arange(4), persistent=False)

class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(Inner(), nn.ReLU(), nn.LSTMCell(2, 3))
        self.nothing = None
        self.scale = nn.Parameter(torch.randn(2, 2).t())
        self.act = torch.relu
"""
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that is there while a test saves; `forget` takes it away."""
    module = types.ModuleType("old_models")
    exec(CLASSES, module.__dict__)
    monkeypatch.setitem(sys.modules, "old_models", module)
    return module


def save(value: Any, path: Path, zipped: bool) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def as_pickle(data: bytes, path: Path, zipped: bool) -> Path:
    """A torch file whose object is this very pickle."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3\n")
        return path
    save({}, path, False)
    with open(path, "rb") as file:
        head = [pickle.load(file) for _ in range(3)]
    path.write_bytes(b"".join(pickle.dumps(item, 2) for item in head) + data + pickle.dumps([], 2))
    return path


@FORMATS
def test_state_dicts_come_as_they_were(tmp_path: Path, zipped: bool) -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.arange(4), "half": torch.randn(2).half(), "none": torch.empty(0, 2)}
    path = save({"epoch": 3, "decoder": tensors}, tmp_path / "c.pth", zipped)
    for reader in (read_checkpoint, read_records):  # torch's own and the second one
        found = reader(path)
        assert found["epoch"] == 3
        torch.testing.assert_close(found["decoder"], tensors, rtol=0, atol=0)


@FORMATS
def test_views_strides_and_kinds_of_numbers(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {"part": base[1:3, 2:4], "turned": base.t(), "row": base[2], "wide": torch.ones(1).expand(3)}
    kinds = (torch.float64, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32, torch.bool)
    tensors |= {str(kind): torch.tensor([0, 1, 1]).to(kind) for kind in kinds}
    found = read_records(save(tensors, tmp_path / "c.pth", zipped))
    assert {key: value.dtype for key, value in found.items()} == {key: value.dtype for key, value in tensors.items()}
    torch.testing.assert_close(found, tensors, rtol=0, atol=0)


@FORMATS
def test_a_module_whose_class_is_gone(tmp_path: Path, zipped: bool, gone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = gone.Outer()
    optimizer = torch.optim.Adam(model.parameters())
    model.scale.sum().backward()
    optimizer.step()
    shared = nn.DataParallel(model.stack[0])
    path = save({"epoch": 7, "model": model, "optimizer": optimizer, "wrapped": shared}, tmp_path / "m.pth", zipped)
    monkeypatch.delitem(sys.modules, "old_models")
    with pytest.raises((pickle.UnpicklingError, ModuleNotFoundError)):
        torch.load(path, weights_only=True)
    found = read_checkpoint(path)
    assert found["epoch"] == 7 and isinstance(found["optimizer"], PickledObject)
    assert repr(found["optimizer"]) == "<pickled torch.optim.adam.Adam>"
    assert found["model"].keys() == model.state_dict().keys() and "stack.0.hidden" not in found["model"]
    torch.testing.assert_close(found["model"], dict(model.state_dict()), rtol=0, atol=0)
    assert found["wrapped"].keys() == shared.state_dict().keys()
    assert found["model"]["scale"].stride() == model.scale.stride()


class Shell:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Evaluated(Shell):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('os').system({self.command!r})",)


class Executed(Shell):
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.system({self.command!r})",)


class Opened(Shell):
    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.command.split()[-1], "w")


@FORMATS
@pytest.mark.parametrize("payload", [Shell, Evaluated, Executed, Opened])
def test_nothing_is_executed(tmp_path: Path, zipped: bool, payload: Callable[[str], Any]) -> None:
    marker = tmp_path / "marker"
    bomb = payload(f"touch {marker}")
    pickle.loads(pickle.dumps(bomb))
    assert marker.exists(), "the payload is a real one"
    marker.unlink()
    with pytest.raises(ValueError, match=r"holds no tensors that can be read without executing code \(it needs "):
        read_checkpoint(save({"decoder": bomb}, tmp_path / "alone.pth", zipped))
    with pytest.raises(ValueError, match="holds no tensors"):
        read_checkpoint(save(bomb, tmp_path / "bare.pth", zipped))
    found = read_checkpoint(save({"decoder": {"w": torch.ones(2)}, "x": bomb}, tmp_path / "among.pth", zipped))
    assert found["decoder"]["w"].tolist() == [1, 1] and isinstance(found["x"], PickledObject)
    assert not marker.exists()


@FORMATS
def test_pickle_tricks_change_nothing(tmp_path: Path, zipped: bool) -> None:
    """State put on functions and classes, INST and OBJ opcodes, nested names, storages with code as their kind."""
    marker = tmp_path / "marker"
    command = f"touch {marker}".encode()
    tricks = {
        "inst": b"(S'" + command + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + command + b"'\no.",
        "newobj": b"\x80\x02cos\nsystem\nS'" + command + b"'\n\x85\x81.",
        "function state": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}S'__defaults__'\nNs\x86b.",
        "class state": b"\x80\x02cos\nsystem\n}S'args'\nNsb.",
        "build": b"\x80\x02c__main__\nX\n)R}S'__setstate__'\ncos\nsystem\nsbS'" + command + b"'\nb.",
        "nested": b"\x80\x04\x8c\x08builtins\x8c\x0cobject.mro()\x93)R.",
        "storage": b"\x80\x02(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nK\x01tQ.",
        "external": b"\x80\x02(S'" + command + b"'\ntQ.",
        "text external": b"Pos.system\n.",
        "endless": b"",
    }
    for name, data in tricks.items():
        with pytest.raises(ValueError, match="is cut" if name == "endless" else "without executing code"):
            read_checkpoint(as_pickle(data, tmp_path / f"{name}.pth", zipped))
    assert not marker.exists() and PickledObject.origin == ""
    kept = {"w": torch.randn(3)}
    torch.testing.assert_close(read_records(save(kept, tmp_path / "after.pth", zipped)), kept)


@FORMATS
def test_tensors_that_reach_beyond_their_storage(tmp_path: Path, zipped: bool) -> None:
    class Far:
        def __reduce__(self) -> tuple[Any, ...]:
            storage = torch.ones(4).storage()
            return torch._utils._rebuild_tensor_v2, (storage, 2, (4,), (1,), False, {})

    with pytest.raises(ValueError, match="out of bounds"):
        read_records(save({"w": Far()}, tmp_path / "far.pth", zipped))


def test_a_small_file_cannot_grow_without_bounds(tmp_path: Path) -> None:
    nested: Any = [0]
    for _ in range(40):
        nested = [nested, nested]
    with pytest.raises(ValueError, match="holds no tensors"):
        read_records(save(nested, tmp_path / "laughs.pth", True))
    circle: list[Any] = []
    circle.append(circle)
    assert not has_tensors(circle)
    with pytest.raises(ValueError, match="without executing code"):
        read_checkpoint(save([circle, Shell("true")], tmp_path / "circle.pth", True))


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    good = save({"w": torch.ones(1000)}, tmp_path / "good.pth", True).read_bytes()
    legacy = save({"w": torch.ones(1000)}, tmp_path / "legacy.pth", False).read_bytes()
    program = io.BytesIO()
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}))
        archive.writestr("m/constants.pkl", pickle.dumps(()))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    wrong = {
        "text": (b"{}", "not a torch checkpoint"),
        "empty": (b"", "not a torch checkpoint"),
        "cut zip": (good[: len(good) // 2], "not a torch checkpoint"),
        "cut legacy": (legacy[:-100], "it ends too early"),
        "numbers": (pickle.dumps(5), "does not begin like a torch file"),
        "script": (program.getvalue(), "TorchScript program"),
        "tar": (tar.getvalue(), "tar format"),
    }
    for name, (data, reason) in wrong.items():
        path = tmp_path / f"{name}.bin"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=reason) as caught:
            read_checkpoint(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.pth")
