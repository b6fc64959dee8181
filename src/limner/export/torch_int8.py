"""A captioner whose products have weights of one byte, in PyTorch: dynamic quantisation on CPUs.

    Pipeline's model -> quantised(model), a captioner like any other for every search

Linear layers, LSTM cells and LSTMs become int8, words stay floats.  `torch.ao.quantization` is deprecated, but there in
PyTorch 2.13; what stands for it (torchao) is a package of its own.
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


class Quantised(Captioner):
    """Only for decoding: nothing of it can be trained."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner

    # Without gradients some models read the weights of an LSTM cell themselves, which int8 ones do not give out.
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


def quantised(captioner: Captioner) -> Quantised:
    """An int8 copy, in evaluation mode, on the CPU.  Raises ValueError when this PyTorch cannot make one, and for SFT,
    which multiplies by the weights of its layers itself."""
    if captioner.reads_own_weights:
        raise ValueError(
            f"{captioner.config.name} has no int8 form in PyTorch: it reads the weights of its layers itself"
        )
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError as error:
        raise ValueError(f"PyTorch {torch.__version__} has no dynamic quantisation any more: {error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        float_twin = _plain_heads(captioner)
        small = quantize_dynamic(float_twin, {nn.Linear, nn.LSTMCell, nn.LSTM}, dtype=torch.qint8)
    return Quantised(small.eval().requires_grad_(False)).eval()


def _plain_heads(captioner: Captioner) -> Captioner:
    """A copy whose word heads are linear layers with the -inf of words that are never said in their biases."""
    twin = copy.deepcopy(captioner).cpu().eval()
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, WordHead):
                plain = nn.Linear(child.in_features, child.out_features)
                plain.weight = child.weight
                plain.bias = nn.Parameter(child.bias.detach().masked_fill(child.never, -torch.inf))
                setattr(module, name, plain)
    return twin


def weight_bytes(module: nn.Module) -> int:
    """Of its weights as `torch.save` writes them."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.tell()
