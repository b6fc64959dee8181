"""CLIPScore with a small random CLIP in a local folder, against the formulas computed straight from transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel

from limner.data.frames import FrameSampling
from limner.data.media import MediaError, read_medium
from limner.data.shapes import generate_world
from limner.metrics import clipscore
from limner.metrics.clipscore import ClipModel, clip_score, load_clip, several_clip_scores

SIDE, CONTEXT = 32, 40
SIZES = {"square": (SIDE, SIDE), "wide": (48, SIDE), "large": (64, 96)}
CAPTIONS = {"wide": "a cat", "clip": "two dogs on a hill", "square": "", "large": "a cat " * 5_000}
REFERENCES = {
    "square": ["a dog"],
    "wide": ["a cat", "the hill"],
    "large": ["x", "a cat", "y"],
    "clip": ["a dog goes up"],
}


def make_clip(folder: Path) -> Path:
    """Two layers of 16 channels with random weights; a tokenizer of bytes and three merged words."""
    import transformers

    letters = sorted(ByteLevel.alphabet())
    merges = [("a", "t</w>"), ("c", "at</w>"), ("d", "o"), ("do", "g</w>")]
    words = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = vocabulary["<|endoftext|>"]
    text = {"vocab_size": len(words), "max_position_embeddings": CONTEXT, "eos_token_id": end, "bos_token_id": end - 1}
    vision = {**sizes, "image_size": SIDE, "patch_size": 8}
    config = transformers.CLIPConfig(text_config={**sizes, **text}, vision_config=vision, projection_dim=12)
    torch.manual_seed(2)  # of the cosines below some are negative and some are not
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # transformers' own start is nearly constant
    model.save_pretrained(folder)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    return load_clip(str(make_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three images of different shapes and a video."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    generate_world(folder / "world", 1, 1, size=SIDE)
    return {name: str(folder / f"{name}.png") for name in SIZES} | {"clip": str(folder / "world/videos/000000.mp4")}


def cosines(clip: ClipModel, path: str, captions: list[str], frames: int) -> np.ndarray:
    """(frames, captions) from the joint forward pass of transformers, one image and one caption at a time."""
    found = []
    for frame in read_medium(path, FrameSampling(frames)):
        image = Image.fromarray(frame)
        scale = SIDE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float64) / 255
        pixels = (pixels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
        given = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
        row = []
        for caption in captions:
            ids = clip.tokenizer("A photo depicts " + caption)["input_ids"]
            ids = ids if len(ids) <= CONTEXT else [*ids[: CONTEXT - 1], ids[-1]]  # the end stays
            with torch.no_grad():
                out = clip.model(input_ids=torch.tensor([ids]), pixel_values=given)
                row.append(float(out.logits_per_image / clip.model.logit_scale.exp()))
        found.append(row)
    return np.array(found)


def text_cosine(clip: ClipModel, one: str, other: str) -> float:
    vectors = []
    for text in (one, other):
        ids = clip.tokenizer("A photo depicts " + text, truncation=True, max_length=CONTEXT, return_tensors="pt")
        with torch.no_grad():
            vector = clip.model.get_text_features(**ids).pooler_output[0].double()
        vectors.append(vector / vector.norm())
    return float(vectors[0] @ vectors[1])


def test_both_scores_are_the_formulas(clip: ClipModel, media: dict[str, str]):
    found = clip_score(media, CAPTIONS, REFERENCES, clip, frames=3)
    image, harmonic = [], []
    for id, caption in CAPTIONS.items():
        seen = cosines(clip, media[id], [caption], frames=3)
        assert len(seen) == (3 if id == "clip" else 1)
        image.append(np.mean([2.5 * max(cosine, 0) for cosine in seen[:, 0]]))
        text = max(0, *(text_cosine(clip, caption, reference) for reference in REFERENCES[id]))
        harmonic.append(2 * image[-1] * text / (image[-1] + text) if image[-1] + text else 0)
    assert min(image) == 0 and max(image) > 0.2
    np.testing.assert_allclose(found.clip_score.segments, image, atol=1e-5)
    np.testing.assert_allclose(found.ref_clip_score.segments, harmonic, atol=1e-5)
    assert found.clip_score.corpus == pytest.approx(np.mean(image), abs=1e-5)
    assert found.ref_clip_score.corpus == pytest.approx(np.mean(harmonic), abs=1e-5)


def test_a_negative_cosine_counts_nothing(clip: ClipModel, media: dict[str, str], monkeypatch):
    """The vectors of images and texts are given; their cosines are -1, .6 and 0."""
    vectors = {"against": [-1.0, 0.0], "near": [0.6, 0.8], "across": [0.0, 1.0], "same": [1.0, 0.0]}
    monkeypatch.setattr(ClipModel, "encode_texts", lambda self, texts: torch.tensor([vectors[text] for text in texts]))
    monkeypatch.setattr(
        ClipModel, "encode_frames", lambda self, pixels: torch.tensor([[1.0, 0.0]]).expand(len(pixels), 2)
    )
    captions = {"square": "against", "wide": "near", "large": "across"}
    references = {"square": ["against"], "wide": ["same", "across"], "large": ["against"]}
    found = clip_score(media, captions, references, clip)
    np.testing.assert_allclose(found.clip_score.segments, [0, 1.5, 0])
    # against: 0 and 1; near: 1.5 and max(.6, .8); across: 0 and 0
    np.testing.assert_allclose(found.ref_clip_score.segments, [0, 2 * 1.5 * 0.8 / 2.3, 0], rtol=1e-6)


def test_batches_change_nothing(clip: ClipModel, media: dict[str, str], monkeypatch):
    found = clip_score(media, CAPTIONS, REFERENCES, clip)
    done: list[int] = []
    monkeypatch.setattr(clipscore, "BATCH", 1)
    alone = clip_score(media, CAPTIONS, REFERENCES, clip, progress=done.append)
    assert done == [1, 2, 3, 4]
    np.testing.assert_allclose(found.clip_score.segments, alone.clip_score.segments, atol=1e-6)
    np.testing.assert_allclose(found.ref_clip_score.segments, alone.ref_clip_score.segments, atol=1e-6)
    without = clip_score(media, CAPTIONS, None, clip)
    assert without.ref_clip_score is None
    np.testing.assert_allclose(without.clip_score.segments, alone.clip_score.segments, atol=1e-6)


def test_several_captions_of_a_medium_have_the_scores_of_single_ones(clip: ClipModel, media: dict[str, str]):
    """Each medium is read once, and gives what `clip_score` gives for each caption."""
    texts = {id: [text, "a green plane"] for id, text in CAPTIONS.items()}
    found = several_clip_scores(media, texts, clip, frames=3)
    for place in (0, 1):
        alone = clip_score(media, {id: own[place] for id, own in texts.items()}, None, clip, frames=3)
        assert [found[id][place] for id in texts] == pytest.approx(alone.clip_score.segments.tolist(), abs=1e-5)


def test_what_is_missing_is_named(clip: ClipModel, media: dict[str, str], tmp_path: Path):
    with pytest.raises(ValueError, match="1 captions have no medium, for example that of 'x'"):
        clip_score(media, {"x": "a", "wide": "b"}, None, clip)
    with pytest.raises(ValueError, match="2 captions have no references, for example that of 'wide'"):
        clip_score(media, {"wide": "b", "square": "a"}, {"square": []}, clip)
    with pytest.raises(ValueError, match="no captions"):
        clip_score(media, {}, None, clip)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"bad\.png"):
        clip_score({"wide": str(tmp_path / "bad.png")}, {"wide": "b"}, None, clip)


def test_provenance_follows_the_weights(clip: ClipModel, tmp_path: Path):
    again = load_clip(str(make_clip(tmp_path / "same"))).provenance()
    assert again["CLIP"] == "same" and again["CLIP sha256"] == clip.provenance()["CLIP sha256"]


def test_folders_that_hold_no_clip(clip: ClipModel, tmp_path: Path):
    def broken(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(clip.source, folder)
        return folder

    for name, message in (
        ("tokenizer.json", "its tokenizer has 2 words, its text model 518"),  # transformers makes an empty one
        ("preprocessor_config.json", "image processor"),
        ("model.safetensors", "no file named model.safetensors"),
        ("config.json", "has no config.json; give a folder saved by transformers"),
    ):
        folder = broken(f"without {name}")
        (folder / name).unlink()
        with pytest.raises(ValueError, match=message):
            load_clip(str(folder))
    folder = broken("cut")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded as a CLIP"):
        load_clip(str(folder))
    folder = broken("other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "projection_dim": 13}))
    with pytest.raises(ValueError, match="cannot be loaded as a CLIP"):
        load_clip(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="it is a 'vit' model; expected a folder with"):
        load_clip(str(folder))
    with pytest.raises(ValueError, match="cannot be loaded as a CLIP"):
        load_clip(str(tmp_path / "nowhere"))
