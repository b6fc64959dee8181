"""Beam search with cached keys and values against reading the whole prefix again; equal captions, CPU time compared.

    OMP_NUM_THREADS=1 python benchmarks/spatial_beam.py --rounds 3

The spatial transformer at its published size (6 + 6 layers, dim 512, hidden 2048, 8 heads, gxg), 36 regions of 2,048
channels, beam 5, captions of 16 words, 2,550 words.  `published` is the family's own loop written plainly: one picture
at a time, its encoder's output repeated for every hypothesis, and at every step all words so far through the whole
decoder, keys and values of the regions included.  Random weights do not end captions, and none may end here, so that
all have 16 words in both.
"""

import sys

import torch
from torch import Tensor

from limner.core.types import BOS, EOS, UNK, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.models.attention_blocks import KeyValue
from limner.models.spatial_transformer import Memory, SpatialTransformer, SpatialTransformerConfig
from paired import arguments, report, take_turns

PICTURES, REGIONS, CHANNELS, VOCABULARY, BEAMS, LONGEST = 64, 36, 2048, 2550, 5, 16


def net(cross: str, seed: int = 0) -> SpatialTransformer:
    torch.manual_seed(seed)
    config = SpatialTransformerConfig(
        encoder_layers=6,
        decoder_layers=6,
        dim=512,
        hidden=2048,
        heads=8,
        cross_attention=cross,  # type: ignore[arg-type]
    )
    model = SpatialTransformer(config, VOCABULARY, CHANNELS).eval()
    with torch.no_grad():
        model.head.weight *= 4  # next-word distributions as peaked as a trained net's
        model.head.bias[[EOS, UNK]] = -1e4
    return model


def pictures(seed: int = 1) -> Features:
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(PICTURES, REGIONS, 2, 2, generator=draw).sort(2).values
    grid = torch.randn(PICTURES, REGIONS, CHANNELS, generator=draw).relu()
    mask = torch.ones(PICTURES, REGIONS, dtype=torch.bool)
    return Features(grid, mask, Layout(1, 1, REGIONS), corners.flatten(2))


@torch.no_grad()
def published(model: SpatialTransformer, features: Features) -> tuple[Tensor, float]:
    """One picture -> the words after BOS and their log-probability."""
    cells = model.add_positions(model.embed_cells(features), features)
    for layer in model.cell_layers:
        cells = layer(cells, features.mask, None)
    cells = model.cell_norm(cells)
    tokens, score = torch.full((1, 1), BOS), torch.zeros(1)
    for _ in range(LONGEST):
        rows = len(tokens)
        copies, mask = cells.expand(rows, -1, -1), features.mask.expand(rows, -1)
        known: tuple[KeyValue, ...] = tuple(layer.attend_cells.project(copies) for layer in model.word_layers)
        memory = Memory(known, mask)
        hidden, _, _ = model.decode_words(tokens, model.init_state(memory), memory)
        logp = model.head(hidden[:, -1]).log_softmax(-1)
        score, best = (score[:, None] + logp).flatten().topk(BEAMS)
        tokens = torch.cat([tokens[best // VOCABULARY], (best % VOCABULARY)[:, None]], 1)
    return tokens[0, 1:], float(score[0])


def main() -> int:
    rounds = arguments(__doc__, rounds=3).rounds
    features = pictures()
    alone = [features.map(lambda x, i=i: x[i : i + 1]) for i in range(PICTURES)]
    options = Beam(BEAMS, rules=Rules(min_length=0, max_length=LONGEST, no_repeat_word=False, allow_unknown=True))
    for cross in ("dot-product", "xlinear"):
        model = net(cross)
        fast, slow = beam(model, features, options), [published(model, one) for one in alone]
        unequal = sum(a.tolist() != b.tolist() for a, (b, _) in zip(fast.tokens, slow, strict=True))
        gap = max(abs(a - b) / LONGEST for a, (_, b) in zip(fast.logprob.tolist(), slow, strict=True))
        different = len({tuple(tokens.tolist()) for tokens, _ in slow})
        print(f"{cross}: {PICTURES} captions of {LONGEST} words, {different} different, unequal {unequal}; ", end="")
        print(f"largest difference of log-probability per word {gap:.1e}, of {slow[0][1] / LONGEST:.2f}")
        if unequal or gap > 1e-5:
            return 1
        variants = {
            f"limner.beam, {PICTURES} pictures": lambda model=model: beam(model, features, options),
            "uncached loop, one picture at a time": lambda model=model: [published(model, one) for one in alone],
        }
        report(take_turns(variants, rounds), {"uncached loop, one picture at a time": 10})
    return 0


if __name__ == "__main__":
    sys.exit(main())
