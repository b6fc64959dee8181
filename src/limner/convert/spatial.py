"""Conversion of Spatial-Image-Captioning (sidharth5n/Spatial-Image-Captioning) to a run folder."""

from pathlib import Path
from typing import Any, Literal

from limner.convert.self_critical import (
    Channels,
    KeyMap,
    PartNames,
    SelfCriticalCheckpoint,
    check_request,
    infer_transformer_config,
    linear_keys,
    read_published,
    transformer_keys,
    write,
)
from limner.convert.settings import NONE_GIVEN, Settings, check_settings, choose
from limner.models.spatial_transformer import SpatialTransformerConfig

BUFFERS = tuple(
    f"model.{name}" for name in ("tgt_embed.1.pe", *(f"src_embed.{x}" for x in ("rows", "cols", "pe1", "pe2")))
)


ACTIVATION_NOTE = (
    "activation relu is assumed, because neither the weights nor the training options say which it is; if it was gelu, "
    "convert again with --activation gelu"
)


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Channels = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert as `self_critical.convert` does.

    The kinds of positions, cross attention and norm are inferred from the weights.  The number of heads and the
    activation are training options in the infos; where they are missing, they are settings, and 8 and ReLU are assumed.
    """
    check_settings(settings, "spatial")
    check_request(out, encoder, channels)
    loaded = read_published(checkpoint, word_map, settings)
    rms = "model.encoder.norm.scale" in loaded.tensors
    part_names = PartNames(
        "cross_attn", "fc.0", "fc.3", "scale" if rms else "weight", "bias", "model.tgt_embed.0.embedding.weight"
    )
    stored = activation_option(loaded)
    activation = choose("activation", settings.activation, stored, "relu", "the file with the words")
    xlinear = "model.decoder.layers.0.cross_attn.attention.spatial.weight" in loaded.tensors
    config = infer_transformer_config(
        loaded,
        part_names,
        norm="rms" if rms else "layer",
        activation=activation,
        cross_attention="xlinear" if xlinear else "dot-product",
        **position_fields(loaded),
    )
    key_map = transformer_keys(config, part_names) | position_keys(config)
    summary = write(out, loaded, config, key_map, BUFFERS)
    return summary if stored or settings.activation else f"{summary}\n{ACTIVATION_NOTE}"


def activation_option(loaded: SelfCriticalCheckpoint) -> Literal["relu", "gelu"] | None:
    """The activation according to the training options, or None where they do not say.

    Recognised are an option whose name has "act" and whose value is relu or gelu, and a boolean option with "gelu" in
    its name.
    """
    for key, value in loaded.options.items():
        if "act" in key.lower() and str(value).lower() in ("relu", "gelu"):
            return "relu" if str(value).lower() == "relu" else "gelu"
        if "gelu" in key.lower() and isinstance(value, bool):
            return "gelu" if value else "relu"
    return None


def position_fields(loaded: SelfCriticalCheckpoint) -> dict[str, Any]:
    """Config fields of the positions: their kind, and the number of grid cells where the weights depend on it."""
    tensors = loaded.tensors
    if (rows := tensors.get("model.src_embed.fc1.weight")) is not None:
        return {"positions": "gxg", "num_grids": rows.shape[1] ** 2}
    if "model.src_embed.fc.0.weight" in tensors:
        return {"positions": "box"}
    if (vector := tensors.get("model.src_embed.fc.weight")) is not None:
        return {"positions": "g2", "num_grids": vector.shape[1]}
    if (table := tensors.get("model.src_embed.pe1")) is not None:
        return {"positions": "sinusoidal", "num_grids": table.shape[0] ** 2}
    return {"positions": "none"}


def position_keys(config: SpatialTransformerConfig) -> KeyMap:
    """Published key -> key of the position module."""
    source, target = "model.src_embed", "positions"
    return {
        "gxg": linear_keys(f"{source}.fc1", f"{target}.rows")
        | linear_keys(f"{source}.fc2", f"{target}.columns")
        | linear_keys(f"{source}.fc3", f"{target}.cells"),
        "g2": linear_keys(f"{source}.fc", f"{target}.vector"),
        "box": linear_keys(f"{source}.fc.0", f"{target}.mlp.0") | linear_keys(f"{source}.fc.2", f"{target}.mlp.2"),
        "sinusoidal": {},
        "none": {},
    }[config.positions]
