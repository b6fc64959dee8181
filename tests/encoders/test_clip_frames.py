"""CLIP's frame vectors: what transformers' own CLIP calls image features."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import pytest
import torch
import transformers

from limner.apps.cli import main
from limner.core.types import Layout, Medium, Pixels
from limner.data.store import FeatureStore
from limner.encoders import ClipFrames, ClipFramesConfig, Pretrained, PretrainedConfig, build_encoder
from limner.encoders.extract import extract
from tests.encoders.test_pretrained import MLP, SIDE, TEXT, VIT

WIDTH = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP, saved as a whole."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=TEXT, vision_config={**VIT, **MLP}, projection_dim=WIDTH)
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(source: Path) -> ClipFrames:
    built = build_encoder(ClipFramesConfig(source=str(source)))
    assert isinstance(built, ClipFrames)
    return built.eval()


def frames(count: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@torch.no_grad()
def test_a_vector_per_frame_is_clips_image_embedding(encoder: ClipFrames, source: Path) -> None:
    pixels = encoder.preprocess(frames(6, 40, 50))
    features = encoder(Pixels(pixels.view(2, 3, *pixels.shape[1:])))
    assert features.layout == Layout(3, 1, 1) and features.mask.all() and encoder.dim == WIDTH
    whole = transformers.CLIPModel.from_pretrained(source).eval()
    embeds = whole.visual_projection(whole.vision_model(pixels).pooler_output)
    torch.testing.assert_close(features.grid.flatten(0, 1), embeds, rtol=1e-5, atol=1e-6)


def test_preprocessing_is_clips(encoder: ClipFrames) -> None:
    """A grey picture: (128 / 255 - mean) / std of CLIP's three channels."""
    pixels = encoder.preprocess(np.full((1, 60, 80, 3), 128, np.uint8))
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(pixels[0, :, 5, 7], (128 / 255 - mean) / std, rtol=1e-4, atol=1e-4)
    assert pixels.shape == (1, 3, SIDE, SIDE)


def test_it_is_frozen_and_says_where_it_is_from(encoder: ClipFrames, source: Path) -> None:
    assert isinstance(encoder, Pretrained) and not any(p.requires_grad for p in encoder.parameters())
    said = encoder.provenance()
    assert said["name"] == "clip_frames" and said["dim"] == WIDTH and said["source"] == source.name
    patches = build_encoder(ClipFramesConfig(source=str(source), trainable_from=1))
    assert any(p.requires_grad for p in patches.parameters())


def test_pictures_and_a_store(encoder: ClipFrames, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(frames(1)[0]).save(tmp_path / "a.png")
    extract([Medium("a", str(tmp_path / "a.png"))], encoder, tmp_path / "store")
    grid, layout, _ = FeatureStore(tmp_path / "store").get("a")
    assert tuple(layout) == (1, 1, 1) and grid.shape == (1, WIDTH)


def test_another_model_is_refused(tmp_path: Path) -> None:
    transformers.ViTModel(transformers.ViTConfig(**VIT, **MLP)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'vit' model, but clip_frames reads CLIP"):
        build_encoder(ClipFramesConfig(source=str(tmp_path)))
    with pytest.raises(ValueError, match="not a folder"):
        build_encoder(ClipFramesConfig(source=str(tmp_path / "nothing")))


def test_a_recipe_extracts_frame_vectors(source: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "media").mkdir()
    Image.fromarray(frames(1)[0]).save(tmp_path / "media" / "a.png")
    (tmp_path / "r.yaml").write_text(
        f"data: {{name: folder, media: {tmp_path / 'media'}}}\nencoder: {{name: clip_frames, source: {source}}}\n"
    )
    command = ["extract", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "store"), "--encoder", str(source)]
    assert main([*command, "--frame-features", str(tmp_path / "visual" / "clip")]) == 0
    (file,) = (tmp_path / "visual" / "clip" / "frame_feature").iterdir()
    assert np.load(file, allow_pickle=False).shape == (1, WIDTH)
    kind = ["extract", "--data", "folder", "--media", str(tmp_path / "media"), "--encoder", str(source)]
    again = ["--out", str(tmp_path / "plain"), "--frame-features", str(tmp_path / "other")]
    assert main([*kind, *again]) == 0  # without a recipe: asked for frame vectors, CLIP's patches are of no use
    assert (tmp_path / "other" / "frame_feature" / file.name).read_bytes() == file.read_bytes()
    store = FeatureStore(tmp_path / "store")
    assert store.get(store.ids[0])[0].shape == (1, WIDTH)
    store.require_encoder(build_encoder(ClipFramesConfig(source=str(source))).provenance())
    with pytest.raises(ValueError, match="encoder"):
        store.require_encoder(build_encoder(PretrainedConfig(source=str(source))).provenance())
