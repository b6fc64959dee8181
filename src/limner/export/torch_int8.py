"""Dynamic int8 quantization of a captioner in PyTorch, for CPUs.

The weights of linear layers, LSTM cells and LSTMs become int8; word embeddings and activations between layers stay
float32.  `torch.ao.quantization` is deprecated but still part of PyTorch 2.13; its successor, torchao, is a separate
package.
"""

import copy
import io
import warnings
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from limner.core.types import Features, Pixels
from limner.models.captioner import Captioner, Step, TeacherForced, unroll
from limner.models.layers import WordHead
from limner.models.packed_linear import SmallBatchLinear


class Int8Captioner(Captioner):
    """An int8 captioner, for decoding with every search.  It cannot be trained."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner

    # With gradients off, some models read the weights of an LSTM cell, which an int8 cell does not have as tensors.
    @torch.enable_grad()
    def encode(self, inputs: Features | Pixels) -> Any:
        return self.captioner.encode(inputs)

    @torch.enable_grad()
    def init_state(self, memory: Any) -> Any:
        return self.captioner.init_state(memory)

    @torch.enable_grad()
    def step(self, token: Int[Tensor, " R"], state: Any, memory: Any) -> Step:
        return self.captioner.step(token, state, memory)

    def forward_teacher_forced(self, memory: Any, tokens: Int[Tensor, "R L"]) -> TeacherForced:
        return unroll(self, memory, tokens)


def quantize_to_int8(captioner: Captioner) -> Int8Captioner:
    """-> an int8 copy of `captioner`, in evaluation mode, on the CPU.

    Raises ValueError when this PyTorch has no dynamic quantization, and for a captioner that reads the weights of its
    layers (`reads_own_weights`).
    """
    if captioner.reads_own_weights:
        raise ValueError(
            f"{captioner.config.name} cannot be quantized to int8 in PyTorch: it reads the weights of its "
            "layers itself; use it in float32"
        )
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError as error:
        raise ValueError(
            f"PyTorch {torch.__version__} has no dynamic quantization any more: {error}; use 2.13"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its deprecation
        quantized = quantize_dynamic(
            _with_linear_heads(captioner), {nn.Linear, nn.LSTMCell, nn.LSTM}, dtype=torch.qint8
        )
    return Int8Captioner(quantized.eval().requires_grad_(False)).eval()


def _with_linear_heads(captioner: Captioner) -> Captioner:
    """-> a copy whose word heads and packed layers are plain linear layers, which alone are quantized.

    The bias of a word that may never be predicted is -inf.
    """
    copied = copy.deepcopy(captioner).cpu().eval()
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, WordHead | SmallBatchLinear):
                linear = nn.Linear(child.in_features, child.out_features, child.bias is not None)
                linear.weight, linear.bias = child.weight, child.bias
                if isinstance(child, WordHead):
                    linear.bias = nn.Parameter(child.bias.detach().masked_fill(child.never, -torch.inf))
                setattr(module, name, linear)
    return copied


def serialized_size(module: nn.Module) -> int:
    """The bytes that `torch.save` writes for the weights of `module`."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.tell()
