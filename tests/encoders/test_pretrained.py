"""Every supported architecture, small and random, loaded through the real code and compared with transformers."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from limner.core.types import Layout, Pixels
from limner.encoders import (
    ClipFramesConfig,
    DetectorConfig,
    Pretrained,
    PretrainedConfig,
    SmallCNNConfig,
    build_encoder,
)

SIDE = 32
VIT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}
MLP = {"intermediate_size": 32}
TEXT = {**MLP, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}


def clip_like(kind: str) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(text_config=TEXT, vision_config={**VIT, **MLP})
    return getattr(transformers, f"{kind}Model")(config)


def model_of(kind: str, **config: Any) -> nn.Module:
    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config))


# name -> (model, name of its image processor, cells per side at 32 x 32, channels, blocks, tokens before the patches)
CASES: dict[str, tuple[Callable[[], nn.Module], str, int, int, int, int | None]] = {
    "resnet": (
        lambda: model_of("ResNet", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], layer_type="basic"),
        "ConvNextImageProcessorPil", 4, 32, 3, None,
    ),
    "mobilenet_v2": (
        lambda: model_of("MobileNetV2", depth_multiplier=0.25, finegrained_output=True),
        "MobileNetV2ImageProcessorPil", 1, 1280, 16, None,
    ),
    "convnext": (
        lambda: model_of("ConvNext", hidden_sizes=[8, 16], depths=[1, 2], num_stages=2, drop_path_rate=0.3),
        "ConvNextImageProcessorPil", 4, 16, 3, None,
    ),
    "vit": (
        lambda: model_of("ViT", **VIT, **MLP, hidden_dropout_prob=0.5),
        "ViTImageProcessorPil", 4, 24, 3, 1,
    ),
    "dinov2": (lambda: model_of("Dinov2", **VIT, hidden_dropout_prob=0.5), "BitImageProcessorPil", 4, 24, 3, 1),
    "dinov2_with_registers": (
        lambda: model_of("Dinov2WithRegisters", **VIT, num_register_tokens=4),
        "BitImageProcessorPil", 4, 24, 3, 5,
    ),
    "clip": (lambda: clip_like("CLIP"), "CLIPImageProcessorPil", 4, 24, 3, 1),
    "siglip": (lambda: clip_like("Siglip"), "SiglipImageProcessorPil", 4, 24, 3, 0),
}  # fmt: skip


def save(kind: str, folder: Path) -> nn.Module:
    """A random model with moved BatchNorm statistics, and its image processor, in a local folder."""
    torch.manual_seed(0)
    model = CASES[kind][0]().eval()
    for buffer in (b for n, b in model.named_buffers() if "running" in n):
        buffer.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    size = (
        {"shortest_edge": SIDE}
        if CASES[kind][1].startswith(("ConvNext", "Bit", "CLIP"))
        else {"height": SIDE, "width": SIDE}
    )
    options: dict[str, Any] = {"crop_pct": 1.0} if CASES[kind][1].startswith("ConvNext") else {}
    getattr(transformers, CASES[kind][1])(size=size, crop_size=SIDE, **options).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, nn.Module]]:
    root = tmp_path_factory.mktemp("weights")
    return {kind: (root / kind, save(kind, root / kind)) for kind in CASES}


def load(folders: dict[str, tuple[Path, nn.Module]], kind: str, trainable_from: int | None = None) -> Pretrained:
    encoder = build_encoder(PretrainedConfig(source=str(folders[kind][0]), trainable_from=trainable_from))
    assert isinstance(encoder, Pretrained)
    return encoder


def frames(count: int = 2, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def direct(kind: str, model: nn.Module, images: Tensor, **options: Any) -> Tensor:
    """(F, 3, H, W) -> (F, cells, D) by calling transformers itself."""
    tower = model.vision_model if kind in ("clip", "siglip") else model
    hidden = tower(images, **options).last_hidden_state
    prefix = CASES[kind][5]
    return hidden.flatten(2).transpose(1, 2) if prefix is None else hidden[:, prefix:]


@pytest.mark.parametrize("kind", CASES)
def test_cells_equal_a_direct_call(folders: dict[str, tuple[Path, nn.Module]], kind: str) -> None:
    folder, model = folders[kind]
    encoder = load(folders, kind)
    _, processor, side, dim, blocks, _ = CASES[kind]
    images = encoder.preprocess(frames())
    expected = getattr(transformers, processor).from_pretrained(folder)(list(frames()), return_tensors="pt")
    assert images.shape == (2, 3, SIDE, SIDE) and images.dtype == torch.float32
    assert torch.equal(images, expected["pixel_values"])

    features = encoder(Pixels(images[None]))  # one clip of two frames
    assert features.layout == Layout(2, side, side) and encoder.dim == dim
    assert features.mask.all() and len(encoder.blocks()) == blocks
    with torch.no_grad():
        cells = direct(kind, model, images)
    torch.testing.assert_close(features.grid, cells.reshape(1, 2 * side * side, dim), rtol=1e-4, atol=1e-5)
    stills = encoder(Pixels(images[:, None]))
    torch.testing.assert_close(stills.grid, cells, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CASES)
def test_inputs_that_are_not_square(folders: dict[str, tuple[Path, nn.Module]], kind: str) -> None:
    encoder, model = load(folders, kind), folders[kind][1]
    images = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    features = encoder(Pixels(images[None]))
    side = CASES[kind][2]
    assert features.layout == Layout(1, side, 2 * side)
    options = {"interpolate_pos_encoding": True} if kind in ("vit", "clip", "siglip") else {}
    with torch.no_grad():
        torch.testing.assert_close(features.grid, direct(kind, model, images, **options), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CASES)
def test_a_frozen_encoder_never_moves(folders: dict[str, tuple[Path, nn.Module]], kind: str) -> None:
    encoder = load(folders, kind).train()
    images = torch.randn(2, 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    first, second = encoder(Pixels(images)).grid, encoder(Pixels(images)).grid
    assert torch.equal(first, second) and not first.requires_grad  # no dropout, no graph
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())


# first trained parameter of trainable_from=-1, and a parameter right before the chosen block that stays frozen
LAST = {
    "resnet": ("encoder.stages.1.layers.1.", "encoder.stages.1.layers.0."),
    "mobilenet_v2": ("layer.15.", "layer.14."),
    "convnext": ("encoder.stages.1.layers.1.", "encoder.stages.1.layers.0."),
    "vit": ("layers.2.", "layers.1."),
    "dinov2": ("encoder.layer.2.", "encoder.layer.1."),
    "dinov2_with_registers": ("encoder.layer.2.", "encoder.layer.1."),
    "clip": ("encoder.layers.2.", "encoder.layers.1."),
    "siglip": ("encoder.layers.2.", "encoder.layers.1."),
}
AFTER = {"mobilenet_v2": "conv_1x1.", "vit": "layernorm.", "siglip": "post_layernorm."}
AFTER |= {"dinov2": "layernorm.", "dinov2_with_registers": "layernorm."}


@pytest.mark.parametrize("kind", CASES)
def test_trainable_from_trains_the_last_block_and_what_follows(
    folders: dict[str, tuple[Path, nn.Module]], kind: str
) -> None:
    encoder = load(folders, kind, trainable_from=-1).train()
    trained = {name for name, parameter in encoder.backbone.named_parameters() if parameter.requires_grad}
    chosen, before = LAST[kind]
    expected = {n for n, _ in encoder.backbone.named_parameters() if n.startswith((chosen, AFTER.get(kind, chosen)))}
    assert trained == expected and any(name.startswith(AFTER.get(kind, chosen)) for name in trained)
    assert any(name.startswith(before) for name, _ in encoder.backbone.named_parameters())

    statistics = {n: b.clone() for n, b in encoder.backbone.named_buffers() if "running" in n}
    encoder(Pixels(torch.randn(4, 1, 3, SIDE, SIDE))).grid.square().sum().backward()
    assert {n for n, p in encoder.backbone.named_parameters() if p.grad is not None} == trained
    moved = {n for n, b in encoder.backbone.named_buffers() if n in statistics and not torch.equal(b, statistics[n])}
    assert moved == {n for n in statistics if n.startswith((chosen, AFTER.get(kind, chosen)))}


@pytest.mark.parametrize("kind", CASES)
def test_trainable_from_0_trains_everything_that_has_a_gradient(
    folders: dict[str, tuple[Path, nn.Module]], kind: str
) -> None:
    encoder = load(folders, kind, trainable_from=0).train()
    encoder(Pixels(torch.randn(4, 1, 3, SIDE, SIDE))).grid.square().sum().backward()
    for name, parameter in encoder.backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == ("mask_token" not in name), name


def test_mobilenet_statistics_move_slowly(folders: dict[str, tuple[Path, nn.Module]]) -> None:
    norms = [m for m in load(folders, "mobilenet_v2", 0).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.momentum == pytest.approx(0.003) for norm in norms)  # not .997


def test_trainable_from_outside_the_blocks(folders: dict[str, tuple[Path, nn.Module]]) -> None:
    with pytest.raises(ValueError, match=r"trainable_from is 3, but .* has 3 blocks: give -3 \.\. 2"):
        load(folders, "vit", 3)


@pytest.mark.parametrize("kind", ["mobilenet_v2", "clip", "siglip"])
def test_half_precision_on_disk_gives_the_same_encoder_in_float32(tmp_path: Path, kind: str) -> None:
    model = save(kind, tmp_path / "half").half()
    model.save_pretrained(tmp_path / "half")
    model.float().save_pretrained(tmp_path / "float")
    for file in (tmp_path / "half").glob("preprocessor_config.json"):
        (tmp_path / "float" / file.name).write_text(file.read_text())
    half, single = (build_encoder(PretrainedConfig(source=str(tmp_path / name))) for name in ("half", "float"))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert half.provenance()["sha256"] == single.provenance()["sha256"]


@pytest.mark.parametrize("kind", CASES)
def test_provenance_and_saving(folders: dict[str, tuple[Path, nn.Module]], tmp_path: Path, kind: str) -> None:
    encoder = load(folders, kind)
    facts = json.loads(json.dumps(encoder.provenance()))
    assert facts == encoder.provenance()
    assert facts["name"] == "pretrained" and facts["source"] == kind and facts["dim"] == encoder.dim
    assert facts["preprocessing"]["image_mean"] and "/" not in json.dumps(facts)

    encoder.save(tmp_path / kind)
    again = build_encoder(PretrainedConfig(source=str(tmp_path / kind)))
    assert again.provenance() == facts
    images = again.preprocess(frames())[None]
    assert torch.equal(again(Pixels(images)).grid, encoder(Pixels(images)).grid)

    next(encoder.backbone.parameters()).data.add_(1)
    assert encoder.provenance()["sha256"] != facts["sha256"]


def test_a_classifier_checkpoint_loads_without_its_head(tmp_path: Path) -> None:
    save("vit", tmp_path)
    config = transformers.ViTConfig(**VIT, **MLP, num_labels=3)
    classifier = transformers.ViTForImageClassification(config).eval()
    classifier.save_pretrained(tmp_path)
    encoder = build_encoder(PretrainedConfig(source=str(tmp_path)))
    images = encoder.preprocess(frames())
    with torch.no_grad():
        expected = classifier.vit(images).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(Pixels(images[:, None])).grid, expected, rtol=1e-4, atol=1e-5)


def test_a_hub_id_is_asked_for_once_and_is_then_a_folder(
    folders: dict[str, tuple[Path, nn.Module]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_pretrained` would ask the network for each file, and try again for half a minute without one."""
    asked: list[str] = []

    def download(id: str, allow_patterns: list[str]) -> str:
        asked.append(id)
        return str(folders["vit"][0])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    encoder = build_encoder(PretrainedConfig(source="owner/vit"))
    assert asked == ["owner/vit"] and encoder.provenance()["source"] == "owner/vit"
    local = build_encoder(PretrainedConfig(source=str(folders["vit"][0])))
    assert encoder.provenance()["sha256"] == local.provenance()["sha256"]

    def offline(id: str, allow_patterns: list[str]) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda _: pytest.fail("tried again"))
    with pytest.raises(ValueError, match=r"owner/vit: it is neither a local folder nor .* \(no network\)"):
        build_encoder(PretrainedConfig(source="owner/vit"))


def test_sources_that_cannot_be_loaded_say_so(tmp_path: Path, folders: dict[str, tuple[Path, nn.Module]]) -> None:
    def fails(source: str | Path, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build_encoder(PretrainedConfig(source=str(source)))

    fails("", "source is empty; give a local folder")
    fails("./nowhere", r"\./nowhere is not a folder")
    fails("nobody/no-such-model", r"nor reachable on the hub; without network give a local folder")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", r"the folder has no config\.json")

    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    fails(tmp_path / "bert", "is a 'bert' model; supported are resnet, mobilenet_v2, convnext")

    save("vit", tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    fails(tmp_path / "bare", "needs an undamaged config.json, preprocessor_config.json")

    save("vit", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    fails(tmp_path / "cut", "the folder needs an undamaged config.json, preprocessor_config.json and model.safetensors")

    save("vit", tmp_path / "few")
    config = json.loads((tmp_path / "few" / "config.json").read_text())
    (tmp_path / "few" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    fails(tmp_path / "few", r"lacks weights of ViTModel \(16 missing.*features would be random")


# processor -> the part of a picture 100 high and 300 wide that it keeps, by hand: the shortest edge becomes 32, so 300
# becomes 96, of which a crop of 28 begins at (96 - 28) // 2 = 34, and in the 32 rows at 2
KEPT_REGIONS: list[tuple[str, dict[str, Any], tuple[float, float, float, float]]] = [
    ("CLIP", {"size": {"shortest_edge": 32}, "crop_size": 32}, (1 / 3, 0, 2 / 3, 1)),
    ("Bit", {"size": {"shortest_edge": 32}, "crop_size": 28}, (34 / 96, 2 / 32, 62 / 96, 30 / 32)),
    ("Bit", {"size": {"shortest_edge": 32}, "do_center_crop": False}, (0, 0, 1, 1)),
    ("Bit", {"size": {"shortest_edge": 32}, "do_resize": False, "crop_size": 50}, (125 / 300, 0.25, 175 / 300, 0.75)),
    ("MobileNetV2", {"size": {"shortest_edge": 32}, "crop_size": 28}, (34 / 96, 2 / 32, 62 / 96, 30 / 32)),
    ("ConvNext", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}, (34 / 96, 2 / 32, 62 / 96, 30 / 32)),
    ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (0, 0, 1, 1)),  # from 384 on it warps
    ("ConvNext", {}, (0, 0, 1, 1)),
    ("ViT", {"size": {"height": 32, "width": 32}}, (0, 0, 1, 1)),
    ("Siglip", {"size": {"height": 32, "width": 32}}, (0, 0, 1, 1)),
    ("CLIP", {"size": {"shortest_edge": 16}, "crop_size": 32}, (8 / 48, -0.5, 40 / 48, 1.5)),  # padded above and below
]


@pytest.mark.parametrize(("name", "options", "box"), KEPT_REGIONS)
def test_the_kept_region_is_where_the_pixels_come_from(folders, name: str, options: dict[str, Any], box) -> None:
    """Against hand-worked boxes, and against the pixels: a ramp tells of every column which one it was."""
    encoder = load(folders, "vit")
    encoder.processor = getattr(transformers, f"{name}ImageProcessorPil")(
        **options, do_normalize=False, rescale_factor=1.0, resample=2
    )
    assert encoder.kept_region(100, 300) == pytest.approx(box)
    left, top, right, bottom = encoder.kept_region(100, 250)
    across = np.broadcast_to(np.arange(250, dtype=np.uint8)[:, None], (100, 250, 3))
    down = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None], (100, 250, 3))
    x = encoder.preprocess(across[None])[0, 0].float().amax(0).numpy()
    y = encoder.preprocess(down[None])[0, 0].float().amax(1).numpy()
    for found, first, last, size in ((x, left, right, 250), (y, top, bottom, 100)):
        middles = (first + (last - first) * (np.arange(len(found)) + 0.5) / len(found)) * size - 0.5
        inside = (middles > 5) & (middles < size - 6)  # resampling looks over the border there
        assert inside.sum() >= 10 and np.abs(found - middles)[inside].max() <= 1


def test_encoders_without_a_crop_see_the_whole_picture() -> None:
    assert build_encoder(SmallCNNConfig()).kept_region(100, 300) == (0, 0, 1, 1)


@pytest.mark.parametrize("kind", [PretrainedConfig, ClipFramesConfig, DetectorConfig])
def test_code_in_a_model_folder_is_never_run(
    tmp_path: Path, folders: dict[str, tuple[Path, nn.Module]], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto_map` names classes of a Python file beside the weights; nobody is asked whether it may run."""
    source = tmp_path / "model"
    shutil.copytree(folders["clip"][0], source)
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    config = json.loads((source / "config.json").read_text())
    names = ("AutoConfig", "AutoModel", "AutoImageProcessor")
    for model_type in (config["model_type"], "unheard_of"):
        changed = {**config, "model_type": model_type, "auto_map": dict.fromkeys(names, "evil.C")}
        (source / "config.json").write_text(json.dumps(changed))
        monkeypatch.setattr("builtins.input", lambda *_: "y")
        with contextlib.suppress(ValueError):
            build_encoder(kind(source=str(source)))
    assert not (tmp_path / "ran").exists()
