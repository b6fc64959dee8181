"""X-linear cross attention against the form with a five-dimensional tensor of values; time and peak memory compared.

    OMP_NUM_THREADS=1 python benchmarks/xlinear.py --rounds 5

One head of 512 channels, 16 pictures, and 5 captions of 17 words for each: the 85 queries of a picture read its regions
at once, as in training and in scoring captions.  `five dimensions` makes the joint maps (B, 1, Q, N, 512) and the
values (B, 1, Q, N, 512) of all pictures, as the published code does.  Regions are 36 for each picture, or 10 to 100 of
them (mean 39), padded to 100, as adaptive detectors give them.  `decoding` is 17 words of 5 hypotheses per picture, one
after the other: limner keeps the regions' keys and values, the published code makes them again for each hypothesis.
The joint maps' product with a 512 x 256 matrix is in both: without it the ratios would be larger, with 36 regions and
one pass it bounds them near 2x.
Peak memory is torch's own count of what it holds beyond what it held before.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from limits import counted
from limner.models.attention_blocks import KeyValue
from limner.models.xlinear import XLinear
from paired import PUBLISHED, arguments, report, take_turns

PICTURES, DIM, WORDS, CAPTIONS = 16, 512, 17, 5


def five_dimensional(layer: XLinear, queries: Tensor, known: KeyValue, mask: Tensor) -> Tensor:
    q1, q2, k, v = (x.unsqueeze(1) for x in (layer.query(queries), layer.query2(queries), *known))
    real = mask[:, None, None]
    m = torch.relu(layer.common(q1.unsqueeze(3) * k.unsqueeze(2)))  # (B, 1, Q, N, d / 2)
    weights = layer.spatial(m).squeeze(-1).masked_fill(~real, -1e9).softmax(-1)
    mean = (m * real.unsqueeze(-1)).sum(3) / real.sum(-1, keepdim=True)
    values = q2.unsqueeze(3) * v.unsqueeze(2)  # (B, 1, Q, N, d)
    read: Tensor = torch.sigmoid(layer.channel(mean)) * (weights.unsqueeze(3) @ values).squeeze(3)
    return read.squeeze(1)


class Peak(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still alive, at their highest."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        import weakref

        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self.free, storage._cdata)
        return out

    def free(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)


def peak(run: Callable[[], Any]) -> int:
    with Peak() as counted:
        run()
    return counted.most


def case(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """-> queries (B, Q, d), cells (B, N, d), mask (B, N), of pictures with `counts` regions."""
    draw = torch.Generator().manual_seed(seed)
    queries = torch.randn(len(counts), CAPTIONS * WORDS, DIM, generator=draw)
    cells = torch.randn(len(counts), max(counts), DIM, generator=draw)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return queries, cells.masked_fill(~mask[..., None], 0.0), mask


def forward(layer: XLinear, queries: Tensor, cells: Tensor, mask: Tensor, cheap: bool) -> Tensor:
    known = layer.project(cells)
    return layer(queries, known, mask[:, None])[0] if cheap else five_dimensional(layer, queries, known, mask)


def train(*arguments: Any) -> Tensor:
    with torch.enable_grad():
        arguments[0].zero_grad()
        forward(*arguments).square().mean().backward()
    return arguments[0].common.weight.grad.clone()


def word(layer: XLinear, queries: Tensor, cells: Tensor, mask: Tensor, cheap: bool) -> Tensor:
    """All words of 5 hypotheses, one after the other."""
    known, read = layer.project(cells), []
    for query in queries.unflatten(1, (CAPTIONS, WORDS)).unbind(2):
        if cheap:
            read.append(layer(query, known, mask[:, None])[0])
        else:
            copies = cells.repeat_interleave(CAPTIONS, 0), mask.repeat_interleave(CAPTIONS, 0)
            again = layer.project(copies[0])
            read.append(five_dimensional(layer, query.reshape(-1, 1, DIM), again, copies[1]).view_as(query))
    return torch.stack(read, 2)


@torch.no_grad()
def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    torch.manual_seed(0)
    layer = XLinear(DIM).eval()
    fixed, adaptive = [36] * PICTURES, [10, 100, *[24 + 2 * k for k in range(PICTURES - 2)]]
    for name, run, counts in (
        ("forward, 36 regions", forward, fixed),
        ("forward, 10 to 100 regions", forward, adaptive),
        ("training, 36 regions", train, fixed),
        ("training, 10 to 100 regions", train, adaptive),
        ("decoding, 36 regions", word, fixed),
    ):
        data = case(counts)
        variants = {
            kind: lambda cheap=cheap, run=run, data=data: run(layer, *data, cheap)
            for kind, cheap in (("limner", True), ("five dimensions", False))
        }
        results, work = counted(variants)
        fast, slow = results.values()
        gap = float((fast - slow).abs().max() / slow.abs().max())
        memory = [peak(variant) / 1e6 for variant in variants.values()]
        print(f"\n{name}: largest difference {gap:.1e} of the largest number")
        print(f"peak memory {memory[0]:.0f} MB against {memory[1]:.0f} MB: {memory[1] / memory[0]:.1f}x less; bar 5x")
        if gap > 1e-5:
            return 1
        report(take_turns(variants, rounds), {"five dimensions": 3}, paired_with=f"{PUBLISHED}, in batches", work=work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
