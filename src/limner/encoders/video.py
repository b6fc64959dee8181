"""Video transformers of `transformers`: runs them on clips and puts their tokens in the order (t, h, w).

VideoMAE (Tong et al. 2022, arXiv:2203.12602) makes one token per tubelet of two frames, ordered (t, h, w).
TimeSformer (Bertasius et al. 2021, arXiv:2102.05095) has a class token first, then for every patch all its frames.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from limner.core.types import Layout


def clip_cells(backbone: nn.Module, frames: Float[Tensor, "B T 3 H W"]) -> tuple[Float[Tensor, "B N D"], Layout]:
    """Encode clips -> cells, row-major over (t, h, w), and their layout.

    A backbone reads exactly `num_frames` frames.  A clip of k times as many is cut into k pieces, and an image (T = 1)
    is repeated.  Raises ValueError for other lengths.
    """
    config: Any = backbone.config
    b, t, _, height, width = frames.shape
    length = config.num_frames
    if t == 1:
        frames, t = frames.expand(-1, length, -1, -1, -1), length
    if t % length:
        raise ValueError(
            f"this {config.model_type} encoder reads {length} frames at once, got {t}: "
            f"give frames: {length} or a multiple (limner extract: --frames {length})"
        )
    pieces = frames.reshape(b * t // length, length, *frames.shape[2:])
    tokens = backbone(pieces).last_hidden_state
    h, w = height // config.patch_size, width // config.patch_size
    layout = Layout(t // getattr(config, "tubelet_size", 1), h, w)
    if config.model_type == "timesformer":
        tokens = tokens[:, 1:]
        if config.attention_type != "space_only":  # (patch, frame) -> (frame, patch)
            tokens = tokens.unflatten(1, (h * w, length)).transpose(1, 2)
    return tokens.reshape(b, layout.cells, tokens.shape[-1]), layout
