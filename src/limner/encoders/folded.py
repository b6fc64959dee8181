"""Convolutions for inference on a CPU: BatchNorm is folded in, the activation is fused, and weights are packed once.

The layers of a network are three operations, and each of them reads and writes a whole map: a convolution, for which
oneDNN first copies the weights into its own layout, BatchNorm, and an activation.  Here they are one operation on
weights that are in that layout already.  EfficientNet-Lite2 on one image of 224 x 224 pixels takes half the time (one
thread of an AMD EPYC, torch 2.13).  The network that is trained, saved and hashed stays as it is.
"""

from collections.abc import Callable
from math import ceil
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from limner.core.derived import Derived

IMAGES = 4  # that run through the layers together: the maps of 16 do not fit the cache, which takes half as long again
Activation = Literal["none", "relu", "relu6"]
# names and arguments of the activations in oneDNN's operations
FUSED: dict[str, tuple[str, list[float]]] = {"none": ("none", []), "relu": ("relu", []), "relu6": ("hardtanh", [0, 6])}


class Packed(NamedTuple):
    """A folded layer for inputs of one size."""

    size: torch.Size  # (C, H, W) of the input
    padding: list[int]  # of height and width
    weight: Tensor  # in oneDNN's layout
    bias: Tensor


class FoldedConvolution:
    """activation(BatchNorm(convolution(x)) + shortcut) in evaluation mode, as one operation.

    It equals the separate layers up to rounding.  `same` pads as TensorFlow's "same" does, h = ceil(H / stride);
    otherwise the convolution's own padding is used.  Weights are folded at the first call for a size of input.
    """

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, activation: Activation = "none", same: bool = False
    ) -> None:
        self.convolution, self.norm, self.same = convolution, norm, same
        self.stride, self.groups = list(convolution.stride), convolution.groups
        self.fused = FUSED[activation]
        self.packed: Packed | None = None

    def __call__(
        self, x: Float[Tensor, "B C H W"], shortcut: Float[Tensor, "B D h w"] | None = None
    ) -> Float[Tensor, "B D h w"]:
        """Apply the layer to maps of any size, without gradients."""
        packed = self.packed
        if packed is None or packed.size != x.shape[1:]:
            self.packed = packed = self._pack(x.shape[1:])
        _, padding, weight, bias = packed
        name, numbers = self.fused
        if shortcut is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, padding, self.stride, [1, 1], self.groups, name, numbers, ""
            )
        after = None if name == "none" else name
        return torch.ops.mkldnn._convolution_pointwise(
            x, shortcut, weight, bias, padding, self.stride, [1, 1], self.groups, "add", 1.0, after, numbers, ""
        )

    def _pack(self, size: torch.Size) -> Packed:
        """Fold and pack the weights for an input of a size; those for one image serve batches.

        "Same" padding can be one larger at the end than at the start, and a copy of every map with such a border is
        slow.  The kernel gets a leading row or column of zeros instead, and equal padding.  For example, kernel 3 and
        stride 2 on 112 pixels need no padding at the start and 1 at the end: a kernel of 4 whose first number is 0
        reads from -1 on.
        """
        layer, norm = self.convolution, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        folded, bias = fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        weight, padding = folded.detach(), [int(pixels) for pixels in layer.padding]
        if self.same:
            sides = zip(size[1:], layer.kernel_size, layer.stride, strict=True)
            totals = [sum(same_padding(*side)) for side in sides]
            weight = F.pad(weight, (totals[1] % 2, 0, totals[0] % 2, 0))
            padding = [(total + 1) // 2 for total in totals]
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, self.stride, [1, 1], self.groups, [1, *size]
        )
        return Packed(size, padding, packed, bias.detach())


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after a side of a map with TensorFlow's "same" padding, the odd one at the end.

    >>> same_padding(224, 3, 2), same_padding(7, 5, 1)
    ((0, 1), (2, 2))
    """
    total = max((ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def can_fold(network: nn.Module) -> bool:
    """Whether `FoldedConvolution` can stand in for the layers of a network: float32 weights on a CPU with oneDNN."""
    return (
        all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in network.parameters())
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    )


class FoldedNetwork:
    """A network whose layers `fold` makes at the first call, and again when the weights of `network` have changed."""

    def __init__(self, network: nn.Module, fold: Callable[[], Callable[[Tensor], Tensor]]) -> None:
        """`fold()` returns the function from images to maps, with copies of the weights."""
        self.tensors = [*network.parameters(), *network.buffers()]
        self.fold = fold
        self.folded = Derived[Callable[[Tensor], Tensor]]()

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """Compute the maps of images, without gradients."""
        run = self.folded.get(self.tensors, self.fold)
        maps = [run(part) for part in images.split(IMAGES)]
        return maps[0] if len(maps) == 1 else torch.cat(maps)
