"""RecNet as published for PyTorch (hobincar/RecNet): an SA-LSTM and its reconstructor in, run folder out.

The reconstructor is no part of the captioner: it goes into objective.safetensors, where training goes on with it when
a recipe of the same objective starts from the run.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from limner.convert.checkpoint import check_keys
from limner.convert.sa_lstm import (
    STAGE,
    Converted,
    Published,
    assemble,
    check_request,
    map_attention,
    read_published,
    setting,
    with_objective,
    write,
)
from limner.core.tensors import load_state_strictly
from limner.objectives.context import Context
from limner.objectives.reconstruction import GlobalReconstruction, LocalReconstruction

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def convert(
    checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Literal["RGB", "BGR"] = "RGB"
) -> str:
    """Write the run folder `out` and tell in words what was done; as `convert.sa_lstm.convert`, which see.

    A checkpoint of stage 1 has no reconstructor and becomes the captioner alone.
    """
    check_request(out, encoder, channels)
    published = read_published(checkpoint)
    stage = replace(STAGE, lr=4e-5, schedule=replace(STAGE.schedule, start=0))  # as published for MSR-VTT, stage 2
    converted = assemble(published, word_map, stage)
    if published.reconstructor is not None:
        converted = add_reconstructor(converted, published, published.reconstructor)
    return write(out, converted)


def add_reconstructor(converted: Converted, published: Published, tensors: dict[str, Tensor]) -> Converted:
    """Global or local, as its keys tell.  Raises ValueError that names every misfit."""
    H, D = converted.model.config.hidden, converted.info.feature_dim
    what = f"{published.source}: its reconstructor does not fit hidden states of {H} and features of {D} channels"
    local = any(key.startswith("attention.") for key in tensors)
    shapes: dict[str, tuple[int, ...]] = {
        "rnn.weight_ih_l0": (4 * D, H if local else 2 * H),
        "rnn.weight_hh_l0": (4 * D, D),
        "rnn.bias_ih_l0": (4 * D,),
        "rnn.bias_hh_l0": (4 * D,),
    }
    if local:
        A = tensors["attention.b"].numel() if "attention.b" in tensors else 0
        shapes |= {"attention.W.weight": (A, D), "attention.U.weight": (A, H), "attention.w.weight": (1, A)}
        shapes["attention.b"] = (A,)
    check_keys(tensors, shapes, what)
    weight = setting(published.settings, ("recon_lambda",), 0.1 if local else 0.2)
    config: GlobalReconstruction | LocalReconstruction
    if local:
        config = LocalReconstruction(weight=weight, attention=A, published=True)
        mapped = {f"attend.{name}": value for name, value in map_attention(tensors).items()}
        mapped |= {f"lstm.{part}": tensors[f"rnn.{part}_l0"] for part in PARTS}
    else:
        config = GlobalReconstruction(weight=weight, published=True)
        mapped = {f"lstm.{part}_l0": tensors[f"rnn.{part}_l0"] for part in PARTS}
    module = config.build(Context(hidden=H, feature_dim=D))
    load_state_strictly(module.reconstructor, mapped, what)
    return with_objective(converted, config, module)
