"""Our ResNet: torchvision's names and shapes, transformers' numbers, the published preprocessing, frozen statistics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import ResNetConfig as HFResNetConfig
from transformers import ResNetModel

from limner.core.tensors import save_tensors
from limner.core.types import Layout, Pixels
from limner.encoders import Pretrained, ResNet, ResNetConfig, build_encoder
from limner.encoders.resnet import infer_config
from limner.models import ShowAttendTellConfig, build_model
from limner.models.captioner import FromPixels
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe, load_recipe, save_recipe
from limner.runs.run import RunInfo, create_run, load_run, load_run_state_dict, run_state_dict
from limner.text.vocabulary import SPECIALS, Vocabulary


def unsettle(net: nn.Module) -> None:
    """No statistic or gain stays at 0 or 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)


def meta(config: ResNetConfig) -> ResNet:
    """Shapes without numbers."""
    with torch.device("meta"):
        return ResNet(config)


@pytest.mark.parametrize(
    ("config", "parameters", "dim"),
    [  # torchvision's documented counts, less the classifier's 1000 * (dim + 1)
        (ResNetConfig(blocks=(2, 2, 2, 2), kind="basic"), 11_689_512, 512),
        (ResNetConfig(blocks=(3, 4, 6, 3), kind="basic"), 21_797_672, 512),
        (ResNetConfig(blocks=(3, 4, 6, 3)), 25_557_032, 2048),
        (ResNetConfig(), 44_549_160, 2048),
        (ResNetConfig(blocks=(3, 4, 6, 3), groups=32, width_per_group=4), 25_028_904, 2048),
        (ResNetConfig(groups=32, width_per_group=8), 88_791_336, 2048),
        (ResNetConfig(blocks=(3, 4, 6, 3), width_per_group=128), 68_883_240, 2048),
    ],
)
def test_torchvision_s_sizes(config: ResNetConfig, parameters: int, dim: int) -> None:
    net = meta(config)
    assert sum(p.numel() for p in net.parameters()) + 1000 * (dim + 1) == parameters and net.dim == dim
    again = infer_config(net.state_dict())
    assert meta(again).state_dict().keys() == net.state_dict().keys()
    assert (again.blocks, again.kind, again.groups, again.width_per_group) == (
        config.blocks,
        config.kind,
        config.groups,
        config.width_per_group,
    )


def test_torchvision_s_names_and_the_published_shapes() -> None:
    shapes = {
        key: tuple(value.shape) for key, value in meta(ResNetConfig(groups=32, width_per_group=8)).state_dict().items()
    }
    assert shapes["conv1.weight"] == (64, 3, 7, 7) and shapes["bn1.running_var"] == (64,)
    for stage, blocks in enumerate((3, 4, 23, 3)):
        w = o = 256 * 2**stage
        first, last = f"layer{stage + 1}.0", f"layer{stage + 1}.{blocks - 1}"
        assert shapes[f"{last}.conv1.weight"] == (w, o, 1, 1) and shapes[f"{last}.conv2.weight"] == (w, w // 32, 3, 3)
        assert shapes[f"{last}.conv3.weight"] == (o, w, 1, 1) and shapes[f"{last}.bn3.bias"] == (o,)
        assert shapes[f"{first}.downsample.0.weight"] == (o, 64 if stage == 0 else o // 2, 1, 1)
        assert shapes[f"{first}.downsample.1.num_batches_tracked"] == ()
        assert f"{last}.downsample.0.weight" not in shapes and f"layer{stage + 1}.{blocks}.conv1.weight" not in shapes


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_numbers_of_another_implementation(kind: str) -> None:
    """transformers has the same network under other names."""
    torch.manual_seed(0)
    given = {"name": "resnet", "blocks": [1, 2, 1, 1], "kind": kind, "pool": 0}
    config = build_recipe({"data": {"media": "x"}, "encoder": given}).encoder
    ours = build_encoder(config).eval()
    unsettle(ours)
    sizes = [size * (1 if kind == "basic" else 4) for size in (64, 128, 256, 512)]
    theirs = ResNetModel(HFResNetConfig(hidden_sizes=sizes, depths=[1, 2, 1, 1], layer_type=kind)).eval()
    # both define their tensors in the order of computation, but transformers puts the shortcut first in a block
    mine = dict(ours.state_dict())
    ordered = [key for key in mine if not key.startswith("layer")]
    for stage in range(1, 5):
        for block in range((1, 2, 1, 1)[stage - 1]):
            keys = [key for key in mine if key.startswith(f"layer{stage}.{block}.")]
            ordered += sorted(keys, key=lambda key: "downsample" not in key)
    target = list(theirs.state_dict())
    assert [mine[key].shape for key in ordered] == [theirs.state_dict()[key].shape for key in target]
    theirs.load_state_dict({name: mine[key] for name, key in zip(target, ordered, strict=True)})
    frames = torch.randn(2, 1, 3, 96, 64)
    with torch.no_grad():
        features, expected = ours(Pixels(frames)), theirs(frames[:, 0]).last_hidden_state
    assert features.layout == Layout(1, 3, 2) and features.mask.all()
    torch.testing.assert_close(features.grid, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_pooling_is_adaptive_and_cells_follow_the_frames() -> None:
    torch.manual_seed(0)
    net = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), groups=2, width_per_group=2, pool=2)).eval()
    plain = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), groups=2, width_per_group=2, pool=0)).eval()
    plain.load_state_dict(net.state_dict())
    frames = torch.randn(2, 3, 3, 64, 128)
    with torch.no_grad():
        pooled, cells = net(Pixels(frames)), plain(Pixels(frames))
    assert pooled.layout == Layout(3, 2, 2) and cells.layout == Layout(3, 2, 4)
    halves = cells.grid.reshape(2, 3, 2, 2, 2, net.dim).mean(4).reshape(2, 12, net.dim)  # 4 columns to 2
    torch.testing.assert_close(pooled.grid, halves)
    with torch.no_grad():
        alone = net(Pixels(frames[1:, 2:])).grid[0]
    torch.testing.assert_close(pooled.grid[1, 8:], alone, rtol=1e-4, atol=1e-5)


def test_preprocessing_by_hand() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    small = (1, 1, 1, 1)
    found = ResNet(ResNetConfig(blocks=small, kind="basic", size=32)).preprocess(frame)
    resized = np.asarray(Image.fromarray(frame[1]).resize((32, 32), Image.Resampling.BILINEAR)) / 255
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert found.shape == (2, 3, 32, 32) and found.dtype == torch.float32
    np.testing.assert_allclose(found[1].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    swapped = ResNet(ResNetConfig(blocks=small, kind="basic", size=32, channels="BGR")).preprocess(frame)
    blue_first = (resized[..., ::-1] - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(swapped[1].permute(1, 2, 0).numpy(), blue_first, atol=1e-5)


@pytest.mark.parametrize(("first", "learning"), [(None, []), (3, ["layer4"]), (-3, ["layer2", "layer3", "layer4"])])
def test_what_is_frozen_stays_as_it_was(first: int | None, learning: list[str]) -> None:
    torch.manual_seed(0)
    net = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), groups=2, width_per_group=2, pool=0, trainable_from=first)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    cells = net(Pixels(torch.randn(2, 1, 3, 64, 64))).grid
    if learning:
        cells.square().mean().backward()
        optimizer.step()
    moved = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert sorted(moved) == learning
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == set(learning)


def test_zero_trains_everything() -> None:
    net = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), kind="basic", trainable_from=0)).train()
    assert all(p.requires_grad for p in net.parameters()) and all(module.training for module in net.modules())


def test_recipe_round_trip_and_provenance(tmp_path: Path) -> None:
    config = ResNetConfig(blocks=(1, 1, 1, 1), kind="basic", channels="BGR", trainable_from=None)
    save_recipe(Recipe(encoder=config), tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json").encoder == config
    one, other = ResNet(config), ResNet(config)
    assert one.provenance()["sha256"] != other.provenance()["sha256"]
    other.load_state_dict(one.state_dict())
    assert one.provenance() == other.provenance() and one.provenance()["preprocessing"]["channels"] == "BGR"


def test_a_frozen_resnet_travels_with_the_run(tmp_path: Path) -> None:
    """Its weights exist nowhere else, unlike those of a frozen `Pretrained`."""
    torch.manual_seed(0)
    recipe = Recipe(
        encoder=ResNetConfig(blocks=(1, 1, 1, 1), kind="basic", trainable_from=None),
        model=ShowAttendTellConfig(hidden=4, embed=4, attention=4),
    )
    encoder, vocabulary = build_encoder(recipe.encoder), Vocabulary((*SPECIALS, "a"))
    assert not isinstance(encoder, Pretrained)
    both = FromPixels(encoder, build_model(recipe.model, 5, encoder.dim))
    save_tensors(tmp_path / "model.safetensors", run_state_dict(both))
    create_run(tmp_path, recipe, vocabulary, RunInfo(encoder.dim, encoder.provenance(), False))
    run = load_run(tmp_path)
    assert run.encoder is not None and run.encoder.provenance() == encoder.provenance()
    other = FromPixels(build_encoder(recipe.encoder), build_model(recipe.model, 5, encoder.dim))
    load_run_state_dict(other, run_state_dict(both), "here")
    assert other.encoder.provenance() == encoder.provenance()


def test_configs_that_make_no_network_are_refused() -> None:
    for config, reason in (
        (ResNetConfig(blocks=(1, 0, 1, 1)), "at least one block"),
        (ResNetConfig(size=16), "size >= 32"),
        (ResNetConfig(pool=-1), "pool >= 0"),
        (ResNetConfig(kind="basic", groups=2), "basic blocks"),
        (ResNetConfig(groups=0), "at least 1"),
        (ResNetConfig(blocks=(1, 1, 1, 1), kind="basic", trainable_from=4), "has 4 blocks: give -4 .. 3"),
    ):
        with pytest.raises(ValueError, match=reason):
            ResNet(config)
    with pytest.raises(ValueError, match=r"blocks per stage are \[0, 0, 0, 0\].*missing"):
        infer_config({"conv1.weight": torch.ones(1)})
