"""Regions from raw pictures: the objects that a DETR (Carion et al. 2020, arXiv:2005.12872) of `transformers` found.

A cell is the decoder's output for one of its queries, which says what lies in a box; its box is the one it predicts.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor

from limner.encoders.encoder import Encoder
from limner.encoders.pretrained import weights_sha256
from limner.ranges import Count
from limner.types import Features, Layout, Pixels


@dataclass(frozen=True)
class DetectorConfig:
    """`source` is a local folder or a hub id of a DETR; its weights are frozen."""

    name: Literal["detector"] = "detector"
    source: str = ""
    regions: Count = 36  # the surest ones of every picture
    size: Count = 480  # pixels of a side: pictures are squashed to a square, so that they share batches


class Detector(Encoder):
    def __init__(self, config: DetectorConfig) -> None:
        """Raises ValueError when the source cannot be loaded or has fewer queries than `regions`."""
        super().__init__()
        from transformers import AutoConfig, AutoImageProcessor, DetrForObjectDetection

        self.config = config
        if not config.source:
            raise ValueError("encoder.source is empty; give a local folder with config.json and weights, or a hub id")
        try:
            kind = AutoConfig.from_pretrained(config.source).model_type
            if kind != "detr":
                raise ValueError(f"it is a {kind!r} model, no DETR")
            self.processor: Any = AutoImageProcessor.from_pretrained(config.source, backend="pil")
            loaded: Any = DetrForObjectDetection.from_pretrained(
                config.source, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"encoder.source {config.source}: {str(error).splitlines()[0]}") from error
        net, report = loaded
        absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if absent:
            raise ValueError(f"{config.source} lacks weights of a DETR ({len(absent)} missing, e.g. {absent[:3]})")
        if net.config.num_queries < config.regions:
            raise ValueError(f"{config.source} finds {net.config.num_queries} regions, not {config.regions}")
        self.net: Any = net.requires_grad_(False)
        self.dim: int = net.config.d_model
        self.eval()

    def train(self, mode: bool = True) -> "Detector":
        """It stays in evaluation: nothing of it is trained."""
        return super().train(False)

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB [0, 255] frames -> squashed to a square, and normalised as the folder's preprocessor_config.json says."""
        read = self.processor(
            images=[np.ascontiguousarray(frame) for frame in frames],
            size={"height": self.config.size, "width": self.config.size},
            input_data_format="channels_last",
            do_pad=False,
            return_tensors="pt",
        )
        pixels: Tensor = read["pixel_values"]
        return pixels

    def forward(self, pixels: Pixels) -> Features:
        """(B, T, 3, h, w) -> the surest regions of every frame, surest first, layout (T, 1, N); boxes are relative."""
        b, t = pixels.frames.shape[:2]
        found = self.net(pixels.frames.flatten(0, 1))
        sure = found.logits.softmax(-1)[..., :-1].amax(-1)  # the last class is "no object"
        chosen = sure.topk(self.config.regions).indices.unsqueeze(-1)
        grid = found.last_hidden_state.gather(1, chosen.expand(-1, -1, self.dim))
        centre, extent = found.pred_boxes.gather(1, chosen.expand(-1, -1, 4)).chunk(2, -1)
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], -1).clamp(0, 1)
        cells = (b, t * self.config.regions)
        mask = torch.ones(cells, dtype=torch.bool, device=grid.device)
        layout = Layout(t, 1, self.config.regions)
        return Features(grid.reshape(*cells, self.dim), mask, layout, boxes.reshape(*cells, 4))

    def provenance(self) -> dict[str, Any]:
        return {
            "name": self.config.name,
            "source": self.config.source,
            "sha256": weights_sha256(self.net),
            "regions": self.config.regions,
            "size": self.config.size,
            "mean": list(self.processor.image_mean),
            "std": list(self.processor.image_std),
            "dim": self.dim,
        }
