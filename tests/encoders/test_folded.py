"""Folded convolutions equal the separate layers, and encoders made of them give the same cells."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.derived import Derived
from limner.core.types import Pixels
from limner.encoders import build_encoder
from limner.encoders.efficientnet_lite import EfficientNetLiteConfig, same_convolution
from limner.encoders.encoder import Encoder, EncoderConfig
from limner.encoders.folded import FoldedConvolution, same_padding
from limner.encoders.tiny import TinyConfig
from limner.models import build_model
from limner.models.captioner import FromPixels
from limner.models.sa_lstm import SaLstmConfig

TINY = TinyConfig(size=64, widths=(4, 8, 8, 8), blocks=(1, 2, 1, 1), dim=6)
LITE = EfficientNetLiteConfig(variant="lite0", size=64, source="")


def randomise(network: nn.Module) -> None:
    """Give every BatchNorm statistics and weights of its own."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)


@torch.no_grad()
def test_a_convolution_by_hand():
    """1x1, weight 3, BatchNorm with mean 1, variance 4 - eps and weight 2: (3x - 1) / 2 * 2 + .5; then the shortcut."""
    convolution, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=1e-3).eval()
    assert norm.running_mean is not None and norm.running_var is not None
    convolution.weight.fill_(3)
    norm.running_mean.fill_(1), norm.running_var.fill_(4 - 1e-3), norm.weight.fill_(2), norm.bias.fill_(0.5)
    x = torch.tensor([[[[-1.0, 0.0, 1.0, 4.0]]]])
    for activation, shortcut, expected in (
        ("none", None, [-3.5, -0.5, 2.5, 11.5]),
        ("relu6", None, [0, 0, 2.5, 6]),
        ("relu", torch.full_like(x, 1.0), [0, 0.5, 3.5, 12.5]),
        ("none", torch.full_like(x, 1.0), [-2.5, 0.5, 3.5, 12.5]),
    ):
        folded = FoldedConvolution(convolution, norm, activation)  # type: ignore[arg-type]
        torch.testing.assert_close(folded(x, shortcut), torch.tensor([[[expected]]], dtype=torch.float32))


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_that_of_the_plain_layers(kernel: int, stride: int):
    """Maps of even and odd sides, one after the other through the same layer."""
    convolution, norm = nn.Conv2d(4, 4, kernel, stride, groups=4, bias=False), nn.BatchNorm2d(4).eval()
    randomise(norm)
    folded = FoldedConvolution(convolution, norm, "relu6", same=True)
    for height, width, batch in ((8, 8, 1), (8, 8, 3), (7, 7, 1), (8, 7, 2), (5, 6, 1)):
        x = torch.randn(batch, 4, height, width)
        expected = F.relu6(norm(same_convolution(convolution, x)))
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-5)
    assert same_padding(8, 5, 2) == (1, 2)  # 4 outputs need (4 - 1) * 2 + 5 - 8 = 3


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, LITE], ids=["tiny", "efficientnet_lite"])
def test_the_inference_form_gives_the_same_cells(config: EncoderConfig):
    encoder: Encoder = build_encoder(config).eval()
    randomise(encoder)
    sha = encoder.provenance()["sha256"]
    form = encoder.inference_form()
    assert form is not encoder
    for shape in ((1, 1), (3, 1), (2, 2)):
        pixels = Pixels(torch.randn(*shape, 3, 64, 64))
        expected, features = encoder(pixels), form(pixels)
        assert features.layout == expected.layout and features.mask.all()
        torch.testing.assert_close(features.grid, expected.grid, rtol=1e-4, atol=1e-4)
    assert encoder.provenance()["sha256"] == sha and not any("folded" in name for name in encoder.state_dict())
    next(module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)).bias.add_(1)
    torch.testing.assert_close(form(pixels).grid, encoder(pixels).grid, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(form(pixels).grid, features.grid)


def test_other_weights_run_unfolded():
    for encoder in (build_encoder(TINY), build_encoder(LITE)):
        half: Any = encoder.to(torch.bfloat16)
        assert half.inference_form() is half


def test_a_derived_value_is_computed_when_weights_change():
    weight, calls = torch.zeros(2), []
    derived = Derived[int]()
    for _ in range(2):
        derived.get([weight], lambda: calls.append(1) or len(calls))
    assert len(calls) == 1
    weight.add_(1)
    assert derived.get([weight], lambda: calls.append(1) or len(calls)) == 2
    assert derived.get([weight.clone()], lambda: 3) == 3


def test_a_captioner_of_pixels_folds_its_encoder_when_it_needs_no_gradient(monkeypatch: pytest.MonkeyPatch):
    """Validation and evaluation run the form for inference, also of changed weights; training runs the layers."""
    encoder = build_encoder(TINY)
    randomise(encoder)
    model = FromPixels(encoder, build_model(SaLstmConfig(hidden=4, embed=4, attention=4), 9, TINY.dim))
    pixels, plain = Pixels(torch.randn(2, 1, 3, 64, 64)), encoder.eval()
    calls: list[str] = []
    monkeypatch.setattr(FoldedConvolution, "__call__", counted(calls, FoldedConvolution.__call__))

    model.train()
    assert model.features(pixels).grid.requires_grad and not calls
    model.eval()
    assert model.features(pixels).grid.requires_grad and not calls
    for _ in range(2):
        with torch.no_grad():
            calls.clear()
            torch.testing.assert_close(model.features(pixels).grid, plain(pixels).grid, rtol=1e-4, atol=1e-4)
            assert calls
            randomise(encoder)
    encoder.requires_grad_(False)
    calls.clear()
    model.train()
    assert not model.features(pixels).grid.requires_grad and calls  # a frozen encoder in training
    assert copy.deepcopy(model).features(pixels).grid.equal(model.features(pixels).grid)


def counted(calls: list[str], function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, which notes its calls."""

    def wrapped(*arguments: Any) -> Tensor:
        calls.append("convolution")
        return function(*arguments)

    return wrapped
