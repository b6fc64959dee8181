"""Regions from raw pictures: the objects that a DETR (Carion et al. 2020, arXiv:2005.12872) of `transformers` found.

A cell is the decoder's output for one of its queries, which says what lies in a box; its box is the one it predicts.
Read alike are its children conditional DETR (arXiv:2108.06152) and deformable DETR (arXiv:2010.04159), and the Table
Transformer (arXiv:2110.00061).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor

from limner.core.fields import PositiveInt
from limner.core.types import Features, Layout, Pixels
from limner.encoders.encoder import Encoder
from limner.encoders.pretrained import _quiet, _where, save_parts, weights_sha256


@dataclass(frozen=True)
class DetectorConfig:
    """`source` is a local folder or a hub id of a detector in `DETECTORS`; its weights are frozen."""

    name: Literal["detector"] = "detector"
    source: str = ""
    regions: PositiveInt = 36  # the surest ones of every picture
    size: PositiveInt = 480  # pixels of a side: pictures are squashed to a square, so that they share batches


class Family(NamedTuple):
    """How one architecture of `transformers` is loaded, and what its scores mean."""

    model: str  # class name
    nothing: bool  # True: softmax, and the last class is "no object"; False: a sigmoid for every class


DETECTORS: dict[str, Family] = {
    "detr": Family("DetrForObjectDetection", nothing=True),
    "conditional_detr": Family("ConditionalDetrForObjectDetection", nothing=False),
    "deformable_detr": Family("DeformableDetrForObjectDetection", nothing=False),
    "table-transformer": Family("TableTransformerForObjectDetection", nothing=True),
}


class Detector(Encoder):
    def __init__(self, config: DetectorConfig) -> None:
        """Raises ValueError when the source cannot be loaded or has fewer queries than `regions`."""
        super().__init__()
        self.config = config
        self.family, net, self.processor = _load(config.source)
        sizes = net.config
        found = sizes.two_stage_num_proposals if getattr(sizes, "two_stage", False) else sizes.num_queries
        if found < config.regions:
            raise ValueError(
                f"{config.source} finds {found} regions, not {config.regions}: give encoder.regions up to {found}"
            )
        self.net: Any = net.requires_grad_(False)
        self.dim: int = sizes.d_model
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
        # a sigmoid leaves classes in their order
        scores = found.logits.softmax(-1)[..., :-1] if self.family.nothing else found.logits
        sure = scores.amax(-1)
        chosen = sure.topk(self.config.regions).indices.unsqueeze(-1)
        grid = found.last_hidden_state.gather(1, chosen.expand(-1, -1, self.dim))
        centre, extent = found.pred_boxes.gather(1, chosen.expand(-1, -1, 4)).chunk(2, -1)
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], -1).clamp(0, 1)
        cells = (b, t * self.config.regions)
        mask = torch.ones(cells, dtype=torch.bool, device=grid.device)
        layout = Layout(t, 1, self.config.regions)
        return Features(grid.reshape(*cells, self.dim), mask, layout, boxes.reshape(*cells, 4))

    def save(self, folder: str | Path) -> None:
        """Write config, weights and preprocessing to a folder that `DetectorConfig(source=folder)` loads again."""
        save_parts(folder, self.net, self.processor)

    def provenance(self) -> dict[str, Any]:
        """The hash goes over the names of the weights as well, which tell the architecture."""
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


def _load(source: str) -> tuple[Family, Any, Any]:
    """-> how it is read, the detector, and its image processor."""
    import transformers  # 3 s, and only encoders need it

    where, hint = _where(source)
    try:
        told = transformers.AutoConfig.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    family = _family(told, source)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(where, backend="pil")
        with _quiet(transformers):
            net, report = getattr(transformers, family.model).from_pretrained(
                where, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise ValueError(f"{source} lacks weights of {family.model} ({len(absent)} missing, e.g. {absent[:3]})")
    return family, net, processor


def _family(told: Any, source: str) -> Family:
    """How a detector of this configuration is read.  Raises ValueError when it cannot be."""
    from transformers.utils import is_timm_available

    if told.model_type not in DETECTORS:
        raise ValueError(
            f"encoder.source {source} is a {told.model_type!r} model; detectors that can be read are "
            f"{', '.join(DETECTORS)}"
        )
    if getattr(told.backbone_config, "model_type", "") == "timm_backbone" and not is_timm_available():
        raise ValueError(
            f"encoder.source {source}: the backbone of this {told.model_type} is one of timm (its config.json has "
            "use_timm_backbone), which limner does not depend on; give weights whose backbone is one of transformers: "
            "those of facebook/detr-resnet-50 are its revision no_timm "
            "(hf download facebook/detr-resnet-50 --revision no_timm --local-dir FOLDER)"
        )
    return DETECTORS[told.model_type]
