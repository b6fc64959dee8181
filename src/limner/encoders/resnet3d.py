"""3-D ResNet encoder (Hara et al. 2018, arXiv:1711.09577): convolutions over time and space.

Parameters have the names of the authors' code (kenshohara/3D-ResNets-PyTorch), so its weights, trained on Kinetics, can
be loaded.
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

from limner import shipped
from limner.core.fields import PositiveInt
from limner.core.tensors import state_dict_differences
from limner.core.types import Features, Layout, Pixels
from limner.encoders.freezing import FourStageEncoder
from limner.encoders.pretrained import weights_sha256
from limner.encoders.trained import load_trained_encoder, read_state_dict

DEPTHS: dict[
    int, tuple[type["BasicBlock3D"] | type["BottleneckBlock3D"], tuple[int, int, int, int]]
]  # depth -> block class, blocks per stage
CLASSIFIER = ("fc.weight", "fc.bias")


@dataclass(frozen=True)
class ResNet3DConfig:
    """Size, input and trained part of a 3-D ResNet.

    Depths up to 34 give cells of 8 * width channels, larger depths 32 * width: the published ResNet-50 gives 2048.
    `source` is a file of weights (.pth) or a run whose encoder weights are loaded; "" leaves the weights random.
    `trainable_from` k trains the blocks from index k on, counted over all stages (a negative k counts from the end);
    0 trains everything, None freezes everything.
    """

    name: Literal["resnet3d"] = "resnet3d"
    depth: Literal[10, 18, 34, 50, 101, 152, 200] = 50  # layers
    source: str = ""
    width: PositiveInt = 64  # channels of the first layer
    shortcut: Literal["A", "B"] = "B"  # A: zero padding (18 and 34 of 2017); B: a 1x1x1 convolution
    time_stride: Literal[1, 2] = 1  # of the first convolution; 2 for weights trained on 32 or more frames
    window: PositiveInt | None = (
        None  # one pooled cell per frame, from the `window` frames that start there; published: 16
    )
    size: PositiveInt = 224  # side of the square input, in pixels
    mean: tuple[float, float, float] = (
        123.675,
        116.28,
        103.53,
    )  # per RGB channel in [0, 255]: ImageNet's values, with which
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # the published captioner's features were made
    trainable_from: int | None = 0


class ZeroPaddedShortcut(nn.Module):
    """Shortcut without weights: takes every `stride`-th position and appends `more` zero channels.

    This is option A of He et al. 2016.
    """

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D t h w"]:
        s = self.stride
        return F.pad(x[:, :, ::s, ::s, ::s], (0, 0, 0, 0, 0, 0, 0, self.more))


def _shortcut(inputs: int, outputs: int, stride: int, kind: str) -> nn.Module | None:
    """The shortcut of kind "A" or "B" that matches shapes, or None where they match already."""
    if stride == 1 and inputs == outputs:
        return None
    if kind == "A":
        return ZeroPaddedShortcut(outputs - inputs, stride)
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))


class BasicBlock3D(nn.Module):
    """Residual block of two 3x3x3 convolutions."""

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


class BottleneckBlock3D(nn.Module):
    """Residual block of a 1x1x1, a 3x3x3 (with the stride) and a 1x1x1 convolution to 4 * planes channels."""

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
    10: (BasicBlock3D, (1, 1, 1, 1)),
    18: (BasicBlock3D, (2, 2, 2, 2)),
    34: (BasicBlock3D, (3, 4, 6, 3)),
    50: (BottleneckBlock3D, (3, 4, 6, 3)),
    101: (BottleneckBlock3D, (3, 4, 23, 3)),
    152: (BottleneckBlock3D, (3, 8, 36, 3)),
    200: (BottleneckBlock3D, (3, 24, 36, 3)),
}


class ResNet3D(FourStageEncoder):
    """3-D ResNet encoder of stride 16 in time (32 with time_stride 2) and 32 in space, rounded up.

    16 frames of 224 x 224 pixels give 1 x 7 x 7 cells.  With a `window`, every frame gives one cell: the mean over the
    cells of the `window` frames that start there.
    """

    def __init__(self, config: ResNet3DConfig) -> None:
        """Raises ValueError when the weights are missing, cannot be read, or belong to another network."""
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
        if config.source and not shipped.folder_of(config.source).is_dir():
            load_weights(self, read_weights(config.source), config.source)
        else:
            load_trained_encoder(self, config.source)
        self.freeze(config.trainable_from)
        self.train(self.training)

    def reading_side(self) -> int:
        """The shorter side before the central square is cropped."""
        return self.config.size

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize uint8 RGB frames so that the shorter side is `size`, crop the central square and normalise it.

        The resizing filter is Pillow's antialiased bilinear one.
        """
        size, (height, width) = self.config.size, frames.shape[1:3]
        tall, wide = _resized_sides(height, width, size)
        top, left = (tall - size) // 2, (wide - size) // 2
        images = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
        scaled = np.stack([np.asarray(image.resize((wide, tall), Image.Resampling.BILINEAR)) for image in images])
        square = scaled[:, top : top + size, left : left + size]
        pixels = torch.from_numpy(np.ascontiguousarray(square)).permute(0, 3, 1, 2).float()
        return (pixels - torch.tensor(self.config.mean).view(3, 1, 1)) / torch.tensor(self.config.std).view(3, 1, 1)

    def kept_region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The central square, as relative xyxy."""
        size, (tall, wide) = self.config.size, _resized_sides(height, width, self.config.size)
        top, left = (tall - size) // 2, (wide - size) // 2
        return left / wide, top / tall, (left + size) / wide, (top + size) / tall

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) to T/16 * H/32 * W/32 cells, or T cells with a window.  No cell is padding."""
        frames, window = pixels.frames, self.config.window
        if window is None:
            x = self._feature_map(frames)
        else:
            # as published: zeros after the last frame (and after normalisation), so that a window starts at every frame
            padded = F.pad(frames, (0, 0, 0, 0, 0, 0, 0, window - 1))
            starts = range(frames.shape[1])
            x = torch.cat(
                [self._feature_map(padded[:, i : i + window]).mean((2, 3, 4), keepdim=True) for i in starts], 2
            )
        grid = x.flatten(2).transpose(1, 2)
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), Layout(*x.shape[2:]))

    def _feature_map(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B D t h w"]:
        """The last feature map of the network."""
        x = torch.relu(self.bn1(self.conv1(frames.transpose(1, 2))))
        x = F.max_pool3d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features, with the hash of the current weights."""
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


def _resized_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after the shorter side was resized to `size`."""
    return (size, size * width // height) if height <= width else (size * height // width, size)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict of a 3-D ResNet, without its classifier.  Raises ValueError."""
    tensors = read_state_dict(path, "a 3-D ResNet")
    return {key: value for key, value in tensors.items() if key not in CLASSIFIER}


def load_weights(net: ResNet3D, tensors: dict[str, Tensor], source: str) -> None:
    """Load a state dict strictly.  Raises ValueError that names the network to which the weights belong."""
    counters = {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    state = counters | tensors  # weights of torch < 0.4.1 have no counters
    missing, unknown, shapes = state_dict_differences(net, state)
    if missing or unknown or shapes:
        inferred, config = infer_config(tensors), net.config
        raise ValueError(
            f"encoder.source {source} has depth {inferred.depth}, width {inferred.width}, "
            f"shortcut {inferred.shortcut}; the encoder has {config.depth}, {config.width}, {config.shortcut}: "
            f"missing {missing[:6]}; unknown {unknown[:6]}; shapes {shapes[:3]}"
        )
    net.load_state_dict(state)


def infer_config(tensors: dict[str, Tensor]) -> ResNet3DConfig:
    """Infer the config of a frozen 3-D ResNet from a state dict.  Raises ValueError.

    The stride in time, the image size and the normalisation cannot be inferred from the weights; they get the
    defaults.
    """
    counts = tuple(len({key.split(".")[1] for key in tensors if key.startswith(f"layer{n}.")}) for n in range(1, 5))
    block = BottleneckBlock3D if "layer1.0.conv3.weight" in tensors else BasicBlock3D
    depths: list[Any] = [depth for depth, stages in DEPTHS.items() if stages == (block, counts)]
    if not depths or "conv1.weight" not in tensors or tensors["conv1.weight"].dim() != 5:
        raise ValueError(
            f"not a 3-D ResNet: blocks per stage are {list(counts)}, or conv1.weight is missing or not a kernel"
        )
    shortcut: Literal["A", "B"] = "B" if "layer2.0.downsample.0.weight" in tensors else "A"
    width = len(tensors["conv1.weight"])
    return ResNet3DConfig(depth=depths[0], width=width, shortcut=shortcut, trainable_from=None)
