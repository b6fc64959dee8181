"""Pretrained vision backbones of `transformers` as encoders: the last feature map or the patch tokens, not pooled."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from limner import shipped
from limner.core.addresses import refuse_address
from limner.core.hub import fetch_transformers_model, is_hub_id
from limner.core.temporaries import temporary_folder
from limner.core.types import Features, Layout, Pixels
from limner.encoders.encoder import Encoder
from limner.encoders.trained import is_run, load_trained_weights
from limner.encoders.video import clip_cells


@dataclass(frozen=True)
class PretrainedConfig:
    """Which backbone to load, and which of its blocks are trained.

    `source` is a local folder, a hub id, or a run or model that has such an encoder inside.  `trainable_from` None
    freezes everything; k trains the blocks from index k on (a negative k counts from the end) and every layer after
    them; 0 trains everything.
    """

    name: Literal["pretrained"] = "pretrained"
    source: str = ""
    trainable_from: int | None = None  # first trained block; null: none is trained
    freeze_statistics: bool = False  # BatchNorm keeps its statistics in trained blocks too (small batches)


class BackboneFamily(NamedTuple):
    """How one architecture of `transformers` is loaded and how its output is read."""

    model: str  # name of its class in `transformers`
    tokens: bool  # True: tokens (B, prefix + h*w, D), CLS and registers first; False: a map (B, D, h, w)
    interpolates: bool = False  # other image sizes need the option `interpolate_pos_encoding`
    # Parts that only make the pooled output.  They are removed, because their weights would never have a gradient.
    unused: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    reads_clips: bool = False  # encodes several frames together, see limner.encoders.video


BACKBONES: dict[str, BackboneFamily] = {
    "resnet": BackboneFamily("ResNetModel", tokens=False),
    "mobilenet_v2": BackboneFamily("MobileNetV2Model", tokens=False),
    "convnext": BackboneFamily("ConvNextModel", tokens=False, unused=("layernorm",)),
    "convnextv2": BackboneFamily("ConvNextV2Model", tokens=False, unused=("layernorm",)),
    "vit": BackboneFamily("ViTModel", tokens=True, interpolates=True, options=(("add_pooling_layer", False),)),
    "dinov2": BackboneFamily("Dinov2Model", tokens=True),
    "dinov2_with_registers": BackboneFamily("Dinov2WithRegistersModel", tokens=True),
    "clip": BackboneFamily("CLIPVisionModel", tokens=True, interpolates=True, unused=("post_layernorm",)),
    "clip_vision_model": BackboneFamily("CLIPVisionModel", tokens=True, interpolates=True, unused=("post_layernorm",)),
    "siglip": BackboneFamily("SiglipVisionModel", tokens=True, interpolates=True, unused=("head",)),
    "siglip_vision_model": BackboneFamily("SiglipVisionModel", tokens=True, interpolates=True, unused=("head",)),
    "videomae": BackboneFamily("VideoMAEModel", tokens=True, reads_clips=True),
    "timesformer": BackboneFamily("TimesformerModel", tokens=True, reads_clips=True),
}


class Pretrained(Encoder):
    """Pretrained backbone with its own preprocessing.

    The cells are the last feature map of a CNN or the patch tokens of a vision transformer.  Video models encode clips
    of a fixed number of frames to cells (T', h, w).
    """

    def __init__(self, config: PretrainedConfig) -> None:
        """Load the backbone.

        Raises ValueError when the source is missing, incomplete, not supported, or has too few blocks.
        """
        super().__init__()
        self.config = config
        self.family, self.backbone, self.processor = _load_pretrained(config.source)
        if is_run(config.source):
            load_trained_weights(self, config.source)
        self.dim = _output_channels(self.backbone)
        if not self.family.tokens:
            # twice as fast on a CPU (MobileNetV2 on 2 cores: 25 ms per image instead of 55); results differ by < 1e-5
            self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._set_trainable(config.trainable_from)
        self.train(self.training)

    def blocks(self) -> list[nn.Module]:
        """The repeated blocks of the backbone from first to last, over all stages."""
        repeated = next(
            module for module in self.backbone.modules() if isinstance(module, nn.ModuleList) and len(module)
        )
        return [block for part in repeated for block in getattr(part, "layers", [part])]

    def _set_trainable(self, first: int | None) -> None:
        """Train the blocks from index `first` on and all modules after them; freeze the modules before.

        This relies on the order of definition, which is the order of computation in all supported backbones.
        """
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
            block = blocks[first]
            start = 0 if first in (0, -len(blocks)) else next(i for i, module in enumerate(modules) if module is block)
        trained = {id(module) for module in modules[start:]}
        containers = (  # modules before the first trained block that hold trained ones, for example the whole backbone
            set() if first is None else {id(m) for m in modules[:start] if any(id(c) in trained for c in m.modules())}
        )
        self._frozen = [module for module in modules[:start] if id(module) not in containers]
        for module in modules:
            for name, parameter in module.named_parameters(recurse=False):
                # a mask token is only used in masked pretraining and would never have a gradient here
                parameter.requires_grad_(id(module) in trained and name != "mask_token")
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None and module.momentum > 0.5:
                # MobileNetV2 stores TensorFlow's decay .997 as momentum, so each step would replace the statistics
                module.momentum = 1 - module.momentum

    def train(self, mode: bool = True) -> "Pretrained":
        """Set the mode; frozen parts stay in evaluation mode (no dropout, fixed BatchNorm statistics)."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        if self.config.freeze_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.training = False
        return self

    def reading_side(self) -> int:
        """The shorter side that preprocessor_config.json asks for."""
        return processor_side(self.processor)

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize, crop and normalise uint8 RGB frames as the folder's preprocessor_config.json says."""
        images = [np.ascontiguousarray(frame) for frame in frames]
        pixels = self.processor(images=images, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
        return pixels[0] if self.family.reads_clips else pixels

    def kept_region(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of the image that the central crop after resizing keeps, as relative xyxy."""
        from transformers.image_transforms import get_size_with_aspect_ratio

        settings = _preprocessing_settings(self.processor)
        size = settings["size"] if settings.get("do_resize") else {}
        crop = settings["crop_size"] if settings.get("do_center_crop") else {}
        edge = size.get("shortest_edge")
        if edge and "crop_pct" in settings:  # ConvNeXT's processor crops for edges below 384 and resizes from 384 on
            crop = {"height": edge, "width": edge} if edge < 384 else {}
            size, edge = (size, int(edge / settings["crop_pct"])) if crop else ({}, None)
        h, w = size.get("height", height), size.get("width", width)
        if edge:
            h, w = get_size_with_aspect_ratio((height, width), edge, size.get("longest_edge"))
        crop_h, crop_w = crop.get("height", h), crop.get("width", w)
        top, left = (h - crop_h) // 2, (w - crop_w) // 2
        return left / w, top / h, (left + crop_w) / w, (top + crop_h) / h

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) to N = T*h*w cells, row-major over (t, h, w).  No cell is padding.

        Raises ValueError when a video model cannot encode this number of frames.
        """
        frames = pixels.frames
        if self.family.reads_clips:
            grid, layout = clip_cells(self.backbone, frames)
            return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), layout)
        b, t, _, height, width = frames.shape
        grid, h, w = self._encode_frames(frames.reshape(b * t, 3, height, width))
        grid = grid.reshape(b, t * h * w, self.dim)
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), Layout(t, h, w))

    def _encode_frames(self, frames: Float[Tensor, "F 3 H W"]) -> tuple[Float[Tensor, "F n D"], int, int]:
        """Encode each frame by itself -> its n = h*w cells, h and w."""
        if not self.family.tokens:
            feature_map = self.backbone(frames.contiguous(memory_format=torch.channels_last)).last_hidden_state
            return feature_map.flatten(2).transpose(1, 2), feature_map.shape[2], feature_map.shape[3]
        height, width = frames.shape[-2:]
        config: Any = self.backbone.config
        options = {}
        if self.family.interpolates and (height, width) != _pair(config.image_size):
            options["interpolate_pos_encoding"] = True
        tokens = self.backbone(frames, **options).last_hidden_state
        patch_h, patch_w = _pair(config.patch_size)
        h, w = height // patch_h, width // patch_w
        return tokens[:, -h * w :], h, w  # leaves out the CLS and register tokens, which come first

    def save(self, folder: str | Path) -> None:
        """Write config, weights and preprocessing to a folder that `PretrainedConfig(source=folder)` can load.

        Parts that the cells do not need (pooling, text) are left out.
        """
        save_parts(folder, self.backbone, self.processor)

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features.  The hash is of the current weights, so training changes it."""
        folder = Path(self.config.source).expanduser()
        return {
            "name": self.config.name,
            "source": folder.resolve().name if folder.is_dir() else self.config.source,
            "architecture": type(self.backbone).__name__,
            "sha256": weights_sha256(self.backbone),
            "preprocessing": _preprocessing_settings(self.processor),
            "dim": self.dim,
        }


def save_parts(folder: str | Path, net: Any, processor: Any) -> None:
    """Write a network of `transformers` and its image processor to a folder that `from_pretrained` can load."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder, "saving") as work:
        temporary = work / "model"
        with quiet_transformers():
            net.save_pretrained(temporary)
            processor.save_pretrained(temporary)
        # config.json is moved last: without it, an incomplete folder cannot be mistaken for a complete one
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)


def weights_sha256(module: nn.Module) -> str:
    """Hex digest of the names, shapes and values of all tensors, in the order of their names.

    It does not depend on the device, on the float type of the file or on the file format.
    """
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        tensor = value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_pretrained(source: str) -> tuple[BackboneFamily, nn.Module, Any]:
    """Load a backbone -> its family, the network and its image processor.  Raises ValueError."""
    import transformers  # imported here because it takes 3 s

    location, hint = resolve_source(source)
    try:
        kind = transformers.AutoConfig.from_pretrained(location, trust_remote_code=False).model_type
        # backend "pil": the variant for torchvision is not needed, and a broken torchvision must not matter
        processor = (
            transformers.AutoImageProcessor.from_pretrained(location, backend="pil", trust_remote_code=False)
            if kind in BACKBONES
            else None
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    if kind not in BACKBONES:
        raise ValueError(f"encoder.source {source} is a {kind!r} model; supported are {', '.join(BACKBONES)}")
    family = BACKBONES[kind]
    try:
        with quiet_transformers():
            backbone, report = getattr(transformers, family.model).from_pretrained(
                location, dtype=torch.float32, output_loading_info=True, **dict(family.options)
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
            f"{source} lacks weights of {family.model} ({len(missing)} missing, e.g. {missing[:3]}; wrong shape: "
            f"{sorted(map(str, report['mismatched_keys']))[:3]}), so features would be random: "
            "give a complete checkpoint"
        )
    return family, backbone, processor


def resolve_source(source: str) -> tuple[str, str]:
    """The path or hub id that `transformers` should open, and a hint for the user when it cannot.

    Raises ValueError when `source` is empty or a path without a model folder.
    """
    if not source:
        raise ValueError("encoder.source is empty; give a local folder with config.json and weights, or a hub id")
    refuse_address(source)
    local = shipped.folder_of(source)
    if local.is_dir():
        if is_run(source) and (local / "encoder").is_dir():
            local = local / "encoder"
        if not (local / "config.json").is_file():
            raise ValueError(f"encoder.source {source}: the folder has no config.json; give one saved by transformers")
        return str(local), "the folder needs an undamaged config.json, preprocessor_config.json and model.safetensors"
    if local.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ValueError(
            f"encoder.source: {source} is not a folder; give a folder with config.json and weights, or a hub id"
        )
    hint = "it is neither a local folder nor reachable on the hub; without network give a local folder"
    if not is_hub_id(source):  # an old repository without an owner
        return source, hint
    try:
        return str(fetch_transformers_model(source, "a local folder")), hint
    except ValueError as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error.__cause__).splitlines()[0]})") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence `transformers` while it loads or saves: no progress bars, no report of weights left out on purpose."""
    import transformers

    logging: Any = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _output_channels(backbone: nn.Module) -> int:
    """Number of channels of the last map or of a token."""
    if hasattr(backbone, "conv_1x1"):  # the config of MobileNetV2 does not hold it
        return backbone.conv_1x1.convolution.out_channels  # type: ignore[union-attr, return-value]
    config: Any = backbone.config
    return config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size


def _pair(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """A side or a pair of sides -> (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def processor_side(processor: Any) -> int:
    """The length in pixels to which an image processor resizes the shorter side, or more; 0 if it does not resize."""
    settings = _preprocessing_settings(processor)
    lengths = [int(length) for length in (settings.get("size") or {}).values() if length]
    # ConvNeXT's processor resizes to a little more than the size, and crops
    return ceil(max(lengths) / settings.get("crop_pct", 1)) if settings.get("do_resize") and lengths else 0


def _preprocessing_settings(processor: Any) -> dict[str, Any]:
    """The settings of an image processor that change pixels, as JSON values."""
    keys = ("size", "crop_size", "crop_pct", "resample", "rescale_factor", "image_mean", "image_std")
    settings = json.loads(processor.to_json_string())
    selected = {key: settings[key] for key in sorted(settings) if key.startswith("do_") or key in keys}
    selected.pop("do_reduce_labels", None)  # concerns segmentation maps only
    present = {key: value for key, value in selected.items() if value is not None}
    return {"processor": type(processor).__name__.removesuffix("Pil"), **present}
