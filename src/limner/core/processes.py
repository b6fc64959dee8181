"""Means over the batches of all processes of a training, so that several processes compute what one would.

Data-parallel training averages the gradients of the processes.  The mean of their means is not the mean of all words
where their captions have different lengths: with 3 words of loss 1 and 1 word of loss 5 it is (1 + 5) / 2 = 3, and the
mean of the four words is 8 / 4 = 2.  `mean_over_processes` gives 2 * 3 / 4 = 1.5 and 2 * 5 / 4 = 2.5, and their average
is 2.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def process_count() -> int:
    """The number of processes that train together; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(values: Tensor, count: int | None = None) -> Float[Tensor, ""]:
    """The part of this process in the mean of the values of all processes, whose average over them is that mean.

    `count` is the number that the sum is divided by, here that of this process; None: the number of `values`.  Every
    process must call it equally often.  In a single process it is the mean, and 0 where there are no values.

    >>> mean_over_processes(torch.tensor([1.0, 2.0, 6.0])).item()
    3.0
    """
    own = values.numel() if count is None else count
    processes = process_count()
    if processes == 1:
        return values.mean() if count is None and own else values.sum() / max(1, own)
    counts = torch.tensor(float(own), dtype=torch.float64, device=values.device)
    dist.all_reduce(counts)
    return values.sum() * (processes / counts.clamp(min=1)).to(values)


def average_over_processes(logs: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The averages of numbers over all processes, by name.  Every process has the same names."""
    processes = process_count()
    if processes == 1:
        return dict(logs)
    values = torch.tensor([logs[name] for name in sorted(logs)], dtype=torch.float64, device=device)
    dist.all_reduce(values)
    return dict(zip(sorted(logs), (values / processes).tolist(), strict=True))


@contextmanager
def lost_process() -> Iterator[None]:
    """Context manager that makes a ConnectionError, with the cure, of what PyTorch raises when a process has ended."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if process_count() == 1 or not any(word in str(error) for word in ("gloo", "NCCL", "onnection", "peer")):
            raise
        raise ConnectionError(
            "another process of this training has ended, for example because it was killed or memory ran out; the last "
            f"checkpoint is intact: start the same command with --resume ({text[:200]})"
        ) from error
