"""Object Relation Transformer (yahoo/object_relation_transformer): checkpoint and infos in, run folder out."""

from pathlib import Path

import torch
from torch import Tensor

from limner.convert.self_critical import (
    LUO,
    Channels,
    check_request,
    read_published,
    transformer_config,
    transformer_names,
    write,
)


def convert(checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Channels = "RGB") -> str:
    """As `self_critical.convert`; the regions must come with their boxes."""
    check_request(out, encoder, channels)
    published = read_published(checkpoint, word_map)
    tensors, heads = join_heads(published.tensors)
    published = published._replace(tensors=tensors, options={**published.options, "num_att_heads": heads})
    config = transformer_config(published, LUO, norm="unbiased", positions="none", geometry=True)
    return write(out, published, config, transformer_names(config, LUO), ("model.tgt_embed.1.pe",))


def join_heads(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """`WGs.0.weight` (1, 64), `WGs.1.weight`, ... of every layer -> `WGs.weight` (heads, 64); how many heads.

    Raises ValueError when there are none, or not equally many in all layers.
    """
    parts: dict[str, dict[int, Tensor]] = {}
    joined = {}
    for key, tensor in tensors.items():
        before, found, after = key.partition(".WGs.")
        number, _, name = after.partition(".")
        if found and number.isdigit():
            parts.setdefault(f"{before}.WGs.{name}", {})[int(number)] = tensor
        else:
            joined[key] = tensor
    heads = {tuple(sorted(numbered)) for numbered in parts.values()}
    if len(heads) != 1 or (numbers := heads.pop()) != tuple(range(len(numbers))):
        raise ValueError(
            "no Object Relation Transformer: expected self_attn.WGs.0, .1, ... of equal number in every encoder layer, "
            f"found {len(parts) // 2} layers with some; for a transformer without them use --from self-critical"
        )
    for key, numbered in parts.items():
        joined[key] = torch.cat([numbered[k] for k in sorted(numbered)])
    return joined, len(numbers)
