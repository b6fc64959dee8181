"""X-LAN (JDAI-CV/image-captioning): checkpoint and vocabulary in, run folder out."""

from pathlib import Path

from limner.convert.self_critical import Channels, Names, Published, check_request, linear, lstm, read_published, write
from limner.models.xlan import XlanConfig


def convert(checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Channels = "RGB") -> str:
    """As `self_critical.convert`; `word_map` is usually the published text file, a word per line."""
    check_request(out, encoder, channels)
    published = read_published(checkpoint, word_map)
    config = config_of(published)
    return write(out, published, config, names_of(config), ())


def config_of(published: Published) -> XlanConfig:
    """The sizes that the weights tell.  Raises ValueError when they are of another model."""
    tensors = published.tensors
    telling = (
        "word_embed.0.weight",
        "att_embed.0.weight",
        "attention.layers.0.encoder_attn.attn_net.attention_basic.0.weight",
    )
    absent = [key for key in telling if getattr(tensors.get(key), "ndim", 0) != 2]
    if absent:
        raise ValueError(
            f"{published.source} is no X-LAN: {', '.join(absent)} missing or no matrix; "
            f"it has {', '.join(sorted(tensors)[:6])} ..."
        )
    dim = tensors[telling[0]].shape[1]
    mid, part = tensors[telling[2]].shape
    layers = len({key.split(".")[2] for key in tensors if key.startswith("encoder_layers.layers.")})
    return XlanConfig(layers=layers, dim=dim, heads=max(1, dim // part), mid=mid)


def names_of(config: XlanConfig) -> Names:
    """Every key that the published state dict must have."""
    names: Names = {"word_embed.0.weight": "embed.weight", **linear("att_embed.0", "cells"), **linear("logit", "head")}
    for k in range(config.layers):
        names |= bilinear(f"encoder_layers.layers.{k}.encoder_attn", f"refine.{k}")
        names |= linear(f"encoder_layers.bifeat_emb.{k}.0", f"join.{k}")
        names |= linear(f"encoder_layers.layer_norms.{k}", f"join_norms.{k}")
    names |= linear("encoder_layers.proj", "whole") | linear("encoder_layers.layer_norm", "whole_norm")
    names |= lstm("att_lstm", "lstm")
    names |= bilinear("attention.layers.0.encoder_attn", "attend")
    names |= linear("attention.proj", "context") | linear("attention.layer_norm", "context_norm")
    return names | linear("att2ctx.0", "say")


def bilinear(theirs: str, ours: str) -> Names:
    names: Names = {}
    for name, part in (("q", "query"), ("k", "key"), ("v1", "query2"), ("v2", "value")):
        names |= linear(f"{theirs}.in_proj_{name}.0", f"{ours}.{part}.linear")
        names |= linear(f"{theirs}.in_proj_{name}.2", f"{ours}.{part}")
    for name, part in (("attention_basic.0", "common"), ("attention_last", "spatial"), ("attention_last2", "channel")):
        names |= linear(f"{theirs}.attn_net.{name}", f"{ours}.{part}")
    return {**names, f"{theirs}.attn_net.attention_last.bias": None}
