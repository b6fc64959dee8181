"""Linear layers that are fast for the rows of a decoding step on a CPU, for the word matrix above all.

The time to multiply 8 rows with a 49,408 x 512 matrix is the time to read the matrix.  But at every call the BLAS first
copies the whole matrix into its own packed layout: 19 ms per product.  With a packed copy that is made once it is 8 ms
(one thread of an AMD EPYC, torch 2.13).  Hundreds of rows gain too: 80 rows times 9,490 x 1,024 run at 102 instead of
61 GFLOP/s, 2,880 rows times 512 x 512 at 105 instead of 73.  The price is memory: a copy is as large as its matrix.

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
MAX_ROWS = 4096  # larger batches are those of training and evaluation, where a copy may not be worth its memory


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

    def multiply(
        self,
        weight: Float[Tensor, "V H"],
        bias: Float[Tensor, " V"] | None,
        x: Float[Tensor, "*B H"],
        relu: bool = False,
    ) -> Float[Tensor, "*B V"]:
        """x W^T + `bias` for the matrix W = `weight`, followed by ReLU if wanted.

        It equals `nn.functional.linear` up to rounding.  `weight` may be a part of a parameter, but not a copy of it.
        """
        if not _is_faster_packed(weight, x):
            product = nn.functional.linear(x, weight, bias)
            return torch.relu(product) if relu else product
        key = (weight.data_ptr(), weight._version, weight.shape)
        cached = self.cached
        if cached is None or cached[0] != key:
            self.cached = cached = (key, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), LAYOUT_ROWS))
        rows, after = x.reshape(-1, x.shape[-1]), "relu" if relu else "none"
        product = torch.ops.mkldnn._linear_pointwise(rows, cached[1], bias, after, [], "")
        return product.view(*x.shape[:-1], len(weight))


class PackedLinear:
    """x W^T + b without gradients on a CPU, from a packed copy of W that is made here, for weights of any size.

    Nothing is checked at a call, and nothing follows when the weights change (see `limner.core.derived`).
    """

    def __init__(self, weight: Float[Tensor, "O H"], bias: Float[Tensor, " O"] | None = None):
        """Only where `can_pack(weight)` is True."""
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), LAYOUT_ROWS)
        self.bias = None if bias is None else bias.detach()

    def __call__(self, x: Float[Tensor, "R H"]) -> Float[Tensor, "R O"]:
        """The product, for at least one row."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


class SmallBatchLinear(nn.Linear):
    """nn.Linear that uses a packed copy of its matrix on a CPU, without gradients."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self._packed = PackedWeight()

    def forward(self, x: Float[Tensor, "*B H"]) -> Float[Tensor, "*B O"]:
        return self._packed.multiply(self.weight, self.bias, x)


def _is_faster_packed(weight: Tensor, x: Tensor) -> bool:
    """Whether a packed copy can be used (float32, on a CPU, without gradients) and is faster."""
    return weight.numel() >= MIN_MATRIX_SIZE and 0 < x.numel() <= MAX_ROWS * x.shape[-1] and can_pack(weight, x)


def can_pack(*tensors: Tensor) -> bool:
    """Whether products of these tensors can use packed copies: float32, on a CPU, without gradients or autocast."""
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
