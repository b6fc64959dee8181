"""A captioner as two ONNX graphs: the encoder, which runs once per medium, and one decoding step.

    encoder(pixels uint8 (1, T, h, w, 3)) -> memory ..., state ...
    step(token (B, K), state ..., memory ...) -> logits (B, K, V), attention (B, K, N), new state ...

The encoder reads one medium at a time; a step decodes K hypotheses of each of B media, whose memories are concatenated.
Where torch.export can trace a model for one medium only, tokens and states are (R, ...) and the memory has one row.
The numbers of media, frames T, cells N and hypotheses are dynamic, and so is the number of words in a transformer's
state.
Which axes are dynamic is found by running the model with two different sizes.  Scaling and normalisation per channel
are part of the encoder graph, so its input is the uint8 pixels of a resized image.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from limner.core.types import BOS, Features, Layout, Pixels
from limner.encoders.encoder import Encoder
from limner.inference.onnx.model import POOLED
from limner.models.captioner import Captioner, map_tensors

Axes = tuple[int, ...]  # indices of the dynamic axes of a tensor


@dataclass(frozen=True)
class TreeSpec:
    """Structure of a nested tuple of tensors: flattens it to a list and rebuilds it, as ONNX graphs need.

    Tensors that are always empty (for example the unused form of SA-LSTM's memory) are left out of the list, because
    they cannot be inputs or outputs of a graph.
    """

    example: Any  # a nested tuple of this structure
    axes: tuple[Axes, ...]  # dynamic axes of every tensor in it

    @property
    def non_empty(self) -> list[bool]:
        """For every tensor: is it part of the list?"""
        return [x.numel() > 0 or bool(axes) for x, axes in zip(tree_leaves(self.example), self.axes, strict=True)]

    def flatten(self, tree: Any) -> list[Tensor]:
        """The tensors of a nested tuple as a list, without those that are always empty."""
        return [x for x, non_empty in zip(tree_leaves(tree), self.non_empty, strict=True) if non_empty]

    def unflatten(self, tensors: Sequence[Tensor]) -> Any:
        """The nested tuple of a list that `flatten` made."""
        remaining, non_empty = iter(tensors), iter(self.non_empty)
        return map_tensors(lambda x: next(remaining) if next(non_empty) else x, self.example)

    @property
    def dynamic_axes(self) -> list[Axes]:
        """The dynamic axes of every tensor in the list."""
        return [axes for axes, non_empty in zip(self.axes, self.non_empty, strict=True) if non_empty]


class EncoderGraph(nn.Module):
    """The part that runs once per medium: normalisation, encoder, and the captioner's memory and first state."""

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: Encoder, captioner: Captioner, scale: Sequence[float], shift: Sequence[float]):
        super().__init__()
        self.encoder, self.captioner = encoder, captioner
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32).view(3, 1, 1))
        self.memory: TreeSpec | None = None  # set by `build_graphs`
        self.state: TreeSpec | None = None

    def encode(self, pixels: UInt8[Tensor, "1 T h w 3"]) -> tuple[Any, Any, Features]:
        """Pixels of one medium -> memory, first state, cells."""
        frames = pixels.permute(0, 1, 4, 2, 3).to(torch.float32) * self.scale + self.shift
        features = self.encoder(Pixels(frames))
        memory = self.captioner.encode(features)
        return memory, self.captioner.init_state(memory), features

    def forward(self, pixels: UInt8[Tensor, "1 T h w 3"]) -> tuple[Tensor, ...]:
        """Pixels of one medium -> the tensors of its memory and its first state, and the mean over its cells."""
        assert self.memory is not None
        assert self.state is not None
        memory, state, features = self.encode(pixels)
        return (*self.memory.flatten(memory), *self.state.flatten(state), features.pooled)


class StepGraph(nn.Module):
    """One decoding step for all hypotheses of several media (`batched`), or of one."""

    def __init__(self, captioner: Captioner, memory: TreeSpec, state: TreeSpec, batched: bool):
        super().__init__()
        self.captioner, self.memory, self.state, self.batched = captioner, memory, state, batched

    def forward(
        self, token: Int[Tensor, "*R"], state: Sequence[Tensor], memory: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Last tokens, states and memory -> logits, attention and the tensors of the new states."""
        rows = [x.flatten(0, 1) for x in (token, *state)] if self.batched else [token, *state]
        out = self.captioner.step(rows[0], self.state.unflatten(rows[1:]), self.memory.unflatten(memory))
        outputs = (out.logits, out.attention, *self.state.flatten(out.state))
        return tuple(x.unflatten(0, token.shape) for x in outputs) if self.batched else outputs


@dataclass(frozen=True)
class Graphs:
    """Both graphs, with the example inputs that tracing needs."""

    encoder: EncoderGraph
    step: StepGraph
    pixels: Tensor  # example input of the encoder
    inputs: tuple[Tensor, list[Tensor], list[Tensor]]  # example inputs of a step: token, state, memory
    layout: Layout  # of one frame

    @property
    def memory_names(self) -> list[str]:
        """Names of the tensors of the memory in the ONNX files."""
        return [f"memory_{i}" for i in range(len(self.step.memory.dynamic_axes))]

    @property
    def state_names(self) -> list[str]:
        """Names of the tensors of the state in the ONNX files."""
        return [f"state_{i}" for i in range(len(self.step.state.dynamic_axes))]


def build_graphs(
    encoder: Encoder,
    captioner: Captioner,
    side: tuple[int, int],
    scale: Sequence[float],
    shift: Sequence[float],
    batched: bool,
) -> Graphs:
    """Build both graphs for images of `side` = (height, width) pixels; `batched`: a step decodes several media.

    Channel c of a pixel with the uint8 value x becomes scale[c] * x + shift[c].
    """
    encoder_graph = EncoderGraph(encoder, captioner, scale, shift).eval().requires_grad_(False)
    short, long = (torch.zeros(1, frames, *side, 3, dtype=torch.uint8) for frames in (4, 6))
    with torch.enable_grad():  # without gradients, some models use CPU kernels that cannot be traced
        memory, start, features = encoder_graph.encode(short)
        longer_memory = encoder_graph.encode(long)[0]
        encoder_graph.memory = TreeSpec(
            memory,
            tuple(_changed_axes(a, b) for a, b in zip(tree_leaves(memory), tree_leaves(longer_memory), strict=True)),
        )
        states = [map_tensors(lambda x: x.repeat_interleave(3, 0), start)]
        token = torch.full((3,), BOS)
        for _ in range(2):
            states.append(captioner.step(token, states[-1], memory).state)
        # a transformer's state grows with every step: these axes are dynamic, and so is axis 0, the hypotheses
        grown = [_changed_axes(a, b) for a, b in zip(tree_leaves(states[1]), tree_leaves(states[2]), strict=True)]
        encoder_graph.state = TreeSpec(start, tuple((0, *axes) for axes in grown))
    step = StepGraph(captioner, encoder_graph.memory, encoder_graph.state, batched).eval().requires_grad_(False)
    inputs = (token, encoder_graph.state.flatten(states[2]), encoder_graph.memory.flatten(memory))
    if batched:  # the example has two media
        token, rows, cells = inputs
        inputs = (torch.stack([token] * 2), [torch.stack([x] * 2) for x in rows], [torch.cat([x] * 2) for x in cells])
    return Graphs(encoder_graph, step, short, inputs, Layout(1, features.layout.h, features.layout.w))


def write_graphs(graphs: Graphs, encoder_path: str, step_path: str) -> None:
    """Write both graphs as ONNX files.  Any exception of torch.export means that the model cannot be traced."""
    dynamic = torch.export.Dim.DYNAMIC
    memory, state, batched = graphs.step.memory, graphs.step.state, graphs.step.batched
    leading = {0: dynamic, 1: dynamic} if batched else {0: dynamic}  # media and hypotheses, or hypotheses
    _write(
        graphs.encoder,
        (graphs.pixels,),
        ({1: dynamic},),
        ["pixels"],
        [*graphs.memory_names, *graphs.state_names, POOLED],
        encoder_path,
    )
    _write(
        graphs.step,
        graphs.inputs,
        (
            leading,
            [leading | {axis + batched: dynamic for axis in axes if axis} for axes in state.dynamic_axes],
            [({0: dynamic} if batched else {}) | dict.fromkeys(axes, dynamic) for axes in memory.dynamic_axes],
        ),
        ["token", *graphs.state_names, *graphs.memory_names],
        ["logits", "attention", *(f"new_{name}" for name in graphs.state_names)],
        step_path,
    )


def _write(module: nn.Module, inputs: Any, shapes: Any, names: list[str], outputs: list[str], path: str) -> None:
    """Trace a module and write it as an ONNX file."""
    # silences warnings about internals of torch and about torchvision, which is not needed here
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            module, inputs, path, dynamo=True, dynamic_shapes=shapes, input_names=names, output_names=outputs,
            external_data=False, verbose=False,
        )  # fmt: skip


def tree_leaves(tree: Any) -> list[Tensor]:
    """The tensors of a nested tuple, in order."""
    leaves: list[Tensor] = []

    def collect(x: Tensor) -> Tensor:
        leaves.append(x)
        return x

    map_tensors(collect, tree)
    return leaves


def _changed_axes(a: Tensor, b: Tensor) -> Axes:
    """The axes along which two tensors differ in length.

    >>> _changed_axes(torch.zeros(1, 4, 8), torch.zeros(1, 6, 8))
    (1,)
    """
    return tuple(i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n)
