"""int8 weights of ONNX graphs: one byte per weight, a quarter of the file.

Decoding step: dynamic quantisation.  The weights of matrix products are int8, and their inputs are quantised at run
time.  Encoder: the weights are stored as int8 with one scale per output channel and become floats again when the graph
is loaded.  Its speed does not change: integer convolutions are slower on CPUs without VNNI, and less exact.

Worked example of the encoder's rounding, for an output channel with the weights (0.50, -1.27, 0.004):

    scale = max |w| / 127 = 1.27 / 127 = 0.01
    int8 = round(w / scale) = (50, -127, 0)
    restored = scale * int8 = (0.50, -1.27, 0.0)

The error of a weight is at most scale / 2, which is max |w| / 254.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

MIN_WEIGHTS = 1024  # tensors with fewer weights stay float32
STEP_OPERATORS = ["MatMul", "Gemm", "Gather", "LSTM"]  # the ones that are quantised
OUTPUT_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}  # axis of a weight's output channels


def quantise_step(source: Path, target: Path) -> None:
    """Quantise the matrix products and the word embedding of a decoding step to int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    del model.graph.value_info[:]  # shapes recorded for weights are wrong once Gemm has been rewritten
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # silences advice about preprocessing, which goes to the root logger
    try:
        quantize_dynamic(
            model, str(target), weight_type=QuantType.QUInt8, per_channel=True, op_types_to_quantize=STEP_OPERATORS
        )
    finally:
        root.setLevel(level)


def shrink_weights(source: Path, target: Path) -> None:
    """Store the weights of convolutions and matrix products as int8, each followed by `DequantizeLinear`.

    Weights of depthwise convolutions stay float32: they are few, and rounding errors cannot average out, because an
    output channel has only one input channel.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    axes = {
        node.input[1]: _output_axis(node)
        for node in graph.node
        if node.op_type in OUTPUT_AXES and len(node.input) > 1 and _attribute(node, "group") <= 1
    }  # name of the weight -> axis
    initializers, dequantisers = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name not in axes or values.dtype != np.float32 or values.ndim < 2 or values.size < MIN_WEIGHTS:
            initializers.append(tensor)
            continue
        axis = axes[tensor.name]
        other_axes = tuple(i for i in range(values.ndim) if i != axis)
        scale = (np.abs(values).max(other_axes) / 127).astype(np.float32)
        scale[scale == 0] = 1
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        rounded = np.rint(values / scale.reshape(shape)).astype(np.int8)
        inputs = [f"{tensor.name}_{part}" for part in ("int8", "scale", "zero")]
        for name, part in zip(inputs, (rounded, scale, np.zeros(len(scale), np.int8)), strict=True):
            initializers.append(numpy_helper.from_array(part, name))
        dequantisers.append(helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=axis))
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    operators = list(graph.node)
    del graph.node[:]
    graph.node.extend([*dequantisers, *operators])
    onnx.save(model, str(target))


def _output_axis(node: Any) -> int:
    """Axis of the output channels of a node's weight."""
    return 1 if node.op_type == "Gemm" and not _attribute(node, "transB") else OUTPUT_AXES[node.op_type]


def _attribute(node: Any, name: str) -> int:
    """An integer attribute of a node; 0 where it is absent."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
