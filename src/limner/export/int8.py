"""Weights of one byte: of ONNX graphs, and of PyTorch's modules.

Decoder: dynamic quantisation; a product's weights are int8, what it reads is quantised as it comes.  Encoder: its
weights are stored as int8, with a factor per output channel, and are floats again once the graph is loaded: a quarter
of the file, the same speed (convolutions of integers are slower on CPUs without VNNI, and less exact).
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

SMALL = 1024  # numbers; smaller tensors stay floats
STEP = ["MatMul", "Gemm", "Gather", "LSTM"]  # operations of a step that are quantised
CHANNEL = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}  # axis of a weight's output channels


def quantise_step(source: Path, target: Path) -> None:
    """int8 products and words of a decoding step."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    del model.graph.value_info[:]  # what it says of weights no longer holds once products have been turned around
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # advice about preprocessing, to the root logger
    try:
        quantize_dynamic(model, str(target), weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=STEP)
    finally:
        root.setLevel(level)


def shrink_weights(source: Path, target: Path) -> None:
    """Weights of convolutions and products as int8, each followed by `DequantizeLinear`.

    Those of depthwise convolutions stay: they are few, and a channel that reads one other has no other to average with.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    axes = {
        node.input[1]: _axis(node)
        for node in graph.node
        if node.op_type in CHANNEL and len(node.input) > 1 and _attribute(node, "group") <= 1
    }  # by the weight's name
    kept, nodes = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name not in axes or values.dtype != np.float32 or values.ndim < 2 or values.size < SMALL:
            kept.append(tensor)
            continue
        axis = axes[tensor.name]
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = (np.abs(values).max(others) / 127).astype(np.float32)
        scale[scale == 0] = 1
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        small = np.rint(values / scale.reshape(shape)).astype(np.int8)
        inputs = [f"{tensor.name}_{part}" for part in ("int8", "scale", "zero")]
        for name, part in zip(inputs, (small, scale, np.zeros(len(scale), np.int8)), strict=True):
            kept.append(numpy_helper.from_array(part, name))
        nodes.append(helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=axis))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    computed = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *computed])
    onnx.save(model, str(target))


def _axis(node: Any) -> int:
    return 1 if node.op_type == "Gemm" and not _attribute(node, "transB") else CHANNEL[node.op_type]


def _attribute(node: Any, name: str) -> int:
    """Of a node, as a number; 0 when it does not say."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
