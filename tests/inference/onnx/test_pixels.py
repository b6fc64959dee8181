"""Resized and cropped bytes, and what the graph makes of them, are the encoders' own pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from limner.encoders import (
    EncoderConfig,
    PretrainedConfig,
    ResNetConfig,
    SmallCNN3DConfig,
    SmallCNNConfig,
    TinyConfig,
    build_encoder,
)
from limner.encoders.encoder import Encoder
from limner.encoders.small_cnn import SmallCNN
from limner.export.preprocessing import scale_channels, split_preprocessing
from limner.inference.onnx.pixels import Preprocess
from tests.encoders.test_pretrained import save

OWN = [
    SmallCNNConfig(size=32, width=8, dim=8),
    SmallCNN3DConfig(size=16, width=8, dim=8),
    ResNetConfig(size=64, channels="BGR"),
    TinyConfig(size=64),
]


def pictures() -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    return [draw.integers(0, 256, (2, h, w, 3), np.uint8) for h, w in ((50, 70), (71, 33), (31, 200), (8, 9))]


def check(encoder: Encoder) -> None:
    plan, scale, shift = split_preprocessing(encoder)
    for frames in pictures():
        ours = scale_channels(plan(frames), scale, shift)
        np.testing.assert_allclose(ours, encoder.preprocess(frames).numpy(), atol=1e-6)


@pytest.mark.parametrize("config", OWN, ids=lambda config: config.name)
def test_pixels_equal_those_of_our_own_encoders(config: EncoderConfig):
    check(build_encoder(config))


@pytest.mark.parametrize("kind", ["resnet", "mobilenet_v2", "vit", "clip"])
def test_pixels_equal_those_of_pretrained_encoders(kind: str, tmp_path: Path):
    """A square, CLIP's shorter edge with a crop of its middle, and ConvNeXT's way, which ResNet's folders name."""
    save(kind, tmp_path)
    check(build_encoder(PretrainedConfig(source=str(tmp_path))))


def test_a_picture_smaller_than_the_crop_is_padded(tmp_path: Path):
    """As transformers puts it there: an odd row comes first."""
    save("mobilenet_v2", tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    processor.size, processor.crop_size = {"height": 21, "width": 20}, {"height": 32, "width": 33}
    processor.do_center_crop = True
    processor.save_pretrained(tmp_path)
    check(build_encoder(PretrainedConfig(source=str(tmp_path))))


class Odd(SmallCNN):
    """Each picture by its own brightness."""

    def preprocess(self, frames: np.ndarray) -> torch.Tensor:
        pixels = super().preprocess(frames)
        return pixels - pixels.mean()


def test_other_preprocessing_is_refused():
    with pytest.raises(
        ValueError, match=r"the preprocessing of SmallCNN.* cannot be exported: resizing, .* by up to \d"
    ):
        split_preprocessing(Odd(SmallCNNConfig(size=32, width=8, dim=8)))


def test_invalid_combinations_of_sizes_are_refused():
    for wrong in ({}, {"size": (4, 4), "edge": 4}, {"edge": 4}):
        with pytest.raises(ValueError, match=r"give either a size or an edge to resize to|give a crop too"):
            Preprocess(**wrong)  # type: ignore[arg-type]
    assert Preprocess(edge=8, crop=(6, 7)).side == (6, 7)
