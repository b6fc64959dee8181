"""Conversion of X-LAN (JDAI-CV/image-captioning) to a run folder."""

from pathlib import Path

from limner.convert.self_critical import (
    Channels,
    KeyMap,
    SelfCriticalCheckpoint,
    check_request,
    linear_keys,
    lstm_keys,
    read_published,
    training_words,
    write,
)
from limner.convert.settings import NONE_GIVEN, Settings, check_settings
from limner.decode.options import Beam
from limner.decode.rules import Rules
from limner.models.xlan import XlanConfig


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Channels = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert as `self_critical.convert` does.  `word_map` is usually the published text file, one word per line."""
    check_settings(settings, "xlan")
    check_request(out, encoder, channels)
    loaded = read_published(checkpoint, word_map, settings)
    config = infer_config(loaded)
    steps = training_words(loaded) + 1  # the published SEQ_LEN, 17, counts the end
    # The published search: no word is forbidden, and ended hypotheses keep their places as in SA-LSTM.
    rules = Rules(min_length=0, max_length=steps, no_repeat_word=False, allow_unknown=True)
    return write(out, loaded, config, xlan_keys(config), (), Beam(3, 0.0, rules, finished_compete=True))


def infer_config(loaded: SelfCriticalCheckpoint) -> XlanConfig:
    """Infer the config from the shapes of the weights.  Raises ValueError when they belong to another model."""
    tensors = loaded.tensors
    size_keys = (
        "word_embed.0.weight",
        "att_embed.0.weight",
        "attention.layers.0.encoder_attn.attn_net.attention_basic.0.weight",
    )
    absent = [key for key in size_keys if getattr(tensors.get(key), "ndim", 0) != 2]
    if absent:
        raise ValueError(
            f"{loaded.source} is not an X-LAN: {', '.join(absent)} missing or not a matrix; "
            f"it has {', '.join(sorted(tensors)[:6])} ..."
        )
    dim = tensors[size_keys[0]].shape[1]
    mid, part = tensors[size_keys[2]].shape
    layers = len({key.split(".")[2] for key in tensors if key.startswith("encoder_layers.layers.")})
    return XlanConfig(layers=layers, dim=dim, heads=max(1, dim // part), mid=mid)


def xlan_keys(config: XlanConfig) -> KeyMap:
    """Published key -> key of `Xlan`, for every key of the state dict."""
    key_map: KeyMap = {
        "word_embed.0.weight": "embed.weight",
        **linear_keys("att_embed.0", "cells"),
        **linear_keys("logit", "head"),
    }
    for k in range(config.layers):
        key_map |= bilinear_keys(f"encoder_layers.layers.{k}.encoder_attn", f"refine.{k}")
        key_map |= linear_keys(f"encoder_layers.bifeat_emb.{k}.0", f"join.{k}")
        key_map |= linear_keys(f"encoder_layers.layer_norms.{k}", f"join_norms.{k}")
    key_map |= linear_keys("encoder_layers.proj", "whole") | linear_keys("encoder_layers.layer_norm", "whole_norm")
    key_map |= lstm_keys("att_lstm", "lstm")
    key_map |= bilinear_keys("attention.layers.0.encoder_attn", "attend")
    key_map |= linear_keys("attention.proj", "context") | linear_keys("attention.layer_norm", "context_norm")
    return key_map | linear_keys("att2ctx.0", "say")


def bilinear_keys(source: str, target: str) -> KeyMap:
    """Keys of one X-linear attention block.  The bias of the spatial score changes no softmax, so it is left out."""
    key_map: KeyMap = {}
    for name, part in (("q", "query"), ("k", "key"), ("v1", "query2"), ("v2", "value")):
        key_map |= linear_keys(f"{source}.in_proj_{name}.0", f"{target}.{part}.linear")
        key_map |= linear_keys(f"{source}.in_proj_{name}.2", f"{target}.{part}")
    for name, part in (("attention_basic.0", "common"), ("attention_last", "spatial"), ("attention_last2", "channel")):
        key_map |= linear_keys(f"{source}.attn_net.{name}", f"{target}.{part}")
    return {**key_map, f"{source}.attn_net.attention_last.bias": None}
