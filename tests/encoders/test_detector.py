"""A small random DETR, loaded through the real code and compared with what transformers says of its boxes."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import pytest
import torch
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessorPil, ResNetConfig

from limner.encoders.detector import Detector, DetectorConfig
from limner.types import Layout, Pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=16,
        num_queries=9,
        num_labels=5,
        **sizes,
        **heads,
    )
    net = DetrForObjectDetection(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)  # queries that differ
    path = tmp_path_factory.mktemp("detr")
    net.save_pretrained(path)
    DetrImageProcessorPil().save_pretrained(path)
    return path


def test_the_surest_regions_and_their_boxes(folder: Path):
    detector = Detector(DetectorConfig(source=str(folder), regions=4, size=64)).train()
    pictures = [np.random.default_rng(k).integers(0, 256, (1, 40 + 8 * k, 56, 3), np.uint8) for k in range(2)]
    pixels = Pixels(torch.stack([detector.preprocess(picture) for picture in pictures]))
    assert pixels.frames.shape == (2, 1, 3, 64, 64) and not detector.net.training
    features = detector(pixels)
    assert features.layout == Layout(1, 1, 4) and features.grid.shape == (2, 4, 16) and features.mask.all()
    out = detector.net(pixels.frames[:, 0])
    theirs = detector.processor.post_process_object_detection(out, threshold=0.0)  # relative xyxy, all 9 queries
    for row, found in enumerate(theirs):
        order = found["scores"].argsort(descending=True)[:4]
        torch.testing.assert_close(features.boxes[row], found["boxes"][order].clamp(0, 1))
        torch.testing.assert_close(features.grid[row], out.last_hidden_state[row, order])
    assert not any(parameter.requires_grad for parameter in detector.parameters())


def test_clips_have_regions_in_every_frame(folder: Path):
    detector = Detector(DetectorConfig(source=str(folder), regions=3, size=64))
    frames = torch.randn(2, 2, 3, 64, 64)
    clip, frame = detector(Pixels(frames)), detector(Pixels(frames[:, 1:]))
    assert clip.layout == Layout(2, 1, 3)
    torch.testing.assert_close(clip.grid[:, 3:], frame.grid, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.boxes[:, 3:], frame.boxes, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_loaded(folder: Path, tmp_path: Path):
    for config, said in (
        (DetectorConfig(), "source is empty"),
        (DetectorConfig(source=str(folder), regions=10), "finds 9 regions, not 10"),
        (DetectorConfig(source=str(tmp_path)), "encoder.source"),
    ):
        with pytest.raises(ValueError, match=said):
            Detector(config)
    ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'resnet' model, no DETR"):
        Detector(DetectorConfig(source=str(tmp_path)))


def test_the_provenance_follows_the_weights(folder: Path):
    one, other = (Detector(DetectorConfig(source=str(folder), regions=3)) for _ in range(2))
    assert one.provenance() == other.provenance()
    with torch.no_grad():
        next(other.net.parameters()).add_(1)
    assert one.provenance()["sha256"] != other.provenance()["sha256"]
