"""Whether a model fits into memory: the size of its weights by the headers of their files, before they are loaded."""

import json
from contextlib import suppress
from math import prod
from pathlib import Path

HEADROOM = 1.1, 300_000_000  # what is needed besides the weights: a tenth of them, and 300 MB for pictures and caches
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16")
GB = 1e9


class MemoryTooSmall(ValueError):
    """Raised for a model that does not fit into memory."""


def weights_bytes(folder: Path, bytes_per_float: int) -> int:
    """Bytes that the weights of a folder of `transformers` take in memory.

    `bytes_per_float` is 4 for float32, 2 for bfloat16 and float16.  Only the headers of safetensors files are read; a
    pytorch_model.bin counts with its size.  Raises ValueError for a damaged header.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        return sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin"))
    return sum(
        prod(tensor["shape"]) * (bytes_per_float if tensor["dtype"] in FLOATS else BYTES.get(tensor["dtype"], 1))
        for path in files
        for name, tensor in safetensors_header(path).items()
        if name != "__metadata__"
    )


def safetensors_header(path: Path) -> dict[str, dict]:
    """The header of a safetensors file, {tensor: {dtype, shape, data_offsets}}.  Raises ValueError for a bad one."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError(f"{path} is no safetensors file, or a cut one")
        try:
            return json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path} has a damaged header ({error})") from error


def available_bytes(device: str) -> int | None:
    """Bytes that can be allocated on a device of PyTorch now; None when this is not known."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    if kind == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if kind != "cpu":
        return None
    import psutil  # comes with accelerate

    limits = [psutil.virtual_memory().available]
    group = Path("/sys/fs/cgroup")  # the limit of a container
    with suppress(OSError, ValueError):  # there is none, or it is "max"
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(limits)


def check_memory(source: str, folder: Path, device: str, dtype: str, bytes_per_float: int) -> None:
    """Raise MemoryTooSmall when the weights of a model do not fit into the memory of a device.

    `dtype` names the float type, of `bytes_per_float` bytes.
    """
    weights, available = weights_bytes(folder, bytes_per_float), available_bytes(device)
    needed = int(weights * HEADROOM[0] + HEADROOM[1])
    if available is None or needed <= available:
        return
    half = " --dtype bfloat16 halves that." if bytes_per_float == 4 and needed / 2 <= available else ""
    raise MemoryTooSmall(
        f"{source} needs about {needed / GB:.1f} GB of memory on {device} (weights of {weights / GB:.1f} GB as "
        f"{dtype}), and {available / GB:.1f} GB are free.{half} Take a smaller model, another device, or "
        "a server that holds it (--model openai:URL#NAME)"
    )
