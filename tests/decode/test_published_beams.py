"""The published beam searches that benchmarks/ times: their captions and scores are those of limner's search."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from limner.core.types import EOS, PAD, UNK, Features, Layout
from limner.decode.options import Beam
from limner.decode.rules import Rules
from limner.decode.search import beam
from limner.models.spatial_transformer import SpatialTransformer, SpatialTransformerConfig
from limner.models.xlan import Xlan, XlanConfig

IMAGES, REGIONS, CHANNELS, VOCABULARY, STEPS = 24, 5, 12, 30, 7
SMALL: dict[str, Any] = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "dim": 16,
    "hidden": 24,
    "heads": 4,
    "feature_norm": False,
}
MODELS: dict[str, tuple[dict[str, Any], float, float]] = {  # options, `head` and `end` of `check`
    "self-critical": ({"positions": "none", "norm": "unbiased"}, 1, 1.5),
    "ORT": ({"positions": "none", "norm": "unbiased", "geometry": True}, 1, 1.5),
    "spatial": ({"num_grids": 9}, 1, 0.5),
    "spatial, X-linear": ({"num_grids": 9, "cross_attention": "xlinear"}, 2, -2),
}


@pytest.fixture(scope="module")
def published() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "published_beams.py"
    spec = importlib.util.spec_from_file_location("published_beams", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["published_beams"] = module
    spec.loader.exec_module(module)
    return module


def images() -> Features:
    """Images of 3 to 5 regions."""
    draw = torch.Generator().manual_seed(2)
    corners = torch.rand(IMAGES, REGIONS, 2, 2, generator=draw).sort(2).values.flatten(2)
    mask = torch.arange(REGIONS) < torch.randint(3, REGIONS + 1, (IMAGES, 1), generator=draw)
    return Features(3 * torch.randn(IMAGES, REGIONS, CHANNELS, generator=draw), mask, Layout(1, 1, REGIONS), corners)


def check(model: Any, search: Any, head: float, end: float, **options: Any) -> None:
    """Words and log-probabilities are equal, and captions differ in length.

    Weights are drawn large enough that images matter; `head` scales the word layer, and `end` is added to the score of
    the end.
    """
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            large = 4 if "embed" in name else 2 if "attend" in name else head if "head" in name else 1
            parameter.copy_(
                0.3 * noise + (".norm" in name or "norms" in name or "_norm" in name) * name.endswith("weight")
                if parameter.ndim == 1
                else 1.5 * large * noise * parameter.shape[-1] ** -0.5
            )
        model.head.bias[EOS] += end
        model.head.bias[UNK] -= 50  # so that no caption holds it, whether it is forbidden or not
    features = images()
    rules = Rules(min_length=0, max_length=STEPS, no_repeat_word=False, allow_unknown=True)
    found = beam(model, features, Beam(4, rules=rules, **options))
    expected = search(model, features, 4, STEPS)
    words = [[word for word in row if word != PAD] for row in found.tokens.tolist()]
    assert words == [row for row, _ in expected] and len({len(row) for row in words}) >= 2
    torch.testing.assert_close(found.logprob, torch.tensor([score for _, score in expected]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("search", ["batched_transformer_beam", "single_transformer_beam"])
def test_transformers(name: str, search: str, published: ModuleType) -> None:
    torch.manual_seed(4)
    options, head, end = MODELS[name]
    model = SpatialTransformer(SpatialTransformerConfig(**SMALL, **options), VOCABULARY, CHANNELS).eval()
    check(model, getattr(published, search), head, end, keep_beam_full=True)


def test_xlan(published: ModuleType) -> None:
    torch.manual_seed(4)
    model = Xlan(XlanConfig(layers=2, dim=16, heads=4, mid=3), VOCABULARY, CHANNELS).eval()
    check(model, published.xlan_beam, 2, 0.5, finished_compete=True)


@torch.no_grad()
def test_sa_lstm_in_the_published_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch of all videos, the loop over one video and one hypothesis, and limner's search find the same."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    sa_lstm = importlib.import_module("sa_lstm")
    for name, value in {"VIDEOS": 4, "FRAMES": 3, "CHANNELS": 8, "VOCABULARY": 40, "WORDS": 9}.items():
        monkeypatch.setattr(sa_lstm, name, value)
    model, features = sa_lstm.crafted(full=False), sa_lstm.videos()
    net = sa_lstm.Published(model)
    together = sa_lstm.published_batch(net, features.grid)
    alone = [sa_lstm.loop_beam(net, frames) for frames in features.grid]
    rules = Rules(min_length=0, max_length=10, no_repeat_word=False, allow_unknown=True)
    found = beam(model, features, Beam(5, rules=rules))
    words = [[word for word in row if word != PAD] for row in found.tokens.tolist()]
    assert words == [row for row, _ in together] == [row for row, _ in alone] and len({tuple(row) for row in words}) > 1
    for scores in (together, alone):
        torch.testing.assert_close(found.logprob, torch.tensor([score for _, score in scores]), rtol=1e-4, atol=1e-4)
