"""Our 3-D ResNet: the published names, strides and preprocessing, sliding windows, weights as they are distributed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.types import Layout, Pixels
from limner.data.datasets import DataConfig
from limner.encoders import ResNet3D, ResNet3DConfig, build_encoder
from limner.encoders.resnet3d import infer_config, read_weights
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe, save_recipe

# the keys of kenshohara/3D-ResNets-PyTorch, resnet-50, by hand: the stem, a first block with a shortcut, a second one
STEM = {"conv1.weight": (64, 3, 7, 7, 7), "bn1.weight": (64,), "bn1.bias": (64,), "bn1.running_mean": (64,),
        "bn1.running_var": (64,), "bn1.num_batches_tracked": ()}  # fmt: skip
SECOND_STAGE = {
    "layer2.0.conv1.weight": (128, 256, 1, 1, 1),
    "layer2.0.bn1.weight": (128,),
    "layer2.0.conv2.weight": (128, 128, 3, 3, 3),
    "layer2.0.bn2.running_mean": (128,),
    "layer2.0.conv3.weight": (512, 128, 1, 1, 1),
    "layer2.0.bn3.bias": (512,),
    "layer2.0.downsample.0.weight": (512, 256, 1, 1, 1),
    "layer2.0.downsample.1.running_var": (512,),
    "layer2.0.downsample.1.num_batches_tracked": (),
    "layer2.1.conv1.weight": (128, 512, 1, 1, 1),
}
SMALL = ResNet3DConfig(depth=10, width=4, size=32)


def shapes(config: ResNet3DConfig) -> dict[str, tuple[int, ...]]:
    """Without numbers, so that large networks cost nothing."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in ResNet3D(config).state_dict().items()}


def unsettle(net: nn.Module) -> None:
    """No statistic or gain stays at 0 or 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                assert tensor is not None
                nn.init.uniform_(tensor, -0.2, 0.2)


def small(seed: int = 0, **options: object) -> ResNet3D:
    torch.manual_seed(seed)
    net = ResNet3D(ResNet3DConfig(**{**vars(SMALL), **options}))  # type: ignore[arg-type]
    unsettle(net)
    return net.eval()


def test_the_published_names_and_shapes() -> None:
    found = shapes(ResNet3DConfig(depth=50))
    assert {key: found[key] for key in [*STEM, *SECOND_STAGE]} == STEM | SECOND_STAGE
    # 53 convolutions (4 shortcuts among them) with a BatchNorm of five entries each
    assert len(found) == 53 * 6
    assert found["layer4.2.conv3.weight"] == (2048, 512, 1, 1, 1) and "layer1.1.downsample.0.weight" not in found
    assert found["layer1.0.downsample.0.weight"] == (256, 64, 1, 1, 1)  # the channels change, the sides do not


@pytest.mark.parametrize(
    ("depth", "blocks", "convolutions", "dim"),
    [(18, (2, 2, 2, 2), 20, 512), (34, (3, 4, 6, 3), 36, 512), (101, (3, 4, 23, 3), 104, 2048)],
)
def test_depths(depth: int, blocks: tuple[int, ...], convolutions: int, dim: int) -> None:
    """`depth` counts the layers with weights less the shortcuts, the classifier included: 18 = 1 + 2 * 8 + 1."""
    found = shapes(ResNet3DConfig(depth=depth))  # type: ignore[arg-type]
    assert len(found) == convolutions * 6
    counted = tuple(len({key.split(".")[1] for key in found if key.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4))
    last = f"layer4.{blocks[3] - 1}.bn{3 if dim == 2048 else 2}.weight"
    assert counted == blocks and found[last] == (dim,)


@pytest.mark.parametrize("depth", [18, 34])
def test_shortcut_a_has_no_weights(depth: int) -> None:
    """The weights of 2017 for 18 and 34 have no `downsample` at all."""
    found = shapes(ResNet3DConfig(depth=depth, shortcut="A"))  # type: ignore[arg-type]
    assert not [key for key in found if "downsample" in key] and len(found) == (depth - 1) * 6


@pytest.mark.parametrize(
    ("frames", "side", "stride", "layout"),
    [
        (16, 224, 1, (1, 7, 7)),
        (17, 224, 1, (2, 7, 7)),
        (160, 224, 1, (10, 7, 7)),  # what the published captioner resamples everything to
        (32, 112, 2, (1, 4, 4)),
        (33, 100, 2, (2, 4, 4)),
        (1, 32, 1, (1, 1, 1)),
    ],
)
def test_strides(frames: int, side: int, stride: int, layout: tuple[int, int, int]) -> None:
    """16 in time (32 with time_stride 2) and 32 in space, rounded up."""
    with torch.device("meta"):
        net = ResNet3D(ResNet3DConfig(depth=10, width=1, time_stride=stride)).eval()  # type: ignore[arg-type]
        features = net(Pixels(torch.empty(2, frames, 3, side, side)))
    assert features.layout == Layout(*layout) and features.grid.shape == (2, features.layout.cells, 8)


def batch_norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, gain, bias = (
        w[f"{name}.{part}"].view(-1, 1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gain + bias


def plain(w: dict[str, Tensor], x: Tensor, shortcut: str) -> Tensor:
    """Depth 10 from the paper's description: (B, 3, T, H, W) -> (B, C, t, h, w)."""
    x = batch_norm(w, "bn1", F.conv3d(x, w["conv1.weight"], None, (1, 2, 2), 3)).relu()
    x = F.max_pool3d(x, 3, 2, 1)
    for stage in range(1, 5):
        name, stride = f"layer{stage}.0", 2 if stage > 1 else 1
        y = batch_norm(w, f"{name}.bn1", F.conv3d(x, w[f"{name}.conv1.weight"], None, stride, 1)).relu()
        y = batch_norm(w, f"{name}.bn2", F.conv3d(y, w[f"{name}.conv2.weight"], None, 1, 1))
        if stage > 1 and shortcut == "B":
            x = batch_norm(w, f"{name}.downsample.1", F.conv3d(x, w[f"{name}.downsample.0.weight"], None, 2))
        elif stage > 1:
            half = x[:, :, ::2, ::2, ::2]
            x = torch.cat([half, torch.zeros_like(half)], 1)
        x = (x + y).relu()
    return x


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_numbers_of_a_plain_computation(shortcut: str) -> None:
    net = small(shortcut=shortcut)
    frames = torch.randn(2, 18, 3, 64, 32)
    with torch.no_grad():
        features, expected = (
            net(Pixels(frames)),
            plain(dict(net.state_dict()), frames.transpose(1, 2), shortcut),
        )
    assert features.layout == Layout(2, 2, 1) and expected.shape == (2, 32, 2, 2, 1) and features.mask.all()
    torch.testing.assert_close(features.grid, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_sliding_windows_by_hand() -> None:
    """A pooled vector from every frame on; behind the last frame there are zeros."""
    net = small(window=4)
    whole = small()
    whole.load_state_dict(net.state_dict())
    frames = torch.randn(2, 6, 3, 32, 32)
    with torch.no_grad():
        found = net(Pixels(frames))
        assert found.layout == Layout(6, 1, 1) and found.mask.all()
        for start in range(6):
            window = torch.zeros(2, 4, 3, 32, 32)
            window[:, : 6 - start] = frames[:, start : start + 4]
            cells = whole(Pixels(window)).grid
            torch.testing.assert_close(found.grid[:, start], cells.mean(1), rtol=1e-4, atol=1e-5)


def test_preprocessing_by_hand() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (2, 50, 71, 3), dtype=np.uint8)
    net = small()
    found = net.preprocess(frame)
    scaled = np.asarray(Image.fromarray(frame[1]).resize((45, 32), Image.Resampling.BILINEAR))  # 71 * 32 / 50 = 45.4
    expected = (scaled[:, 6:38].astype(float) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    assert found.shape == (2, 3, 32, 32) and found.dtype == torch.float32
    np.testing.assert_allclose(found[1].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert net.kept_region(50, 71) == (6 / 45, 0, 38 / 45, 1) and net.kept_region(64, 32) == (0, 0.25, 1, 0.75)
    raw = small(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).preprocess(frame)
    np.testing.assert_array_equal(raw[1].permute(1, 2, 0).numpy(), scaled[:, 6:38])


def save(folder: Path, kind: str, net: ResNet3D) -> Path:
    """Weights as they are distributed."""
    state = {**net.state_dict(), "fc.weight": torch.ones(700, net.dim), "fc.bias": torch.ones(700)}
    wrapped = {f"module.{key}": value for key, value in state.items()}
    old = {key: value for key, value in wrapped.items() if "num_batches" not in key}
    tree = {
        "bare": state,
        "checkpoint": {"epoch": 200, "arch": "resnet-50", "state_dict": wrapped, "optimizer": {"lr": 0.1}},
        "old": {"state_dict": old},
    }[kind]
    torch.save(tree, folder / "weights.pth")
    return folder / "weights.pth"


@pytest.mark.parametrize("kind", ["bare", "checkpoint", "old"])
def test_distributed_weights_are_read(tmp_path: Path, kind: str) -> None:
    net = small(3)
    path = save(tmp_path, kind, net)
    found = build_encoder(ResNet3DConfig(depth=10, width=4, size=32, source=str(path), trainable_from=None)).eval()
    frames = torch.randn(1, 2, 3, 32, 32)
    assert torch.equal(found(Pixels(frames)).grid, net(Pixels(frames)).grid)
    assert found.provenance()["source"] == "weights.pth" and not any(p.requires_grad for p in found.parameters())
    assert infer_config(read_weights(path)) == ResNet3DConfig(depth=10, width=4, trainable_from=None)


def test_weights_that_do_not_fit_are_described(tmp_path: Path) -> None:
    path = save(tmp_path, "bare", small(shortcut="A"))
    assert infer_config(read_weights(path)).shortcut == "A"
    with pytest.raises(
        ValueError, match=r"has depth 10, width 4, shortcut A; the encoder has 18, 4, A: missing.*layer"
    ):
        ResNet3D(ResNet3DConfig(depth=18, width=4, shortcut="A", source=str(path)))
    with pytest.raises(ValueError, match="is not a file"):
        ResNet3D(ResNet3DConfig(source=str(tmp_path / "absent.pth")))
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"not a 3-D ResNet: blocks per stage are \[0, 0, 0, 0\]"):
        ResNet3D(ResNet3DConfig(depth=10, width=4, source=str(path)))
    torch.save({"net": small()}, path)  # a whole pickled module
    with pytest.raises(ValueError, match="without executing code"):
        read_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds no state dict"):
        read_weights(path)


@pytest.mark.parametrize(("first", "learning"), [(None, []), (3, ["layer4"]), (-3, ["layer2", "layer3", "layer4"])])
def test_what_is_frozen_stays_as_it_was(first: int | None, learning: list[str]) -> None:
    net = small(trainable_from=first).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    cells = net(Pixels(torch.randn(2, 32, 3, 64, 64))).grid
    if learning:
        cells.square().mean().backward()
        optimizer.step()
    moved = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert sorted(moved) == learning


def test_it_learns_the_direction_of_a_motion() -> None:
    """A bright bar that goes left or right over the same places: no single frame tells which."""
    torch.manual_seed(0)
    net, head = ResNet3D(ResNet3DConfig(depth=10, width=4)).train(), nn.Linear(32, 2)
    labels = torch.arange(48) % 2
    clips = torch.randn(48, 8, 3, 32, 32) * 0.1
    for clip, label in zip(clips, labels.tolist(), strict=True):
        start = int(torch.randint(0, 8, ()))
        for t in range(8):
            at = start + 2 * (t if label else 7 - t)
            clip[t, :, :, at : at + 4] += 2
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 3e-3)
    for _ in range(25):
        loss = F.cross_entropy(head(net(Pixels(clips[:32])).grid.mean(1)), labels[:32])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        unseen = head(net.eval()(Pixels(clips[32:])).grid.mean(1)).argmax(1)
    assert (unseen == labels[32:]).float().mean() > 0.8  # chance is 1/2


def test_recipe_round_trip_and_provenance(tmp_path: Path) -> None:
    config = ResNet3DConfig(depth=10, width=4, size=32, window=16, shortcut="A", mean=(1.0, 2.0, 3.0))
    save_recipe(Recipe(DataConfig(media="."), config), tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json").encoder == config
    one, other = ResNet3D(config), ResNet3D(config)
    assert one.provenance()["sha256"] != other.provenance()["sha256"]
    other.load_state_dict(one.state_dict())
    assert one.provenance() == other.provenance()
    assert one.provenance()["architecture"] == "ResNet3D(depth=10, width=4, shortcut=A, time_stride=1, window=16)"
    assert one.provenance()["preprocessing"]["mean"] == [1.0, 2.0, 3.0]


def test_configs_that_make_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 16"):
        ResNet3D(ResNet3DConfig(size=16))
    with pytest.raises(ValueError, match=r"has 4 blocks: give -4 \.\. 3"):
        ResNet3D(ResNet3DConfig(depth=10, width=4, trainable_from=4))
