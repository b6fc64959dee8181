"""Weights of one byte: how large, how near, in ONNX graphs and in PyTorch's modules."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from limner.core.types import BOS, PAD, Features
from limner.decode.options import Beam
from limner.decode.search import beam
from limner.export.int8 import quantise_step, shrink_weights
from limner.export.torch_int8 import quantize_to_int8, serialized_size
from limner.models import build_model
from limner.models.captioner import Captioner, unroll
from limner.models.show_attend_tell import ShowAttendTellConfig
from limner.models.spatial_transformer import SpatialTransformerConfig
from tests.decode.test_search import forced
from tests.models.captioners import random_features, small

D, WORDS = 64, 500


def step_graph(path: Path) -> dict[str, np.ndarray]:
    """Words by id, a layer, and a head whose first score is -inf: logits = head(relu(layer(words[token])))."""
    draw = np.random.default_rng(0)
    weights = {
        "words": draw.normal(size=(WORDS, D)),
        "layer": draw.normal(size=(D, D)) / D**0.5,
        "head": draw.normal(size=(WORDS, D)) / D**0.5,
        "bias": np.where(np.arange(WORDS) == 0, -np.inf, 0.0),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [
        helper.make_node("Gather", ["words", "token"], ["x"]),
        helper.make_node("MatMul", ["x", "layer"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Gemm", ["z", "head", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes, "step",
        [helper.make_tensor_value_info("token", TensorProto.INT64, ["R"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["R", WORDS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return weights


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def test_a_decoding_step_in_int8_is_small_and_close(tmp_path: Path):
    """A quarter of the size and a little more; numbers within 3 % of their spread; what is never said stays so."""
    step_graph(tmp_path / "float.onnx")
    quantise_step(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.35 * (tmp_path / "float.onnx").stat().st_size
    tokens = np.arange(20)
    exact, rough = (run(tmp_path / f"{name}.onnx", token=tokens) for name in ("float", "int8"))
    assert np.isneginf(rough[:, 0]).all()
    assert 0 < np.abs(exact[:, 1:] - rough[:, 1:]).std() < 0.03 * exact[:, 1:].std()


def test_weights_stored_as_int8_are_off_by_half_a_step_at_most(tmp_path: Path):
    """Numbers are off by half a step at most, 1/254 of their channel's largest; depthwise weights are as they were."""
    draw = np.random.default_rng(1)
    weights = {"wide": draw.normal(size=(48, 32, 3, 3)), "deep": draw.normal(size=(48, 1, 5, 5))}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [
        helper.make_node("Conv", ["x", "wide"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["y", "deep"], ["z"], group=48, pads=[2, 2, 2, 2]),
    ]
    graph = helper.make_graph(
        nodes, "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 6, 6])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 48, 6, 6])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "float.onnx"))
    shrink_weights(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    kept = {it.name: numpy_helper.to_array(it) for it in onnx.load(str(tmp_path / "int8.onnx")).graph.initializer}
    np.testing.assert_array_equal(kept["deep"], weights["deep"])
    near = kept["wide_int8"].astype(np.float32) * kept["wide_scale"][:, None, None, None]
    largest = np.abs(weights["wide"]).max((1, 2, 3), keepdims=True)
    assert (np.abs(near - weights["wide"]) <= largest / 254 * 1.001).all()
    x = draw.normal(size=(1, 32, 6, 6)).astype(np.float32)
    exact, rough = (run(tmp_path / f"{name}.onnx", x=x) for name in ("float", "int8"))
    assert 0 < np.abs(exact - rough).std() < 0.02 * exact.std()


def middle(name: str) -> Captioner:
    torch.manual_seed(0)
    config = {
        "show_attend_tell": ShowAttendTellConfig(hidden=256, embed=64, attention=64),
        "spatial_transformer": SpatialTransformerConfig(dim=128, hidden=256, positions="none"),
    }[name]
    return build_model(config, 300, 10).eval()


def distance(model: Captioner, twin: Captioner, features: Features, tokens: torch.Tensor) -> float:
    """The largest sum over all words of how far their probabilities after given words are apart, in [0, 2]."""
    with torch.no_grad():
        exact = unroll(model, model.encode(features), tokens).logits.softmax(-1)
        rough = twin.forward_teacher_forced(twin.encode(features), tokens).logits.softmax(-1)
    assert rough[..., [PAD, BOS]].max() == 0
    return (exact - rough).abs().sum(-1).max().item()


def says_as_likely(model: Captioner, twin: Captioner, features: Features) -> None:
    """To the float model the int8 twin's captions are as likely, to .1 in the logarithm of every word."""
    found = beam(twin, features, Beam(3))
    apart = (found.logprob - forced(model, features, found)).abs().max().item()
    assert apart < 0.1 * found.tokens.shape[1]


@pytest.mark.parametrize("name", ["show_attend_tell", "spatial_transformer"])
def test_int8_in_pytorch_is_small_and_close(name: str):
    """Smaller than half (words and norms stay floats); what follows given words is about as likely."""
    model, features = middle(name), random_features(4, ragged=False)
    twin = quantize_to_int8(model)
    assert serialized_size(twin) < 0.5 * serialized_size(model)
    assert model.head.weight.dtype == torch.float32  # the captioner itself is as it was
    tokens = torch.cat([torch.full((4, 1), BOS), torch.randint(4, 300, (4, 5))], 1)
    assert 0 < distance(model, twin, features, tokens) < 0.1
    says_as_likely(model, twin, features)


def test_sft_cannot_be_quantized_in_pytorch():
    with pytest.raises(ValueError, match="sft cannot be quantized to int8 in PyTorch"):
        quantize_to_int8(small("sft"))


@pytest.mark.parametrize("case", ["first_token", "sa_lstm", "sa_lstm, all options", "up_down", "xlan"])
def test_other_captioners_in_int8_are_close(case: str):
    model, features = small(case), random_features(3, ragged=False)
    twin = quantize_to_int8(model)
    assert 0 < distance(model, twin, features, torch.tensor([[BOS, 4, 5, 6]] * 3)) < 0.25
    says_as_likely(model, twin, features)
