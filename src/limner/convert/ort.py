"""Conversion of the Object Relation Transformer (yahoo/object_relation_transformer) to a run folder."""

from pathlib import Path

import torch
from torch import Tensor

from limner.convert.self_critical import (
    SELF_CRITICAL_PARTS,
    Channels,
    check_request,
    infer_transformer_config,
    read_published,
    transformer_keys,
    write,
)
from limner.convert.settings import NONE_GIVEN, Settings, check_settings


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Channels = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert as `self_critical.convert` does.  The run needs regions with boxes."""
    check_settings(settings, "ort")
    check_request(out, encoder, channels)
    loaded = read_published(checkpoint, word_map, settings)
    tensors, heads = join_heads(loaded.tensors)
    loaded = loaded._replace(tensors=tensors, options={**loaded.options, "num_att_heads": heads})
    config = infer_transformer_config(loaded, SELF_CRITICAL_PARTS, norm="unbiased", positions="none", geometry=True)
    return write(out, loaded, config, transformer_keys(config, SELF_CRITICAL_PARTS), ("model.tgt_embed.1.pe",))


def join_heads(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Join `WGs.0.weight` (1, 64), `WGs.1.weight`, ... of every layer to `WGs.weight` (heads, 64) -> tensors, heads.

    Raises ValueError when there are none, or when layers have different numbers of them.
    """
    by_head: dict[str, dict[int, Tensor]] = {}
    joined = {}
    for key, tensor in tensors.items():
        before, separator, after = key.partition(".WGs.")
        number, _, name = after.partition(".")
        if separator and number.isdigit():
            by_head.setdefault(f"{before}.WGs.{name}", {})[int(number)] = tensor
        else:
            joined[key] = tensor
    heads = {tuple(sorted(rows)) for rows in by_head.values()}
    if len(heads) != 1 or (numbers := heads.pop()) != tuple(range(len(numbers))):
        raise ValueError(
            "not an Object Relation Transformer: expected self_attn.WGs.0, .1, ... of equal number in every encoder "
            f"layer, found {len(by_head) // 2} layers that have them; for other transformers use --from self-critical"
        )
    for key, rows in by_head.items():
        joined[key] = torch.cat([rows[k] for k in sorted(rows)])
    return joined, len(numbers)
