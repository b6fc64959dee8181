"""Region encoder: the objects that a DETR detector (Carion et al. 2020, arXiv:2005.12872) of `transformers` detects.

Each cell is the decoder's output for one object query, together with the box that the detector predicts for it.
Supported are DETR, conditional DETR (arXiv:2108.06152), deformable DETR (arXiv:2010.04159) and the Table Transformer
(arXiv:2110.00061).
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
from limner.encoders.pretrained import quiet_transformers, resolve_source, save_parts, weights_sha256


@dataclass(frozen=True)
class DetectorConfig:
    """Which detector to load, and how many regions to keep.

    `source` is a local folder or a hub id of one of the architectures in `DETECTORS`.  Its weights are frozen.
    """

    name: Literal["detector"] = "detector"
    source: str = ""
    regions: PositiveInt = 36  # regions per image: those with the highest class score
    size: PositiveInt = 480  # side in pixels: images are resized to a square so that they can be batched


class DetectorFamily(NamedTuple):
    """How one detector architecture of `transformers` is loaded, and how its class scores are read."""

    model: str  # name of its class in `transformers`
    no_object_class: bool  # True: softmax whose last class is "no object"; False: one sigmoid per class


DETECTORS: dict[str, DetectorFamily] = {
    "detr": DetectorFamily("DetrForObjectDetection", no_object_class=True),
    "conditional_detr": DetectorFamily("ConditionalDetrForObjectDetection", no_object_class=False),
    "deformable_detr": DetectorFamily("DeformableDetrForObjectDetection", no_object_class=False),
    "table-transformer": DetectorFamily("TableTransformerForObjectDetection", no_object_class=True),
}


class Detector(Encoder):
    """Frozen object detector whose highest-scoring regions are the cells."""

    def __init__(self, config: DetectorConfig) -> None:
        """Load the detector.  Raises ValueError when that fails or when it has fewer queries than `regions`."""
        super().__init__()
        self.config = config
        self.family, net, self.processor = _load_detector(config.source)
        sizes = net.config
        queries = sizes.two_stage_num_proposals if getattr(sizes, "two_stage", False) else sizes.num_queries
        if queries < config.regions:
            raise ValueError(
                f"{config.source} detects {queries} regions, not {config.regions}: give encoder.regions up to {queries}"
            )
        self.net: Any = net.requires_grad_(False)
        self.dim: int = sizes.d_model
        self.eval()

    def train(self, mode: bool = True) -> "Detector":
        """Stay in evaluation mode: the detector is never trained."""
        return super().train(False)

    def reading_side(self) -> int:
        """The side of the square input."""
        return self.config.size

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """Resize uint8 RGB frames to a square and normalise them as preprocessor_config.json says.

        The aspect ratio is not kept.
        """
        inputs = self.processor(
            images=[np.ascontiguousarray(frame) for frame in frames],
            size={"height": self.config.size, "width": self.config.size},
            input_data_format="channels_last",
            do_pad=False,
            return_tensors="pt",
        )
        pixels: Tensor = inputs["pixel_values"]
        return pixels

    def forward(self, pixels: Pixels) -> Features:
        """Encode frames (B, T, 3, h, w) to the highest-scoring regions of every frame, highest first.

        The layout is (T, 1, `regions`); boxes are xyxy, relative to the image, in [0, 1].
        """
        b, t = pixels.frames.shape[:2]
        outputs = self.net(pixels.frames.flatten(0, 1))
        # a sigmoid keeps the order of scores, so it need not be computed
        scores = outputs.logits.softmax(-1)[..., :-1] if self.family.no_object_class else outputs.logits
        best_class = scores.amax(-1)
        chosen = best_class.topk(self.config.regions).indices.unsqueeze(-1)
        grid = outputs.last_hidden_state.gather(1, chosen.expand(-1, -1, self.dim))
        centre, extent = outputs.pred_boxes.gather(1, chosen.expand(-1, -1, 4)).chunk(2, -1)
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], -1).clamp(0, 1)
        cells = (b, t * self.config.regions)
        mask = torch.ones(cells, dtype=torch.bool, device=grid.device)
        layout = Layout(t, 1, self.config.regions)
        return Features(grid.reshape(*cells, self.dim), mask, layout, boxes.reshape(*cells, 4))

    def save(self, folder: str | Path) -> None:
        """Write config, weights and preprocessing to a folder that `DetectorConfig(source=folder)` can load."""
        save_parts(folder, self.net, self.processor)

    def provenance(self) -> dict[str, Any]:
        """JSON values that identify the features: source, hash, sizes and normalisation.

        The hash also covers the names of the weights, which depend on the architecture.
        """
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


def _load_detector(source: str) -> tuple[DetectorFamily, Any, Any]:
    """Load a detector -> its family, the network and its image processor.  Raises ValueError."""
    import transformers  # imported here because it takes 3 s

    location, hint = resolve_source(source)
    try:
        config = transformers.AutoConfig.from_pretrained(location, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    family = _family_of(config, source)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(location, backend="pil", trust_remote_code=False)
        with quiet_transformers():
            net, report = getattr(transformers, family.model).from_pretrained(
                location, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"encoder.source {source}: {hint} ({str(error).splitlines()[0]})") from error
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise ValueError(
            f"{source} lacks weights of {family.model} ({len(missing)} missing, e.g. {missing[:3]}): "
            "give a complete checkpoint"
        )
    return family, net, processor


def _family_of(config: Any, source: str) -> DetectorFamily:
    """The detector family of a `transformers` config.  Raises ValueError when it is not supported."""
    from transformers.utils import is_timm_available

    if config.model_type not in DETECTORS:
        raise ValueError(
            f"encoder.source {source} is a {config.model_type!r} model; supported detectors are {', '.join(DETECTORS)}"
        )
    if getattr(config.backbone_config, "model_type", "") == "timm_backbone" and not is_timm_available():
        raise ValueError(
            f"encoder.source {source}: the backbone of this {config.model_type} is a timm model (its config.json has "
            "use_timm_backbone), and limner does not depend on timm; give weights with a transformers backbone: "
            "for facebook/detr-resnet-50 these are its revision no_timm "
            "(hf download facebook/detr-resnet-50 --revision no_timm --local-dir FOLDER)"
        )
    return DETECTORS[config.model_type]
