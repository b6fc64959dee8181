"""Video transformers, small and random: pieces of a clip, the place of every token, the published preprocessing."""

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from limner.core.types import Layout, Pixels
from limner.data.frames import FrameSampling
from limner.data.media import Medium
from limner.data.store import FeatureStore
from limner.encoders import Pretrained, PretrainedConfig, build_encoder
from limner.encoders.extract import extract
from tests.training.world import clip

SIZES = {"image_size": 16, "patch_size": 8, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 16, "num_frames": 4}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], int]] = {  # case -> class, options, frames that share a cell
    "videomae": ("VideoMAE", {"tubelet_size": 2}, 2),
    "timesformer": ("Timesformer", {}, 1),
    "timesformer joint": ("Timesformer", {"attention_type": "joint_space_time"}, 1),
    "timesformer space": ("Timesformer", {"attention_type": "space_only"}, 1),
}


def save(kind: str, folder: Path) -> nn.Module:
    torch.manual_seed(0)
    name, options, _ = KINDS[kind]
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**SIZES, **options)).eval()
    model.save_pretrained(folder)
    transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.25] * 3
    ).save_pretrained(folder)
    return model


def load(folder: Path, **options: Any) -> Pretrained:
    encoder = build_encoder(PretrainedConfig(source=str(folder), **options))
    assert isinstance(encoder, Pretrained)
    return encoder.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_at_its_place(tmp_path: Path, kind: str) -> None:
    """With attention and MLPs silenced a cell sees its own patch and frames only."""
    save(kind, tmp_path)
    encoder, (_, _, tube) = load(tmp_path), KINDS[kind]
    with torch.no_grad():
        for name, parameter in encoder.backbone.named_parameters():
            if "output.dense" in name or "temporal_dense" in name or "mlp.fc2" in name:
                parameter.zero_()
    frames = torch.randn(2, 4, 3, 16, 16)
    with torch.no_grad():
        before = encoder(Pixels(frames))
        assert before.layout == Layout(4 // tube, 2, 2) and before.mask.all() and before.grid.shape[2] == encoder.dim
        for t, y, x in [(0, 0, 0), (0, 0, 1), (1, 1, 0), (3, 0, 1), (2, 1, 1)]:
            other = frames.clone()
            other[1, t, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] += 1
            moved = (encoder(Pixels(other)).grid - before.grid).abs().amax(-1).reshape(2, *before.layout) > 1e-6
            assert moved.nonzero().tolist() == [[1, t // tube, y, x]]


@pytest.mark.parametrize("kind", ["videomae", "timesformer"])
def test_numbers_are_those_of_a_direct_call(tmp_path: Path, kind: str) -> None:
    model = save(kind, tmp_path)
    frames = torch.randn(2, 4, 3, 16, 16)
    with torch.no_grad():
        tokens, found = model(frames).last_hidden_state, load(tmp_path)(Pixels(frames)).grid
    if kind == "timesformer":  # behind the class token: patch 0 of frames 0 .. 3, patch 1 of frames 0 .. 3, ...
        order = [1 + 4 * patch + frame for frame in range(4) for patch in range(4)]
        tokens = tokens[:, order]
    torch.testing.assert_close(found, tokens, rtol=1e-5, atol=1e-6)


def test_longer_clips_go_through_in_pieces(tmp_path: Path) -> None:
    save("videomae", tmp_path)
    encoder, frames = load(tmp_path), torch.randn(2, 8, 3, 16, 16)
    with torch.no_grad():
        whole = encoder(Pixels(frames))
        halves = [encoder(Pixels(frames[:, :4])).grid, encoder(Pixels(frames[:, 4:])).grid]
    assert whole.layout == Layout(4, 2, 2)
    torch.testing.assert_close(whole.grid, torch.cat(halves, 1), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="this videomae encoder reads 4 frames at once, got 6: give frames: 4"):
        encoder(Pixels(frames[:, :6]))


def test_a_picture_is_a_clip_in_which_nothing_moves(tmp_path: Path) -> None:
    save("timesformer", tmp_path)
    encoder, frames = load(tmp_path), torch.randn(2, 1, 3, 16, 16)
    with torch.no_grad():
        still, repeated = encoder(Pixels(frames)), encoder(Pixels(frames.repeat(1, 4, 1, 1, 1)))
    assert still.layout == Layout(4, 2, 2) and torch.equal(still.grid, repeated.grid)


def test_preprocessing_by_hand(tmp_path: Path) -> None:
    save("videomae", tmp_path)
    encoder = load(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (4, 24, 36, 3), dtype=np.uint8)
    found = encoder.preprocess(frames)
    scaled = np.asarray(Image.fromarray(frames[2]).resize((24, 16), Image.Resampling.BILINEAR))
    expected = (scaled[:, 4:20] / 255 - 0.5) / 0.25
    assert found.shape == (4, 3, 16, 16)
    np.testing.assert_allclose(found[2].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert encoder.kept_region(24, 36) == pytest.approx((4 / 24, 0, 20 / 24, 1))


def test_blocks_freeze_train_and_save_as_for_pictures(tmp_path: Path) -> None:
    save("videomae", tmp_path / "a")
    encoder = load(tmp_path / "a", trainable_from=-1).train()
    assert len(encoder.blocks()) == 2
    encoder(Pixels(torch.randn(2, 4, 3, 16, 16))).grid.square().mean().backward()
    trained = {name for name, p in encoder.backbone.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith(("encoder.layer.1", "layernorm", "fc_norm")) for name in trained)
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    encoder.save(tmp_path / "b")
    assert load(tmp_path / "b").provenance()["sha256"] == encoder.provenance()["sha256"]


def test_clips_are_extracted_into_a_store(tmp_path: Path) -> None:
    """From the file to stored cells with their layout in time."""
    save("videomae", tmp_path / "a")
    clip(tmp_path / "c.mp4")
    encoder = load(tmp_path / "a")
    report = extract([Medium("c", str(tmp_path / "c.mp4"))], encoder, tmp_path / "store", sampling=FrameSampling(4))
    assert (report.written, report.failures) == (1, ())
    grid, layout, _ = FeatureStore(tmp_path / "store").get("c")
    assert layout == Layout(2, 2, 2) and grid.shape == (8, 12)
