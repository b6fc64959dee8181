"""Spatial-Image-Captioning (sidharth5n/Spatial-Image-Captioning): checkpoint and infos in, run folder out."""

from pathlib import Path
from typing import Any

from limner.convert.self_critical import (
    Channels,
    Dialect,
    Names,
    Published,
    check_request,
    linear,
    read_published,
    transformer_config,
    transformer_names,
    write,
)
from limner.models.spatial_transformer import SpatialTransformerConfig

BUFFERS = tuple(
    f"model.{name}" for name in ("tgt_embed.1.pe", *(f"src_embed.{x}" for x in ("rows", "cols", "pe1", "pe2")))
)


ASSUMED = (
    "activation relu is assumed: no weight tells it, and no option of the training does; if it was gelu, put it into "
    "the run's recipe.json, model.activation"
)


def convert(checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Channels = "RGB") -> str:
    """As `self_critical.convert`.  Weights tell the kind of positions, cross attention and norm; the number of heads
    and the activation are options of the infos, else 8 and ReLU."""
    check_request(out, encoder, channels)
    published = read_published(checkpoint, word_map)
    rms = "model.encoder.norm.scale" in published.tensors
    dialect = Dialect(
        "cross_attn", "fc.0", "fc.3", "scale" if rms else "weight", "bias", "model.tgt_embed.0.embedding.weight"
    )
    activation = told_activation(published)
    crossed = "model.decoder.layers.0.cross_attn.attention.spatial.weight" in published.tensors
    config = transformer_config(
        published,
        dialect,
        norm="rms" if rms else "layer",
        activation=activation or "relu",
        cross_attention="xlinear" if crossed else "dot-product",
        **positions_of(published),
    )
    names = transformer_names(config, dialect) | position_names(config)
    done = write(out, published, config, names, BUFFERS)
    return done if activation else f"{done}\n{ASSUMED}"


def told_activation(published: Published) -> str | None:
    """No weight tells it; an option that names an activation, or is called gelu, does."""
    for key, value in published.options.items():
        if "act" in key.lower() and str(value).lower() in ("relu", "gelu"):
            return str(value).lower()
        if "gelu" in key.lower() and isinstance(value, bool):
            return "gelu" if value else "relu"
    return None


def positions_of(published: Published) -> dict[str, Any]:
    """The kind of positions, and the number of grid cells where the weights depend on it.  Raises ValueError when that
    is no square."""
    tensors = published.tensors
    if (rows := tensors.get("model.src_embed.fc1.weight")) is not None:
        return {"positions": "gxg", "num_grids": rows.shape[1] ** 2}
    if "model.src_embed.fc.0.weight" in tensors:
        return {"positions": "box"}
    if (vector := tensors.get("model.src_embed.fc.weight")) is not None:
        return {"positions": "g2", "num_grids": vector.shape[1]}
    if (table := tensors.get("model.src_embed.pe1")) is not None:
        return {"positions": "sinusoidal", "num_grids": table.shape[0] ** 2}
    return {"positions": "none"}


def position_names(config: SpatialTransformerConfig) -> Names:
    theirs, ours = "model.src_embed", "positions"
    return {
        "gxg": linear(f"{theirs}.fc1", f"{ours}.rows")
        | linear(f"{theirs}.fc2", f"{ours}.columns")
        | linear(f"{theirs}.fc3", f"{ours}.cells"),
        "g2": linear(f"{theirs}.fc", f"{ours}.vector"),
        "box": linear(f"{theirs}.fc.0", f"{ours}.mlp.0") | linear(f"{theirs}.fc.2", f"{ours}.mlp.2"),
        "sinusoidal": {},
        "none": {},
    }[config.positions]
