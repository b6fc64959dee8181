"""Safetensors files with a checksum of their values, and strict loading of tensors into modules.  No pickles."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from limner.core.files import write_safetensors
from limner.core.untrusted import check_safetensors


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and metadata as a safetensors file, atomically, with a checksum of the values."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_safetensors(path, on_cpu, {**(metadata or {}), "crc32": values_crc32(on_cpu)})


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file -> its tensors (on the CPU) and its metadata.

    Raises FileNotFoundError when there is no file, ValueError when it is damaged or its checksum differs.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} is missing; is this a run folder, and did training get as far as a checkpoint?"
        )
    check_safetensors(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
    if "crc32" in metadata and metadata["crc32"] != values_crc32(tensors):
        raise ValueError(f"{path} is damaged: its values have changed since it was written; take it from a copy")
    return tensors, metadata


def values_crc32(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over the values in key order, as 8 hex digits.

    The safetensors format itself detects a damaged header, but not a damaged value.
    """
    crc = 0
    for _, tensor in sorted(tensors.items()):
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def state_dict_differences(module: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Compare a module's state dict with tensors -> (missing names, unknown names, lines about different shapes).

    A missing name is only in `module`, an unknown name only in `tensors`.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [
        f"{key} {tuple(tensors[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(own.keys() & tensors.keys())
        if own[key].shape != tensors[key].shape
    ]
    return missing, unknown, shapes


def load_state_strictly(module: nn.Module, tensors: dict[str, Tensor], where: str | Path) -> None:
    """Load tensors into a module; names and shapes must all agree.

    Raises ValueError that lists every missing name, unknown name and wrong shape; `where` is the file in the message.
    """
    missing, unknown, shapes = state_dict_differences(module, tensors)
    if missing or unknown or shapes:
        raise ValueError(f"{where} does not fit the model: missing {missing}; unknown {unknown}; shapes {shapes}")
    module.load_state_dict(tensors)
