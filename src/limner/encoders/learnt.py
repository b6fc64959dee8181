"""The weights that a run has learnt, for an encoder of ours: it goes on from them, or its features are stored."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from limner.core.tensors import load_state_strictly, load_tensors

WHERE = "encoder."  # how the names of an encoder's tensors begin in model.safetensors


def split_encoder_weights(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those of model.safetensors -> the encoder's, by its own names, and the captioner's."""
    own = {name.removeprefix(WHERE): value for name, value in tensors.items() if name.startswith(WHERE)}
    return own, {name: value for name, value in tensors.items() if not name.startswith(WHERE)}


def learnt(encoder: nn.Module, source: str) -> None:
    """Give `encoder` the weights of that of the run (or packed model) in the folder `source`; "" leaves it as it is.

    Raises ValueError when there is no run, when it keeps no encoder, or one of another shape.
    """
    if not source:
        return
    path = Path(source).expanduser() / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"encoder.source: {source} is no run; give the folder of one whose encoder was trained along")
    tensors, _ = load_tensors(path)
    own, _ = split_encoder_weights(tensors)
    if not own:
        raise ValueError(
            f"encoder.source: {source} keeps no encoder's weights, it was trained on stored features or has a "
            "pretrained encoder; give the run that trained them"
        )
    load_state_strictly(encoder, own, f"encoder.source {path}")
