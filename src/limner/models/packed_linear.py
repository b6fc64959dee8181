"""Linear layers laid out for the few rows of a decoding step, the word matrix above all.

Multiplying 8 rows with 49,408 x 512 numbers costs what reading the matrix costs, but a BLAS first copies all of it into
an order of its own: 19 ms, of which 8 remain when that has been done once (one thread of an AMD EPYC, torch 2.13).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

LARGE = 1 << 18  # numbers in the matrix from which on a second copy of it pays
ROWS = 40  # what the layout is made for; fastest of 1, 8, 16 and 40 for every number of rows from 1 to 64
MOST = 128  # rows from which on torch's own product is as fast


class PackedWeight:
    """The copy of a linear layer's matrix: made anew when its weights have changed, and no part of the module's
    state."""

    def __init__(self) -> None:
        self.kept: tuple[tuple[int, int, Any], Tensor] | None = None  # which weights, and their copy

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedWeight":
        return PackedWeight()

    def __reduce__(self) -> tuple[type["PackedWeight"], tuple[()]]:
        return PackedWeight, ()

    def product(self, linear: nn.Linear, bias: Float[Tensor, " V"], x: Float[Tensor, "R H"]) -> Float[Tensor, "R V"]:
        """`linear` with another bias."""
        weight = linear.weight
        if not _pays(weight, x):
            return nn.functional.linear(x, weight, bias)
        key = (weight.data_ptr(), weight._version, weight.shape)
        kept = self.kept
        if kept is None or kept[0] != key:
            self.kept = kept = (key, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS))
        return torch.ops.mkldnn._linear_pointwise(x, kept[1], bias, "none", [], "")


class SmallBatchLinear(nn.Linear):
    """nn.Linear, faster where it has few rows to multiply with."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self._laid = PackedWeight()

    def forward(self, x: Float[Tensor, "*B H"]) -> Float[Tensor, "*B O"]:
        rows = x.reshape(-1, x.shape[-1])
        return self._laid.product(self, self.bias, rows).view(*x.shape[:-1], self.out_features)


def _pays(weight: Tensor, x: Tensor) -> bool:
    return (
        weight.numel() >= LARGE
        and len(x) <= MOST
        and not torch.is_grad_enabled()
        and {weight.device.type, x.device.type} == {"cpu"}
        and {weight.dtype, x.dtype} == {torch.float32}
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
