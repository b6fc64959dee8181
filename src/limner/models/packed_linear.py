"""Linear layers that are fast for the few rows of a decoding step on a CPU, for the word matrix above all.

The time to multiply 8 rows with a 49,408 x 512 matrix is the time to read the matrix.  But at every call the BLAS first
copies the whole matrix into its own packed layout: 19 ms per product.  With a packed copy that is made once it is 8 ms
(one thread of an AMD EPYC, torch 2.13).

Example: a beam of 5 over 12 words multiplies the matrix 12 times with 5 rows.  `PackedWeight` packs it at the first
step and reuses the copy 11 times.  After an optimiser step the weight's version has changed, and the next call packs
it again.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MIN_MATRIX_SIZE = 1 << 18  # numbers in the smallest matrix for which a packed copy is worth its memory
LAYOUT_ROWS = 40  # the number of rows that the layout is made for; of 1, 8, 16 and 40 the fastest for 1 to 64 rows
MAX_ROWS = 128  # with more rows torch's own product is as fast


class PackedWeight:
    """The packed copy of a linear layer's matrix.

    It is made again when the weights have changed.  It is no part of the module's state: it is not saved or copied.
    """

    def __init__(self) -> None:
        self.cached: tuple[tuple[int, int, Any], Tensor] | None = None  # (which weights, their packed copy)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedWeight":
        return PackedWeight()

    def __reduce__(self) -> tuple[type["PackedWeight"], tuple[()]]:
        return PackedWeight, ()

    def multiply(self, linear: nn.Linear, bias: Float[Tensor, " V"], x: Float[Tensor, "R H"]) -> Float[Tensor, "R V"]:
        """x W^T + `bias`, with the matrix W of `linear`; equal to `nn.functional.linear` up to rounding."""
        weight = linear.weight
        if not _is_faster_packed(weight, x):
            return nn.functional.linear(x, weight, bias)
        key = (weight.data_ptr(), weight._version, weight.shape)
        cached = self.cached
        if cached is None or cached[0] != key:
            self.cached = cached = (key, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), LAYOUT_ROWS))
        return torch.ops.mkldnn._linear_pointwise(x, cached[1], bias, "none", [], "")


class SmallBatchLinear(nn.Linear):
    """nn.Linear that uses a packed copy of its matrix when the input has few rows."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self._packed = PackedWeight()

    def forward(self, x: Float[Tensor, "*B H"]) -> Float[Tensor, "*B O"]:
        rows = x.reshape(-1, x.shape[-1])
        return self._packed.multiply(self, self.bias, rows).view(*x.shape[:-1], self.out_features)


def _is_faster_packed(weight: Tensor, x: Tensor) -> bool:
    """Whether a packed copy can be used (float32, on a CPU, without gradients) and is faster."""
    return (
        weight.numel() >= MIN_MATRIX_SIZE
        and len(x) <= MAX_ROWS
        and not torch.is_grad_enabled()
        and {weight.device.type, x.device.type} == {"cpu"}
        and {weight.dtype, x.dtype} == {torch.float32}
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
