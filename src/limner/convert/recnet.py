"""Conversion of RecNet (hobincar/RecNet), an SA-LSTM with a reconstructor, to a run folder.

The reconstructor is part of the training objective, not of the captioner.  It is written to objective.safetensors;
training with the same objective that starts from the run continues with it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from limner.convert.checkpoint import check_keys
from limner.convert.run_folder import ConvertedRun
from limner.convert.sa_lstm import (
    STAGE,
    SaLstmCheckpoint,
    assemble,
    check_request,
    map_attention,
    read_published,
    read_setting,
    with_objective,
    write,
)
from limner.convert.settings import NONE_GIVEN, Settings, check_settings
from limner.core.tensors import load_state_strictly
from limner.objectives.context import Context
from limner.objectives.reconstruction import GlobalReconstruction, LocalReconstruction

LSTM_TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Literal["RGB", "BGR"] = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert as `sa_lstm.convert` does, with the reconstructor -> a summary for the user.

    A checkpoint of stage 1 has no reconstructor; then only the captioner is written.
    """
    check_settings(settings, "recnet")
    check_request(out, encoder, channels)
    loaded = read_published(checkpoint)
    stage = replace(STAGE, lr=4e-5, schedule=replace(STAGE.schedule, start=0))  # as published for MSR-VTT, stage 2
    converted = assemble(loaded, word_map, stage, settings)
    if loaded.reconstructor is not None:
        converted = add_reconstructor(converted, loaded, loaded.reconstructor)
    return write(out, converted, loaded)


def add_reconstructor(converted: ConvertedRun, loaded: SaLstmCheckpoint, tensors: dict[str, Tensor]) -> ConvertedRun:
    """Add the objective with the reconstructor; its keys show whether it is the global or the local one.

    Raises ValueError that names every key that does not fit.
    """
    H, D = converted.model.config.hidden, converted.info.feature_dim
    description = f"{loaded.source}: its reconstructor does not fit hidden states of {H} and features of {D} channels"
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
    check_keys(tensors, shapes, description)
    weight = read_setting(loaded.settings, ("recon_lambda",), 0.1 if local else 0.2)
    config: GlobalReconstruction | LocalReconstruction
    if local:
        config = LocalReconstruction(weight=weight, attention=A, published=True)
        mapped = {f"attend.{name}": value for name, value in map_attention(tensors).items()}
        mapped |= {f"lstm.{part}": tensors[f"rnn.{part}_l0"] for part in LSTM_TENSORS}
    else:
        config = GlobalReconstruction(weight=weight, published=True)
        mapped = {f"lstm.{part}_l0": tensors[f"rnn.{part}_l0"] for part in LSTM_TENSORS}
    module = config.build(Context(hidden=H, feature_dim=D))
    load_state_strictly(module.reconstructor, mapped, description)
    return with_objective(converted, config, module)
