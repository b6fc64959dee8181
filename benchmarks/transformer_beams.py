"""Beam search of X-LAN and the transformers against the published code's way of working; equal captions, CPU time.

    OMP_NUM_THREADS=1 python benchmarks/transformer_beams.py --rounds 3

16 images of 36 regions of 2,048 channels, 9,487 words and the end, beam 5, random weights.  The models have their
published sizes: X-LAN 4 layers, dim 1024, 8 heads, mid 64, 17 words, and limner's default size; the transformers 6 + 6
layers, dim 512, hidden 2048, 8 heads, 16 words.  What limner is compared with is in `published_beams`: X-LAN's batched
search, self-critical.pytorch's batched search, and the one-image loop of ORT and the spatial transformer.

No caption ends before its last word: the end scores -1e4.  `--ends` lets captions end: the published searches then
still take all steps.  `--only NAME` runs one model.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import torch

from limits import counted
from limner.core.types import EOS, PAD, UNK, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.models.captioner import Captioner
from limner.models.spatial_transformer import SpatialTransformer, SpatialTransformerConfig
from limner.models.xlan import Xlan, XlanConfig
from paired import PUBLISHED, report, take_turns
from published_beams import Caption, batched_transformer_beam, single_transformer_beam, xlan_beam

IMAGES, REGIONS, CHANNELS, VOCABULARY, BEAMS = 16, 36, 2048, 9490, 5
MODELS: dict[str, tuple[dict[str, Any], Callable[..., list[Caption]], int, float]] = {  # options, twin, words, bar
    "X-LAN": ({"layers": 4, "dim": 1024, "mid": 64}, xlan_beam, 17, 5),
    "X-LAN, 2 layers of 512": ({"layers": 2, "dim": 512, "mid": 32}, xlan_beam, 17, 5),
    "self-critical": ({"positions": "none", "norm": "unbiased"}, batched_transformer_beam, 16, 10),
    "ORT": ({"positions": "none", "norm": "unbiased", "geometry": True}, single_transformer_beam, 16, 10),
    "spatial, dot-product": ({}, single_transformer_beam, 16, 10),
    "spatial, X-linear": ({"cross_attention": "xlinear"}, single_transformer_beam, 16, 10),
}


def net(name: str, ends: bool, seed: int = 0) -> Captioner:
    torch.manual_seed(seed)
    model: Xlan | SpatialTransformer
    recurrent = MODELS[name][1] is xlan_beam
    if recurrent:
        model = Xlan(XlanConfig(heads=8, **MODELS[name][0]), VOCABULARY, CHANNELS)
    else:
        sizes: dict[str, Any] = {"encoder_layers": 6, "decoder_layers": 6, "dim": 512, "hidden": 2048, "heads": 8}
        config = SpatialTransformerConfig(**sizes, feature_norm=False, **MODELS[name][0])
        model = SpatialTransformer(config, VOCABULARY, CHANNELS)
    with torch.no_grad():
        model.head.weight *= 24 if recurrent else 4  # next-word distributions as peaked as a trained net's
        model.head.bias[UNK] = -1e4
        model.head.bias[EOS] = (12.0 if recurrent else 8.0) if ends else -1e4
    return model.eval()


def images(seed: int = 1) -> Features:
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(IMAGES, REGIONS, 2, 2, generator=draw).sort(2).values
    grid = torch.randn(IMAGES, REGIONS, CHANNELS, generator=draw).relu()
    mask = torch.ones(IMAGES, REGIONS, dtype=torch.bool)
    return Features(grid, mask, Layout(1, 1, REGIONS), corners.flatten(2))


def measure(name: str, rounds: int, ends: bool) -> bool:
    """Print one model's numbers -> whether its captions are the published ones."""
    model, features = net(name, ends), images()
    _, twin, words, bar = MODELS[name]
    rules = Rules(min_length=0, max_length=words, no_repeat_word=False, allow_unknown=twin is xlan_beam)
    full = {"finished_compete": True} if twin is xlan_beam else {"keep_beam_full": True}
    options = Beam(BEAMS, rules=rules, **full)
    variants = {
        "limner.beam": lambda: beam(model, features, options),
        "published": lambda: twin(model, features, BEAMS, words),
    }
    captions, work = counted(variants)
    fast, slow = captions["limner.beam"], captions["published"]
    found = [[word for word in row if word != PAD] for row in fast.tokens.tolist()]
    unequal = sum(a != b for a, (b, _) in zip(found, slow, strict=True))
    gap = max(abs(a - b) / len(c) for a, (c, b) in zip(fast.logprob.tolist(), slow, strict=True))
    each = slow[0][1] / len(slow[0][0])
    lengths = sorted(len(row) for row in found)
    print(
        f"\n{name}: {IMAGES} captions of {lengths[0]} to {lengths[-1]} words (mean {sum(lengths) / IMAGES:.1f}), ",
        end="",
    )
    print(f"{len({tuple(row) for row in found})} different, {len({w for row in found for w in row})} words, ", end="")
    print(f"unequal {unequal}; largest difference of log-probability per word {gap:.1e}, of {each:.2f}")
    if unequal or gap > 1e-4:
        return False
    batching = "one image at a time" if twin is single_transformer_beam else "its own batching"
    report(
        take_turns(variants, rounds),
        {} if ends else {"published": bar},
        paired_with=f"{PUBLISHED}, {batching}",
        work=work,
    )
    return True


def main() -> int:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns per variant (default 3)")
    parser.add_argument("--ends", action="store_true", help="captions may end before the last word")
    parser.add_argument("--only", choices=MODELS, help="one model instead of all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    equal = [measure(name, given.rounds, given.ends) for name in ([given.only] if given.only else MODELS)]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
