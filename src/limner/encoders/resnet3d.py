"""3-D ResNet (Hara et al. 2018, arXiv:1711.09577): convolutions over time and space, for weights trained on Kinetics.

Parameters are named as in the authors' code (kenshohara/3D-ResNets-PyTorch), so that its published weights fit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.fields import PositiveInt
from limner.core.tensors import state_dict_differences
from limner.core.types import Features, Layout, Pixels
from limner.encoders.freezing import FourStages
from limner.encoders.learnt import learnt
from limner.encoders.pretrained import weights_sha256

DEPTHS: dict[int, tuple[type["Basic"] | type["Bottleneck"], tuple[int, int, int, int]]]  # -> block, blocks per stage
CLASSIFIER = ("fc.weight", "fc.bias")


@dataclass(frozen=True)
class ResNet3DConfig:
    """Depth 18 and 34 give 8 * width channels per cell, 50 and 101 give 32 * width: 2048 for the published 50.

    `source` is a file of weights (.pth) or a run whose encoder it is; without one they are random.  `trainable_from` k
    trains the blocks from index k on, counted over all stages (negative: from the end); 0 trains everything, None
    freezes everything.
    """

    name: Literal["resnet3d"] = "resnet3d"
    depth: Literal[10, 18, 34, 50, 101, 152, 200] = 50  # layers
    source: str = ""
    width: PositiveInt = 64  # channels of the first layer
    shortcut: Literal["A", "B"] = "B"  # A: no weights, new channels are 0 (18 and 34 of 2017); B: a 1x1x1 convolution
    time_stride: Literal[1, 2] = 1  # of the first convolution; 2 in weights for clips of 32 frames and more
    window: PositiveInt | None = (
        None  # pooled vectors of windows of so many frames, one from each frame on; published: 16
    )
    size: PositiveInt = 224  # of the square input in pixels
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # per RGB channel in [0, 255]; ImageNet's,
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # as the captioner's features were made
    trainable_from: int | None = 0


class ShortcutA(nn.Module):
    """Every `stride`-th position; channels that the input lacks are 0 (He et al. 2016, option A)."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D t h w"]:
        s = self.stride
        return F.pad(x[:, :, ::s, ::s, ::s], (0, 0, 0, 0, 0, 0, 0, self.more))


def _shortcut(inputs: int, outputs: int, stride: int, kind: str) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    if kind == "A":
        return ShortcutA(outputs - inputs, stride)
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))


class Basic(nn.Module):
    """Two 3x3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.downsample = _shortcut(inputs, planes, stride, shortcut)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D t h w"]:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 with the stride, 1x1x1 to four times the channels."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(planes * self.expansion)
        self.downsample = _shortcut(inputs, planes * self.expansion, stride, shortcut)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D t h w"]:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


DEPTHS = {
    10: (Basic, (1, 1, 1, 1)),
    18: (Basic, (2, 2, 2, 2)),
    34: (Basic, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
    200: (Bottleneck, (3, 24, 36, 3)),
}


class ResNet3D(FourStages):
    """Stride 16 in time (32 with time_stride 2) and 32 in space, rounded up: 16 x 224 x 224 give 1 x 7 x 7 cells.

    With a `window`, every frame gives one cell: the mean over the cells of the window that begins with it.
    """

    def __init__(self, config: ResNet3DConfig) -> None:
        """Raises ValueError when the weights are missing, unreadable or of another network (naming that)."""
        super().__init__()
        if config.size < 32:
            raise ValueError(f"encoder.size is {config.size}; it must be at least 32")
        self.config = config
        block, counts = DEPTHS[config.depth]
        inputs = config.width
        self.conv1 = nn.Conv3d(3, inputs, 7, (config.time_stride, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(inputs)
        stages = []
        for stage, count in enumerate(counts):
            blocks, planes = [], config.width * 2**stage
            for i in range(count):
                blocks.append(block(inputs, planes, 2 if stage and i == 0 else 1, config.shortcut))
                inputs = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dim = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if config.source and not Path(config.source).expanduser().is_dir():
            fill(self, read_weights(config.source), config.source)
        else:
            learnt(self, config.source)
        self.freeze(config.trainable_from)
        self.train(self.training)

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB [0, 255] -> shorter side to `size` (Pillow's antialiased bilinear), central square, normalised."""
        size, (height, width) = self.config.size, frames.shape[1:3]
        tall, wide = _resized(height, width, size)
        top, left = (tall - size) // 2, (wide - size) // 2
        images = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
        scaled = np.stack([np.asarray(image.resize((wide, tall), Image.Resampling.BILINEAR)) for image in images])
        square = scaled[:, top : top + size, left : left + size]
        pixels = torch.from_numpy(np.ascontiguousarray(square)).permute(0, 3, 1, 2).float()
        return (pixels - torch.tensor(self.config.mean).view(3, 1, 1)) / torch.tensor(self.config.std).view(3, 1, 1)

    def kept_region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The central square."""
        size, (tall, wide) = self.config.size, _resized(height, width, self.config.size)
        top, left = (tall - size) // 2, (wide - size) // 2
        return left / wide, top / tall, (left + size) / wide, (top + size) / tall

    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, H, W) -> T/16 * H/32 * W/32 cells, or with a window T cells; all real."""
        frames, window = pixels.frames, self.config.window
        if window is None:
            x = self._map(frames)
        else:
            # zeros behind the last frame, after normalisation: a window from every frame on, as published
            padded = F.pad(frames, (0, 0, 0, 0, 0, 0, 0, window - 1))
            starts = range(frames.shape[1])
            x = torch.cat([self._map(padded[:, i : i + window]).mean((2, 3, 4), keepdim=True) for i in starts], 2)
        grid = x.flatten(2).transpose(1, 2)
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), Layout(*x.shape[2:]))

    def _map(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B D t h w"]:
        x = torch.relu(self.bn1(self.conv1(frames.transpose(1, 2))))
        x = F.max_pool3d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def provenance(self) -> dict[str, Any]:
        """The architecture and the hash of the weights as they are now."""
        config = self.config
        shape = f"depth={config.depth}, width={config.width}, shortcut={config.shortcut}, {config.time_stride=}"
        return {
            "name": config.name,
            "source": Path(config.source).name or "limner",
            "architecture": f"ResNet3D({shape.replace('config.', '')}, window={config.window})",
            "sha256": weights_sha256(self),
            "preprocessing": {
                "size": config.size,
                "crop": "centre",
                "resample": "bilinear",
                "mean": list(config.mean),
                "std": list(config.std),
            },
            "dim": self.dim,
        }


def _resized(height: int, width: int, size: int) -> tuple[int, int]:
    """Sides after the shorter one has become `size`."""
    return (size, size * width // height) if height <= width else (size * height // width, size)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict, or a training checkpoint with one under "state_dict" -> tensors by the names used here.

    The prefix `module.` of DataParallel and the classifier are left out.  Raises ValueError.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"encoder.source: {path} is no file; give the .pth file of a 3-D ResNet, or a run's folder")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a damaged file makes it raise
        raise ValueError(
            f"encoder.source: {path} is damaged or cannot be read without executing code "
            f"({str(error).splitlines()[0]:.200}); save the network's state_dict() instead"
        ) from error
    tree = tree.get("state_dict", tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, dict) or not tree or not all(isinstance(value, Tensor) for value in tree.values()):
        raise ValueError(f"encoder.source: {path} holds no state dict")
    plain = {str(key).removeprefix("module."): value for key, value in tree.items()}
    return {key: value for key, value in plain.items() if key not in CLASSIFIER}


def fill(net: ResNet3D, tensors: dict[str, Tensor], where: str) -> None:
    """Load strictly.  Raises ValueError that tells of which network the weights are."""
    counters = {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    given = counters | tensors  # torch < 0.4.1 had no counters
    missing, unknown, shapes = state_dict_differences(net, given)
    if missing or unknown or shapes:
        told, config = config_of(tensors), net.config
        raise ValueError(
            f"encoder.source {where} has depth {told.depth}, width {told.width}, shortcut {told.shortcut}; the encoder "
            f"has {config.depth}, {config.width}, {config.shortcut}: missing {missing[:6]}; unknown {unknown[:6]}; "
            f"shapes {shapes[:3]}"
        )
    net.load_state_dict(given)


def config_of(tensors: dict[str, Tensor]) -> ResNet3DConfig:
    """The frozen network that fits a state dict with these names.  Raises ValueError.

    The tensors do not tell the stride in time, the size of the picture and its normalisation: they are the defaults.
    """
    counts = tuple(len({key.split(".")[1] for key in tensors if key.startswith(f"layer{n}.")}) for n in range(1, 5))
    block = Bottleneck if "layer1.0.conv3.weight" in tensors else Basic
    depths: list[Any] = [depth for depth, found in DEPTHS.items() if found == (block, counts)]
    if not depths or "conv1.weight" not in tensors or tensors["conv1.weight"].dim() != 5:
        raise ValueError(f"no 3-D ResNet: blocks per stage are {list(counts)}, conv1.weight is missing or no kernel")
    shortcut: Literal["A", "B"] = "B" if "layer2.0.downsample.0.weight" in tensors else "A"
    width = len(tensors["conv1.weight"])
    return ResNet3DConfig(depth=depths[0], width=width, shortcut=shortcut, trainable_from=None)
