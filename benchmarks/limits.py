"""How far a run is from the limit of one core: its floating-point operations per second beside those of large products.

The limit is measured on this core, at that moment: the fastest of several products of large matrices.  Only operations
of matrix products are counted, not the elementwise ones between them.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from limner.profiling.measure import FlopCounter

SIDE = 2048  # of the matrices whose product gives the limit


@torch.no_grad()
def gemm_peak(rounds: int = 5) -> float:
    """Floating-point operations per second of a large matrix product, the faster one of packed beforehand and not."""
    x, weight, bias = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE), torch.zeros(SIDE)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, SIDE)
    products: list[Callable[[], Any]] = [
        lambda: torch.nn.functional.linear(x, weight, bias),
        lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], ""),
    ]
    seconds = []
    for _ in range(rounds):
        for product in products:
            begin = time.process_time()
            product()
            seconds.append(time.process_time() - begin)
    return 2 * SIDE**3 / min(seconds)


def counted(variants: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, int]]:
    """Run each variant once -> what each returned, and the operations of its matrix products."""
    results, operations = {}, {}
    for name, run in variants.items():
        with FlopCounter() as counter:
            results[name] = run()
        operations[name] = counter.total
    return results, operations


def report_shares(operations: dict[str, int], seconds: dict[str, list[float]], peak: float) -> None:
    """One line per variant: its operations, operations per second, and their share of `peak`."""
    for name, count in operations.items():
        speed = count / median(seconds[name])
        print(
            f"{name:<44} {count / 1e9:7.1f} GFLOP at {speed / 1e9:5.1f} GFLOP/s, {speed / peak:.0%} of the "
            f"{peak / 1e9:.0f} of large products"
        )


def report_reading(size: int, seconds: dict[str, list[float]]) -> None:
    """One line per variant that reads `size` bytes: bytes per second, and their share of a reading loop's."""
    peak = read_peak(size)
    for name, times in seconds.items():
        speed = size / median(times)
        print(
            f"{name:<44} {size / 1e6:7.1f} MB at {speed / 1e9:5.1f} GB/s, {speed / peak:.0%} of the "
            f"{peak / 1e9:.0f} of a reading loop"
        )


@torch.no_grad()
def read_peak(size: int, rounds: int = 20) -> float:
    """Bytes per second at which `size` bytes of float32 are read over and over, by a sum or a product with a vector.

    Weights that fit a cache are read from it, so `size` is that of the weights in question.
    """
    rows = max(1, size // 4 // 1024)
    matrix, vector = torch.randn(rows, 1024), torch.randn(1024)
    readings: list[Callable[[], Any]] = [matrix.sum, lambda: matrix @ vector]
    seconds = []
    for _ in range(rounds):
        for read in readings:
            begin = time.perf_counter()
            read()
            seconds.append(time.perf_counter() - begin)
    return 4 * matrix.numel() / min(seconds)
