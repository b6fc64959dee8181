"""Small random detectors, loaded through the real code and compared with what transformers says of their boxes."""

import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import pytest
import torch
import transformers
from transformers import DetrConfig, ResNetConfig
from transformers.image_transforms import center_to_corners_format

from limner.core.types import Layout, Pixels
from limner.encoders.detector import DETECTORS, Detector, DetectorConfig
from limner.encoders.pretrained import weights_sha256

LEVELS = {"num_feature_levels": 2, "d_model": 32}  # deformable DETR normalises 32 groups of channels
# name -> (model type, what its configuration has beside the sizes of all)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "detr": ("Detr", {}),
    "conditional_detr": ("ConditionalDetr", {}),
    "deformable_detr": ("DeformableDetr", LEVELS),
    "deformable_detr in two stages": (
        "DeformableDetr",
        {**LEVELS, "with_box_refine": True, "two_stage": True, "two_stage_num_proposals": 9, "num_queries": 1},
    ),
    "table-transformer": ("TableTransformer", {}),
}


def save(case: str, folder: Path) -> None:
    """A random detector of 9 queries and 5 classes, and its image processor."""
    kind, options = CASES[case]
    torch.manual_seed(0)
    stages = ["stage1", "stage2"] if kind == "DeformableDetr" else ["stage2"]
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=stages
    )
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 9, "num_labels": 5}
    config = getattr(transformers, f"{kind}Config")(
        use_timm_backbone=False, backbone=None, backbone_config=backbone, **{"d_model": 16, **sizes, **heads, **options}
    )
    net = getattr(transformers, f"{kind}ForObjectDetection")(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)  # queries that differ
    net.save_pretrained(folder)
    processor = "Detr" if kind == "TableTransformer" else kind
    getattr(transformers, f"{processor}ImageProcessorPil")().save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detr")
    save("detr", path)
    return path


@pytest.mark.parametrize("case", CASES)
def test_the_surest_regions_and_their_boxes(case: str, tmp_path: Path):
    """transformers sorts pairs of a query and a class by score: a query stands where its surest class does."""
    save(case, tmp_path)
    detector = Detector(DetectorConfig(source=str(tmp_path), regions=4, size=64)).train()
    pictures = [np.random.default_rng(k).integers(0, 256, (1, 40 + 8 * k, 56, 3), np.uint8) for k in range(2)]
    pixels = Pixels(torch.stack([detector.preprocess(picture) for picture in pictures]))
    assert pixels.frames.shape == (2, 1, 3, 64, 64) and not detector.net.training
    features = detector(pixels)
    dim = CASES[case][1].get("d_model", 16)
    assert features.layout == Layout(1, 1, 4) and features.grid.shape == (2, 4, dim) and features.mask.all()
    out = detector.net(pixels.frames[:, 0])
    theirs = detector.processor.post_process_object_detection(out, threshold=0.0)  # relative xyxy
    for row, found in enumerate(theirs):
        boxes = found["boxes"][found["scores"].argsort(descending=True, stable=True)]
        predicted = center_to_corners_format(out.pred_boxes[row])
        apart = (boxes[:, None] - predicted).abs().amax(-1)
        order = list(dict.fromkeys(apart.argmin(-1).tolist()))
        assert len(order) == 9 and apart.min(-1).values.max() < 1e-6
        torch.testing.assert_close(features.boxes[row], predicted[order[:4]].clamp(0, 1))
        torch.testing.assert_close(features.grid[row], out.last_hidden_state[row, order[:4]])
    assert not any(parameter.requires_grad for parameter in detector.parameters())


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_the_same_detector(case: str, tmp_path: Path):
    save(case, tmp_path / "one")
    one = Detector(DetectorConfig(source=str(tmp_path / "one"), regions=4, size=64))
    one.save(tmp_path / "other")
    other = Detector(DetectorConfig(source=str(tmp_path / "other"), regions=4, size=64))
    assert {**other.provenance(), "source": ""} == {**one.provenance(), "source": ""}
    assert other.provenance()["sha256"] == weights_sha256(other.net)
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)
    pixels = one.preprocess(frames)
    assert torch.equal(other.preprocess(frames), pixels)
    assert torch.equal(other(Pixels(pixels[None])).grid, one(Pixels(pixels[None])).grid)


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
        (DetectorConfig(source=str(folder), regions=10), "detects 9 regions, not 10"),
        (DetectorConfig(source=str(tmp_path)), "encoder.source"),
    ):
        with pytest.raises(ValueError, match=said):
            Detector(config)
    ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"'resnet' model; supported detectors are {', '.join(DETECTORS)}"):
        Detector(DetectorConfig(source=str(tmp_path)))
    save("deformable_detr in two stages", tmp_path)
    with pytest.raises(ValueError, match=r"detects 9 regions, not 10: give encoder\.regions up to 9"):
        Detector(DetectorConfig(source=str(tmp_path), regions=10))


def test_a_backbone_of_timm_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the published configurations of DETR are: they name no backbone of transformers."""
    monkeypatch.setattr(transformers.utils, "is_timm_available", lambda: False)
    for told in ({"backbone": "resnet50", "backbone_config": None, "use_timm_backbone": True}, {}):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr", **told}))
        with pytest.raises(ValueError, match=r"is a timm model .*does not depend on.*--revision no_timm") as raised:
            Detector(DetectorConfig(source=str(tmp_path)))
        assert str(raised.value).startswith(f"encoder.source {tmp_path}: ") and "\n" not in str(raised.value)
    DetrConfig(use_timm_backbone=False, backbone=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"encoder\.source .*preprocessor_config\.json and model\.safetensors"):
        Detector(DetectorConfig(source=str(tmp_path)))  # its backbone is accepted; what lacks is all else


def test_the_provenance_follows_the_weights(folder: Path):
    one, other = (Detector(DetectorConfig(source=str(folder), regions=3)) for _ in range(2))
    assert one.provenance() == other.provenance()
    with torch.no_grad():
        next(other.net.parameters()).add_(1)
    assert one.provenance()["sha256"] != other.provenance()["sha256"]
