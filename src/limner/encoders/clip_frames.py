"""CLIP frame encoder: one image embedding per frame (Radford et al. 2021, arXiv:2103.00020).

The embedding is the projected one that CLIP compares with sentences, not normalised, as `encode_image` of OpenAI's code
returns it: 512 channels for B/32 and B/16, 768 for L/14.  Each frame is one cell, so the layout is (T, 1, 1).  To get
CLIP's patches as cells, use the encoder `pretrained`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from limner.core.types import Features, Layout, Pixels
from limner.encoders.encoder import Encoder
from limner.encoders.pretrained import BackboneFamily, Pretrained, PretrainedConfig, quiet_transformers, resolve_source

CLIP = BackboneFamily("CLIPVisionModelWithProjection", tokens=True, interpolates=True)


@dataclass(frozen=True)
class ClipFramesConfig(PretrainedConfig):
    """Which CLIP model to load: `source` is a local folder or a hub id, for example openai/clip-vit-base-patch32."""

    name: Literal["clip_frames"] = "clip_frames"  # type: ignore[assignment]


class ClipFrames(Pretrained):
    """CLIP encoder that makes one cell per frame.

    Preprocessing, freezing and provenance work as in `Pretrained`.
    """

    def __init__(self, config: ClipFramesConfig) -> None:
        """Load CLIP.  Raises ValueError when the source is missing, incomplete, or not a CLIP model."""
        Encoder.__init__(self)
        self.config, self.family = config, CLIP
        self.backbone, self.processor = _load_clip(config.source)
        backbone_config: Any = self.backbone.config
        self.dim = backbone_config.projection_dim
        self._set_trainable(config.trainable_from)
        self.train(self.training)

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, H, W) to N = T cells.  No cell is padding."""
        b, t = pixels.frames.shape[:2]
        config: Any = self.backbone.config
        options = {}
        if pixels.frames.shape[-2:] != (config.image_size, config.image_size):
            options["interpolate_pos_encoding"] = True
        grid = self.backbone(pixels.frames.flatten(0, 1), **options).image_embeds.unflatten(0, (b, t))
        return Features(grid, torch.ones(b, t, dtype=torch.bool, device=grid.device), Layout(t, 1, 1))


def _load_clip(source: str) -> tuple[nn.Module, Any]:
    """Load the image encoder of a CLIP model -> the network and its image processor.  Raises ValueError."""
    import transformers  # imported here because it takes 3 s

    location, hint = resolve_source(source)
    backbone: nn.Module
    report: dict[str, Any]
    try:
        config = transformers.AutoConfig.from_pretrained(location, trust_remote_code=False)
        if config.model_type not in ("clip", "clip_vision_model"):
            raise ValueError(
                f"it is a {config.model_type!r} model, but clip_frames reads CLIP; use pretrained for others"
            )
        vision = config.vision_config if config.model_type == "clip" else config
        vision.projection_dim = config.projection_dim  # the vision config does not always hold it
        processor = transformers.AutoImageProcessor.from_pretrained(location, backend="pil", trust_remote_code=False)
        with quiet_transformers():
            backbone, report = transformers.CLIPVisionModelWithProjection.from_pretrained(
                location, config=vision, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        raise ValueError(
            f"{source} lacks weights of CLIP's image encoder ({len(missing)} missing, e.g. {missing[:3]}; wrong "
            f"shape: {sorted(map(str, report['mismatched_keys']))[:3]}), so features would be random: "
            "give a complete checkpoint"
        )
    return backbone, processor
