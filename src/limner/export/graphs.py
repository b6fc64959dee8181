"""A captioner as two graphs: what is computed once per medium, and one step of decoding.

    encoder(pixels uint8 (1, T, h, w, 3)) -> memory ..., state ...
    step(token (R,), state ..., memory ...) -> logits (R, V), attention (R, N), new state ...

A memory has one row, that of the medium; tokens and states have one per hypothesis, as many as there are.  Frames,
cells and hypotheses may be any number, and so may the words that a transformer's state keeps: which axes these are is
found by trying.  Preprocessing that is a number per channel (scale, mean, deviation) is part of the graph, so that it
reads the bytes of a resized picture.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from limner.core.types import BOS, Layout, Pixels
from limner.encoders.encoder import Encoder
from limner.models.captioner import Captioner, map_tensors

Axes = tuple[int, ...]  # of a tensor, those whose length is not fixed


@dataclass(frozen=True)
class Flat:
    """A nested tuple of tensors as a list, and how it is put together again.

    A tensor that never holds anything (SA-LSTM's unused form of its memory) is no input and no output of a graph.
    """

    example: Any
    axes: tuple[Axes, ...]  # of every tensor of the nest

    @property
    def kept(self) -> list[bool]:
        return [x.numel() > 0 or bool(axes) for x, axes in zip(leaves(self.example), self.axes, strict=True)]

    def split(self, tree: Any) -> list[Tensor]:
        return [x for x, kept in zip(leaves(tree), self.kept, strict=True) if kept]

    def join(self, tensors: Sequence[Tensor]) -> Any:
        given, kept = iter(tensors), iter(self.kept)
        return map_tensors(lambda x: next(given) if next(kept) else x, self.example)

    @property
    def free(self) -> list[Axes]:
        """The free axes of those that are kept."""
        return [axes for axes, kept in zip(self.axes, self.kept, strict=True) if kept]


class EncoderGraph(nn.Module):
    """Everything that is computed once per medium."""

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: Encoder, captioner: Captioner, scale: Sequence[float], shift: Sequence[float]):
        super().__init__()
        self.encoder, self.captioner = encoder, captioner
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32).view(3, 1, 1))
        self.memory: Flat | None = None  # known after a first try
        self.state: Flat | None = None

    def see(self, pixels: UInt8[Tensor, "1 T h w 3"]) -> tuple[Any, Any, Layout]:
        frames = pixels.permute(0, 1, 4, 2, 3).to(torch.float32) * self.scale + self.shift
        features = self.encoder(Pixels(frames))
        memory = self.captioner.encode(features)
        return memory, self.captioner.init_state(memory), features.layout

    def forward(self, pixels: UInt8[Tensor, "1 T h w 3"]) -> tuple[Tensor, ...]:
        """Pixels of one medium -> the tensors of its memory and its first state."""
        assert self.memory is not None
        assert self.state is not None
        memory, state, _ = self.see(pixels)
        return (*self.memory.split(memory), *self.state.split(state))


class StepGraph(nn.Module):
    """One word more for every hypothesis of a medium."""

    def __init__(self, captioner: Captioner, memory: Flat, state: Flat):
        super().__init__()
        self.captioner, self.memory, self.state = captioner, memory, state

    def forward(
        self, token: Int[Tensor, " R"], state: Sequence[Tensor], memory: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "R V"] | Float[Tensor, "R N"] | Tensor, ...]:
        """Last tokens, states and memory -> logits, attention and the tensors of the new states."""
        out = self.captioner.step(token, self.state.join(state), self.memory.join(memory))
        return (out.logits, out.attention, *self.state.split(out.state))


@dataclass(frozen=True)
class Graphs:
    """Both graphs with an example of their inputs, ready to be written."""

    encoder: EncoderGraph
    step: StepGraph
    pixels: Tensor
    inputs: tuple[Tensor, list[Tensor], list[Tensor]]
    layout: Layout  # of one frame

    @property
    def memory_names(self) -> list[str]:
        """Names of the tensors of the memory in the ONNX files."""
        return [f"memory_{i}" for i in range(len(self.step.memory.free))]

    @property
    def state_names(self) -> list[str]:
        """Names of the tensors of the state in the ONNX files."""
        return [f"state_{i}" for i in range(len(self.step.state.free))]


def graphs_of(
    encoder: Encoder, captioner: Captioner, side: tuple[int, int], scale: Sequence[float], shift: Sequence[float]
) -> Graphs:
    """Graphs for pictures of `side` (height, width) pixels; `scale` and `shift` make channels of bytes."""
    whole = EncoderGraph(encoder, captioner, scale, shift).eval().requires_grad_(False)
    short, long = (torch.zeros(1, frames, *side, 3, dtype=torch.uint8) for frames in (4, 6))
    with torch.enable_grad():  # the plain form of every model; without gradients some take a shorter way on CPUs
        memory, start, layout = whole.see(short)
        longer = whole.see(long)[0]
        whole.memory = Flat(memory, tuple(_differ(a, b) for a, b in zip(leaves(memory), leaves(longer), strict=True)))
        states = [map_tensors(lambda x: x.repeat_interleave(3, 0), start)]
        token = torch.full((3,), BOS)
        for _ in range(2):
            states.append(captioner.step(token, states[-1], memory).state)
        grown = [_differ(a, b) for a, b in zip(leaves(states[1]), leaves(states[2]), strict=True)]
        whole.state = Flat(start, tuple((0, *axes) for axes in grown))
    step = StepGraph(captioner, whole.memory, whole.state).eval().requires_grad_(False)
    inputs = (token, whole.state.split(states[2]), whole.memory.split(memory))
    return Graphs(whole, step, short, inputs, Layout(1, layout.h, layout.w))


def write_graphs(graphs: Graphs, encoder_path: str, step_path: str) -> None:
    """ONNX files.  Raises ValueError when the model cannot be traced."""
    dynamic = torch.export.Dim.DYNAMIC
    memory, state = graphs.step.memory, graphs.step.state
    _write(
        graphs.encoder,
        (graphs.pixels,),
        ({1: dynamic},),
        ["pixels"],
        [*graphs.memory_names, *graphs.state_names],
        encoder_path,
    )
    _write(
        graphs.step,
        graphs.inputs,
        (
            {0: dynamic},
            [dict.fromkeys(axes, dynamic) for axes in state.free],
            [dict.fromkeys(axes, dynamic) for axes in memory.free],
        ),
        ["token", *graphs.state_names, *graphs.memory_names],
        ["logits", "attention", *(f"new_{name}" for name in graphs.state_names)],
        step_path,
    )


def _write(module: nn.Module, inputs: Any, shapes: Any, names: list[str], outputs: list[str], path: str) -> None:
    # what torch says of its own insides, and of torchvision, which is never needed here
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            module, inputs, path, dynamo=True, dynamic_shapes=shapes, input_names=names, output_names=outputs,
            external_data=False, verbose=False,
        )  # fmt: skip


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a nested tuple, in order."""
    found: list[Tensor] = []
    map_tensors(_remember(found), tree)
    return found


def _remember(found: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def remember(x: Tensor) -> Tensor:
        found.append(x)
        return x

    return remember


def _differ(a: Tensor, b: Tensor) -> Axes:
    """The axes along which two tensors have another length."""
    return tuple(i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n)
