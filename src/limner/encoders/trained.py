"""Encoder weights from a run or a .pth file, as `encoder.source` names them.

A run, or a model, is one whose encoder was trained with its captioner.  Training then continues from these weights, or
`limner extract` stores their features.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from limner import shipped
from limner.core.tensors import load_state_strictly, load_tensors
from limner.core.torch_files import check_torch_file

ENCODER_PREFIX = "encoder."  # of the names of the encoder's tensors in model.safetensors


def split_encoder_weights(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the tensors of model.safetensors into those of the encoder (prefix removed) and those of the captioner."""
    encoder = {
        name.removeprefix(ENCODER_PREFIX): value for name, value in tensors.items() if name.startswith(ENCODER_PREFIX)
    }
    return encoder, {name: value for name, value in tensors.items() if not name.startswith(ENCODER_PREFIX)}


def is_run(source: str) -> bool:
    """Whether `source` names a run folder, a packed model or a model inside limner."""
    return (shipped.folder_of(source) / "run.json").is_file()


def load_trained_encoder(encoder: nn.Module, source: str) -> None:
    """Load the encoder weights of the run or model that `source` names into `encoder`; "" does nothing.

    Raises ValueError when there is no run, when it holds no encoder weights, or when their names or shapes differ.
    """
    if not source:
        return
    path = shipped.folder_of(source) / "model.safetensors"
    if not path.is_file():
        raise ValueError(
            f"encoder.source: {source} is not a run; give the folder of a run whose encoder was trained with its "
            f"captioner, or the name of a model ({shipped.known_names()})"
        )
    if not load_trained_weights(encoder, source):
        raise ValueError(
            f"encoder.source: {source} holds no encoder weights, because it was trained on stored features or has a "
            "pretrained encoder; give the run that trained the encoder"
        )


def load_trained_weights(encoder: nn.Module, source: str) -> bool:
    """Load the encoder weights in `model.safetensors` of a run or model into `encoder` -> whether it has some.

    It has none when the run was trained on stored features, or its encoder is a pretrained one that was not trained.
    """
    path = shipped.folder_of(source) / "model.safetensors"
    tensors, _ = load_tensors(path)
    weights, _ = split_encoder_weights(tensors)
    if weights:
        load_state_strictly(encoder, weights, f"encoder.source {path}")
    return bool(weights)


def read_state_dict(path: str | Path, network: str) -> dict[str, Tensor]:
    """Read a state dict, or a training checkpoint that holds one under "state_dict"; no code in the file is executed.

    The prefix `module.` of DataParallel is removed.  `network` is named in messages.  Raises ValueError.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"encoder.source: {path} is not a file; give the .pth file of {network}, or a run folder")
    check_torch_file(path)
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make torch raise any exception
        raise ValueError(
            f"encoder.source: {path} is damaged or cannot be read without executing code "
            f"({str(error).splitlines()[0]:.200}); save the network's state_dict() instead"
        ) from error
    tree = tree.get("state_dict", tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, dict) or not tree or not all(isinstance(value, Tensor) for value in tree.values()):
        raise ValueError(f"encoder.source: {path} holds no state dict")
    return {str(key).removeprefix("module."): value for key, value in tree.items()}
