"""A vector per frame from CLIP (arXiv:2103.00020): its projected image embedding, what CLIP compares with sentences.

B/32 and B/16 give 512 channels, L/14 768, as `encode_image` does: after the projection, not normalised.  The cells of a
clip are its frames, layout (T, 1, 1); `pretrained` gives CLIP's patches instead.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from limner.core.types import Features, Layout, Pixels
from limner.encoders.encoder import Encoder
from limner.encoders.pretrained import Family, Pretrained, PretrainedConfig, _quiet, _where

CLIP = Family("CLIPVisionModelWithProjection", tokens=True, resizes=True)


@dataclass(frozen=True)
class ClipFramesConfig(PretrainedConfig):
    """`source`: a local folder or a hub id such as openai/clip-vit-base-patch32."""

    name: Literal["clip_frames"] = "clip_frames"  # type: ignore[assignment]


class ClipFrames(Pretrained):
    """Preprocessing, freezing and provenance are those of `Pretrained`; a frame is one cell."""

    def __init__(self, config: ClipFramesConfig) -> None:
        """Raises ValueError when the source is missing, incomplete, or no CLIP model."""
        Encoder.__init__(self)
        self.config, self.family = config, CLIP
        self.backbone, self.processor = _load(config.source)
        backbone_config: Any = self.backbone.config
        self.dim = backbone_config.projection_dim
        self._learn_from(config.trainable_from)
        self.train(self.training)

    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, H, W) -> N = T cells, all real."""
        b, t = pixels.frames.shape[:2]
        config: Any = self.backbone.config
        options = {}
        if pixels.frames.shape[-2:] != (config.image_size, config.image_size):
            options["interpolate_pos_encoding"] = True
        grid = self.backbone(pixels.frames.flatten(0, 1), **options).image_embeds.unflatten(0, (b, t))
        return Features(grid, torch.ones(b, t, dtype=torch.bool, device=grid.device), Layout(t, 1, 1))


def _load(source: str) -> tuple[nn.Module, Any]:
    import transformers  # 3 s, and only encoders need it

    where, hint = _where(source)
    backbone: nn.Module
    report: dict[str, Any]
    try:
        config = transformers.AutoConfig.from_pretrained(where)
        if config.model_type not in ("clip", "clip_vision_model"):
            raise ValueError(
                f"it is a {config.model_type!r} model, but clip_frames reads CLIP; use pretrained for others"
            )
        vision = config.vision_config if config.model_type == "clip" else config
        vision.projection_dim = config.projection_dim  # the vision part's own is not always told
        processor = transformers.AutoImageProcessor.from_pretrained(where, backend="pil")
        with _quiet(transformers):
            backbone, report = transformers.CLIPVisionModelWithProjection.from_pretrained(
                where, config=vision, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        raise ValueError(
            f"{source} lacks weights of CLIP's image side ({len(missing)} missing, e.g. {missing[:3]}; of another "
            f"shape: {sorted(map(str, report['mismatched_keys']))[:3]}); features would be random"
        )
    return backbone, processor
