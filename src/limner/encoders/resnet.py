"""ResNet (He et al. 2016, arXiv:1512.03385) and ResNeXt (Xie et al. 2017, arXiv:1611.05431) encoders.

Parameters have the names of torchvision, so its ImageNet weights and the encoders of older captioning checkpoints can
be loaded.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.types import Features, Pixels
from limner.encoders.encoder import maps_to_features, resize_to_square
from limner.encoders.freezing import FourStageEncoder
from limner.encoders.pretrained import weights_sha256
from limner.encoders.trained import load_trained_encoder

MEAN, STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet; applied to channels 0, 1, 2 in RGB and in BGR order
PLANES = (64, 128, 256, 512)  # base channels of the four stages


@dataclass(frozen=True)
class ResNetConfig:
    """Size, input and trained part of a ResNet.

    ResNet-101 has `blocks` (3, 4, 23, 3); ResNeXt-101 32x8d has the same blocks with `groups` 32 and `width_per_group`
    8.  `trainable_from` k trains the blocks from index k on, counted over all stages (a negative k counts from the
    end); 0 trains everything, None freezes everything, as `limner convert` does.  `source` is a run whose encoder
    weights are loaded; "" leaves the weights random.
    """

    name: Literal["resnet"] = "resnet"
    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    kind: Literal["bottleneck", "basic"] = "bottleneck"  # of residual block
    groups: int = 1  # of the 3x3 convolutions; ResNeXt has several
    width_per_group: int = 64  # channels of a group in the first stage
    pool: int = 14  # cells are averaged adaptively to pool x pool; 0 = the last map as it is
    size: int = 256  # side of the square input in pixels
    channels: Literal["RGB", "BGR"] = "RGB"  # order in which the weights read an image; see `preprocess`
    trainable_from: int | None = 0
    source: str = ""


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class BottleneckBlock(nn.Module):
    """Residual block of a 1x1, a grouped 3x3 and a 1x1 convolution.

    The 3x3 convolution has the stride, as in torchvision; in the paper the first 1x1 has it.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, width_per_group: int) -> None:
        super().__init__()
        width, outputs = planes * width_per_group // 64 * groups, planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The 1x1 convolution that matches shapes on the shortcut, or None where they match already."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(FourStageEncoder):
    """ResNet encoder of stride 32: 256 x 256 pixels give an 8 x 8 map, pooled to `pool` x `pool` cells."""

    def __init__(self, config: ResNetConfig) -> None:
        """Random weights unless `source` names a run.  Raises ValueError for sizes that are not possible."""
        super().__init__()
        _check(config)
        self.config = config
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        stages, inputs = [], 64
        for stage, (planes, count) in enumerate(zip(PLANES, config.blocks, strict=True)):
            blocks: list[nn.Module] = []
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                block = (
                    BasicBlock(inputs, planes, stride)
                    if config.kind == "basic"
                    else BottleneckBlock(inputs, planes, stride, config.groups, config.width_per_group)
                )
                inputs = planes * block.expansion
                blocks.append(block)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dim = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        load_trained_encoder(self, config.source)
        self.freeze(config.trainable_from)
        self.train(self.training)

    def reading_side(self) -> int:
        """The side of the square input."""
        return self.config.size

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize uint8 RGB frames to size x size, scale them to [0, 1] and normalise them with ImageNet's mean and std.

        The aspect ratio is not kept.  With channels "BGR", blue comes first and is normalised with the mean and std of
        red.  The public code did this with images that OpenCV had read, so its weights expect it.
        """
        pixels = resize_to_square(frames, self.config.size) / 255
        if self.config.channels == "BGR":
            pixels = pixels.flip(1)
        return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) to T * pool * pool cells, or T * H/32 * W/32 without pooling."""
        x = torch.relu(self.bn1(self.conv1(pixels.frames.flatten(0, 1))))
        x = F.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        if self.config.pool:
            x = F.adaptive_avg_pool2d(x, self.config.pool)
        return maps_to_features(x, len(pixels.frames))

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features, with the hash of the current weights."""
        config = self.config
        shape = f"{config.kind}, {config.blocks}, {config.groups}x{config.width_per_group}d, pool={config.pool}"
        return {
            "name": config.name,
            "source": "limner",
            "architecture": f"ResNet({shape})",
            "sha256": weights_sha256(self),
            "preprocessing": {
                "size": config.size,
                "resample": "bilinear",
                "mean": list(MEAN),
                "std": list(STD),
                "channels": config.channels,
            },
            "dim": self.dim,
        }


def _check(config: ResNetConfig) -> None:
    """Raise ValueError for sizes that are not possible."""
    if min(config.blocks) < 1:
        raise ValueError(f"encoder.blocks is {config.blocks}; every stage needs at least one block")
    if config.size < 32 or config.pool < 0:
        raise ValueError(f"expected encoder.size >= 32 and encoder.pool >= 0, got {config.size} and {config.pool}")
    if config.groups < 1 or config.width_per_group < 1:
        raise ValueError(
            f"encoder.groups and width_per_group are at least 1, got {config.groups} and {config.width_per_group}"
        )
    if config.kind == "basic" and (config.groups, config.width_per_group) != (1, 64):
        raise ValueError("basic blocks need groups 1 and width_per_group 64; for other values give kind: bottleneck")


def infer_config(tensors: dict[str, Tensor], channels: Literal["RGB", "BGR"] = "RGB") -> ResNetConfig:
    """Infer the config of a frozen ResNet from a state dict with torchvision's names.  Raises ValueError.

    `size` and `pool` cannot be inferred from the weights; they get the values of the published captioner.
    """
    conv2 = tensors.get("layer1.0.conv2.weight")
    counts = [len({key.split(".")[1] for key in tensors if key.startswith(f"layer{stage}.")}) for stage in range(1, 5)]
    if conv2 is None or conv2.dim() != 4 or 0 in conv2.shape or 0 in counts:
        raise ValueError(
            f"not a ResNet: blocks per stage are {counts}, and layer1.0.conv2.weight is "
            f"{'missing' if conv2 is None else tuple(conv2.shape)}"
        )
    blocks = (counts[0], counts[1], counts[2], counts[3])
    if "layer1.0.conv3.weight" not in tensors:
        return ResNetConfig(blocks=blocks, kind="basic", channels=channels, trainable_from=None)
    outputs, width = conv2.shape[:2]
    return ResNetConfig(
        blocks=blocks, groups=outputs // width, width_per_group=width, channels=channels, trainable_from=None
    )
