"""Pretrained vision backbones of `transformers`, from a local folder or the hub: their last grid, never pooled."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from limner.core.types import Features, Layout, Pixels
from limner.encoders.encoder import Encoder
from limner.encoders.video import clip_cells


@dataclass(frozen=True)
class PretrainedConfig:
    """Which backbone, and how much of it is trained.

    `source` is a local folder or a hub id.  `trainable_from` None freezes everything; k trains the blocks from index k
    on (negative counts from the end) and all that follows them; 0 trains everything.
    """

    name: Literal["pretrained"] = "pretrained"
    source: str = ""
    trainable_from: int | None = None  # first trained block; null: none is trained
    freeze_statistics: bool = False  # BatchNorm keeps its statistics in trained blocks too (small batches)


class Family(NamedTuple):
    """How one architecture of `transformers` is loaded and read."""

    model: str  # class name
    tokens: bool  # True: (B, prefix + h*w, D) tokens with CLS/registers in front; False: a (B, D, h, w) map
    resizes: bool = False  # its position table is stretched on demand by `interpolate_pos_encoding`
    unused: tuple[
        str, ...
    ] = ()  # parts that only serve the pooled output; dropped, so that every weight left has a gradient
    options: tuple[tuple[str, Any], ...] = ()
    clips: bool = False  # reads several frames together; see limner.encoders.video


FAMILIES: dict[str, Family] = {
    "resnet": Family("ResNetModel", tokens=False),
    "mobilenet_v2": Family("MobileNetV2Model", tokens=False),
    "convnext": Family("ConvNextModel", tokens=False, unused=("layernorm",)),
    "convnextv2": Family("ConvNextV2Model", tokens=False, unused=("layernorm",)),
    "vit": Family("ViTModel", tokens=True, resizes=True, options=(("add_pooling_layer", False),)),
    "dinov2": Family("Dinov2Model", tokens=True),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", tokens=True),
    "clip": Family("CLIPVisionModel", tokens=True, resizes=True, unused=("post_layernorm",)),
    "clip_vision_model": Family("CLIPVisionModel", tokens=True, resizes=True, unused=("post_layernorm",)),
    "siglip": Family("SiglipVisionModel", tokens=True, resizes=True, unused=("head",)),
    "siglip_vision_model": Family("SiglipVisionModel", tokens=True, resizes=True, unused=("head",)),
    "videomae": Family("VideoMAEModel", tokens=True, clips=True),
    "timesformer": Family("TimesformerModel", tokens=True, clips=True),
}


class Pretrained(Encoder):
    """A backbone with its own preprocessing.  CNNs yield their last map, ViT-like models their patch tokens; video
    models read clips of a fixed number of frames and yield cells (T', h, w)."""

    def __init__(self, config: PretrainedConfig) -> None:
        """Raises ValueError when the source is missing, incomplete, of an unsupported kind, or has too few blocks."""
        super().__init__()
        self.config = config
        self.family, self.backbone, self.processor = _load(config.source)
        self.dim = _width(self.backbone)
        if not self.family.tokens:
            # twice as fast on a CPU (MobileNetV2: 25 against 55 ms a picture on 2 cores), equal to 1e-5
            self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._learn_from(config.trainable_from)
        self.train(self.training)

    def blocks(self) -> list[nn.Module]:
        """The backbone's repeated blocks, first to last; stages are laid end to end."""
        repeated = next(
            module for module in self.backbone.modules() if isinstance(module, nn.ModuleList) and len(module)
        )
        return [block for part in repeated for block in getattr(part, "layers", [part])]

    def _learn_from(self, first: int | None) -> None:
        """Split the modules, in the order of definition (and of computation), into frozen and trained ones."""
        modules = list(self.backbone.modules())
        if first is None:
            start = len(modules)
        else:
            blocks = self.blocks()
            if not -len(blocks) <= first < len(blocks):
                raise ValueError(
                    f"trainable_from is {first}, but {self.config.source} has {len(blocks)} blocks: "
                    f"give {-len(blocks)} .. {len(blocks) - 1}, or null to freeze it"
                )
            chosen = blocks[first]
            start = 0 if first in (0, -len(blocks)) else next(i for i, module in enumerate(modules) if module is chosen)
        learned = {id(module) for module in modules[start:]}
        around = (
            set() if first is None else {id(m) for m in modules[:start] if any(id(c) in learned for c in m.modules())}
        )
        self._frozen = [module for module in modules[:start] if id(module) not in around]
        for module in modules:
            for name, parameter in module.named_parameters(recurse=False):
                # a mask token belongs to masked pretraining and never sees a gradient here
                parameter.requires_grad_(id(module) in learned and name != "mask_token")
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None and module.momentum > 0.5:
                # MobileNetV2 has TensorFlow's decay .997 for PyTorch's momentum: each step would replace the statistics
                module.momentum = 1 - module.momentum

    def train(self, mode: bool = True) -> "Pretrained":
        """As usual, but frozen parts stay in evaluation: no dropout, no new BatchNorm statistics."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        if self.config.freeze_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.training = False
        return self

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB [0, 255] frames -> resized, cropped and normalised as the folder's preprocessor_config.json says."""
        images = [np.ascontiguousarray(frame) for frame in frames]
        pixels = self.processor(images=images, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
        return pixels[0] if self.family.clips else pixels

    def kept_region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The whole picture, or what the central crop of its resized copy leaves of it."""
        from transformers.image_transforms import get_size_with_aspect_ratio

        settings = _preprocessing(self.processor)
        size = settings["size"] if settings.get("do_resize") else {}
        crop = settings["crop_size"] if settings.get("do_center_crop") else {}
        edge = size.get("shortest_edge")
        if edge and "crop_pct" in settings:  # ConvNeXT's processor: a crop for small sides, from 384 on the whole
            crop = {"height": edge, "width": edge} if edge < 384 else {}
            size, edge = (size, int(edge / settings["crop_pct"])) if crop else ({}, None)
        h, w = size.get("height", height), size.get("width", width)
        if edge:
            h, w = get_size_with_aspect_ratio((height, width), edge, size.get("longest_edge"))
        crop_h, crop_w = crop.get("height", h), crop.get("width", w)
        top, left = (h - crop_h) // 2, (w - crop_w) // 2
        return left / w, top / h, (left + crop_w) / w, (top + crop_h) / h

    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, H, W) -> N = T*h*w cells, row-major over (t, h, w), all real.  Raises ValueError when a video model
        cannot read so many frames."""
        frames = pixels.frames
        if self.family.clips:
            grid, layout = clip_cells(self.backbone, frames)
            return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), layout)
        b, t, _, height, width = frames.shape
        grid, h, w = self._cells(frames.reshape(b * t, 3, height, width))
        grid = grid.reshape(b, t * h * w, self.dim)
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), Layout(t, h, w))

    def _cells(self, frames: Float[Tensor, "F 3 H W"]) -> tuple[Float[Tensor, "F n D"], int, int]:
        if not self.family.tokens:
            feature_map = self.backbone(frames.contiguous(memory_format=torch.channels_last)).last_hidden_state
            return feature_map.flatten(2).transpose(1, 2), feature_map.shape[2], feature_map.shape[3]
        height, width = frames.shape[-2:]
        config: Any = self.backbone.config
        options = {}
        if self.family.resizes and (height, width) != _pair(config.image_size):
            options["interpolate_pos_encoding"] = True
        tokens = self.backbone(frames, **options).last_hidden_state
        patch_h, patch_w = _pair(config.patch_size)
        h, w = height // patch_h, width // patch_w
        return tokens[:, -h * w :], h, w  # CLS and register tokens come first

    def save(self, folder: str | Path) -> None:
        """Write config, weights and preprocessing to a folder that `PretrainedConfig(source=folder)` loads again.

        What the cells do not need (pooling and text parts) is left out.
        """
        save_parts(folder, self.backbone, self.processor)

    def provenance(self) -> dict[str, Any]:
        """Where features come from; the hash follows the weights as they are now, so a trained encoder differs."""
        folder = Path(self.config.source).expanduser()
        return {
            "name": self.config.name,
            "source": folder.resolve().name if folder.is_dir() else self.config.source,
            "architecture": type(self.backbone).__name__,
            "sha256": weights_sha256(self.backbone),
            "preprocessing": _preprocessing(self.processor),
            "dim": self.dim,
        }


def save_parts(folder: str | Path, net: Any, processor: Any) -> None:
    """A network of `transformers` and its image processor, as `from_pretrained` reads them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
        net.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        # config.json last: without it the folder cannot be taken for a whole one
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)


def weights_sha256(module: nn.Module) -> str:
    """Hex digest over names, shapes and values in key order: the same however and wherever the weights are stored."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        plain = value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()
        digest.update(f"{key} {tuple(plain.shape)} {plain.dtype}\n".encode())
        digest.update(plain.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load(source: str) -> tuple[Family, nn.Module, Any]:
    import transformers  # 3 s, and only this encoder needs it

    where, hint = _where(source)
    try:
        kind = transformers.AutoConfig.from_pretrained(where).model_type
        # the torchvision twins of these classes are never needed, and a broken torchvision must not matter
        processor = transformers.AutoImageProcessor.from_pretrained(where, backend="pil") if kind in FAMILIES else None
    except (OSError, ValueError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    if kind not in FAMILIES:
        raise ValueError(f"encoder.source {source} is a {kind!r} model; supported are {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    try:
        with _quiet(transformers):
            backbone, report = getattr(transformers, family.model).from_pretrained(
                where, dtype=torch.float32, output_loading_info=True, **dict(family.options)
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    for part in family.unused:
        if hasattr(backbone, part):
            setattr(backbone, part, nn.Identity())
    if hasattr(backbone, "use_head"):
        backbone.use_head = False
    missing = sorted(set(report["missing_keys"]) & set(backbone.state_dict()))
    if missing or report["mismatched_keys"]:
        raise ValueError(
            f"{source} lacks weights of {family.model} ({len(missing)} missing, e.g. {missing[:3]}; of another shape: "
            f"{sorted(map(str, report['mismatched_keys']))[:3]}); features would be random"
        )
    return family, backbone, processor


def _where(source: str) -> tuple[str, str]:
    """What `transformers` is to open, and what to tell the user when it cannot."""
    if not source:
        raise ValueError("encoder.source is empty; give a local folder with config.json and weights, or a hub id")
    local = Path(source).expanduser()
    if local.is_dir():
        if not (local / "config.json").is_file():
            raise ValueError(f"encoder.source {source}: the folder has no config.json; give one saved by transformers")
        return str(local), "the folder needs config.json, preprocessor_config.json and model.safetensors, undamaged"
    if local.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ValueError(
            f"encoder.source: {source} is no folder; give a folder with config.json and weights, or a hub id"
        )
    return source, "it is neither a local folder nor reachable on the hub; without network give a local folder"


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Classifier weights are left out on purpose: no report about them, no progress bar."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _width(backbone: nn.Module) -> int:
    if hasattr(backbone, "conv_1x1"):  # MobileNetV2 does not name its last width
        return backbone.conv_1x1.convolution.out_channels  # type: ignore[union-attr, return-value]
    config: Any = backbone.config
    return config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size


def _pair(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _preprocessing(processor: Any) -> dict[str, Any]:
    """The settings that change pixels, as plain JSON values."""
    keys = ("size", "crop_size", "crop_pct", "resample", "rescale_factor", "image_mean", "image_std")
    settings = json.loads(processor.to_json_string())
    kept = {key: settings[key] for key in sorted(settings) if key.startswith("do_") or key in keys}
    kept.pop("do_reduce_labels", None)  # about segmentation maps
    plain = {key: value for key, value in kept.items() if value is not None}
    return {"processor": type(processor).__name__.removesuffix("Pil"), **plain}
