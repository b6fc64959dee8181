"""Grad-CAM and Grad-CAM++: closed forms, the papers' formulas written out, and the published numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limner.convert.video_captioning_3d import map_weights, read_published
from limner.core.tensors import load_state_strictly
from limner.core.types import EOS, Features, Layout
from limner.explanations.gradcam import cam, cam_plus_plus, gradcam, gradcam_plus_plus, normalise_maps
from limner.models.spatiotemporal import FirstToken
from tests.convert.published import goldens, start_logits
from tests.explanations.published import published_map
from tests.explanations.toys import Linear, one
from tests.models.captioners import small


def test_a_linear_captioner_by_hand():
    """Word 0 scores 3 x channel 0 of cell 0, minus channel 1 of cell 1.  Means of the gradient over two cells: 1.5 and
    -0.5; so cell n has ReLU(1.5 a - 0.5 b)."""
    weight = torch.zeros(2, 1, 2)
    weight[0, 0], weight[1, 0] = torch.tensor([3.0, 0.0]), torch.tensor([0.0, -1.0])
    cells = torch.tensor([[1.0, 1.0], [1.0, 4.0]])
    model, features = Linear(weight), one(cells, Layout(1, 1, 2))
    words = torch.tensor([0, 0])
    assert gradcam(model, features, words).tolist() == [[1.0, 0.0]] * 2  # 1.5 - 0.5; 1.5 - 2 < 0
    # Grad-CAM++: only channel 0 of cell 0 has g > 0: g / (2 + sum(A) g) = 3 / (2 + 2 * 3)
    torch.testing.assert_close(gradcam_plus_plus(model, features, words), torch.full((2, 2), 3 / 8))


def test_every_word_has_its_own_map_and_padding_none():
    """Word v looks for channel v; the third cell is padding and strong in both."""
    weight = torch.eye(2).expand(3, 2, 2)
    cells = torch.tensor([[2.0, 0.0], [0.0, 5.0], [9.0, 9.0]])
    features = one(cells, Layout(3, 1, 1), [True, True, False])
    for method in (gradcam, gradcam_plus_plus):
        found = method(Linear(weight), features, torch.tensor([0, 1]))
        assert (found > 0).tolist() == [[True, False, False], [False, True, False]]
    assert gradcam(Linear(weight), features, torch.tensor([0, 1]))[:, :2].tolist() == [[2, 0], [0, 5]]


def test_gradients_are_computed_where_they_were_switched_off():
    """Within no_grad, on weights that are not trained, the maps are the same; the captioner's own gradients are left
    alone."""
    model, words = small("show_attend_tell"), torch.tensor([4, 5])
    features = one(torch.randn(6, 10), Layout(1, 2, 3))
    expected = gradcam(model, features, words)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        found = gradcam(model, features, words)
    assert torch.equal(found, expected) and found.any() and not found.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


CELLS = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 3, width=32), min_size=3, max_size=3), min_size=n, max_size=n)
)


@settings(max_examples=60, deadline=None)
@given(CELLS, st.integers(0, 10_000), st.floats(-3, 3))
def test_grad_cam_plus_plus_equals_the_printed_formula(values: list[list[float]], seed: int, score: float):
    """alpha_ij = Y'' / (2 Y'' + sum_ab A_ab Y'''), w = sum alpha ReLU(Y') with Y = exp(S) of a piecewise linear net:
    Y' = e^S g, Y'' = e^S g^2, Y''' = e^S g^3."""
    A = torch.tensor(values, dtype=torch.float64)
    g = torch.randn(A.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    Y = np.exp(score)
    below = 2 * Y * g**2 + A.sum(0) * Y * g**3
    alpha = torch.where(g > 0, Y * g**2 / below, 0.0)  # where g <= 0 the weight is 0 whatever alpha is
    weights = (alpha * torch.relu(Y * g)).sum(0)
    torch.testing.assert_close(Y * cam_plus_plus(A, g), torch.relu(A @ weights))


def test_a_signed_channel_is_two_channels():
    draw = torch.Generator().manual_seed(0)
    A, g = torch.randn(7, 4, generator=draw), torch.randn(7, 4, generator=draw)
    split, both = torch.cat([A.relu(), (-A).relu()], 1), torch.cat([g, -g], 1)
    torch.testing.assert_close(cam_plus_plus(A, g), cam_plus_plus(split, both))
    torch.testing.assert_close(cam(A, g), cam(split, both))  # which Grad-CAM does not notice


def test_maps_are_stretched_and_constant_ones_do_not_divide_by_zero():
    values = torch.tensor([[1.0, 3.0, 2.0, -torch.inf], [5.0, 5.0, 5.0, 0.0], [0.0, 0.0, 0.0, 9.0]])
    found = normalise_maps(values, torch.tensor([True, True, True, False]))
    assert found.tolist() == [[0, 1, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


# --- the published map of a whole caption -----------------------------------------------------------------------------


def slow(model: FirstToken, features: Features, words: Tensor, plus_plus: bool) -> Tensor:
    """Step by step, in float64, as the goldens' README describes it."""
    model, features = model.double(), Features(features.grid.double(), features.mask, features.layout)
    memory = model.encode(features)
    state, score = model.init_state(memory), start_logits(model, memory).max()
    for word in [1, *words[:-1].tolist()]:
        logits, state, _ = model.step(torch.tensor([word]), state, memory)
        score = score + logits.max()
    (g,) = torch.autograd.grad(score, memory.cells)
    A, g = memory.cells[0].detach(), g[0]
    weights = torch.zeros(A.shape[1], dtype=torch.float64)
    for c in range(A.shape[1]):
        for n in range(len(A)):
            if plus_plus:
                below = 2 * g[n, c] ** 2 + (A[:, c] * g[:, c] ** 3).sum()
                weights[c] += g[n, c] ** 2 / ((below if below != 0 else 1) + 1e-7) * max(g[n, c].item(), 0)
            else:
                weights[c] += g[n, c] / len(A)
    found = torch.relu(A @ weights)
    found = found - found.min()
    return (found / found.max()).float()


@pytest.mark.parametrize("plus_plus", [False, True])
@pytest.mark.parametrize("options", [{}, {"layers": 2}, {"align": (2, 2, 2)}])
def test_the_published_map_equals_its_slow_twin(plus_plus: bool, options: dict):
    model = small("first_token", seed=5, **options)
    features = one(torch.randn(12, 10, generator=torch.Generator().manual_seed(1)), Layout(3, 2, 2))
    words = torch.tensor([4, 6, 8, EOS])
    assert isinstance(model, FirstToken)
    found = published_map(model, features, words, plus_plus)
    assert found.max() == 1 and found.min() == 0 and len(found) == (8 if "align" in options else 12)
    torch.testing.assert_close(found, slow(model, features, words, plus_plus), rtol=0, atol=1e-4)


def test_a_score_whose_exponential_overflows_gives_the_same_map():
    """exp(score) overflows float32 above 88; the map is that of a caption with a smaller score of equal gradient."""
    model = small("first_token", seed=5)
    assert isinstance(model, FirstToken)
    features, words = one(torch.randn(4, 10), Layout(1, 2, 2)), torch.tensor([4, 6, EOS])
    before = published_map(model, features, words, True)
    with torch.no_grad():
        model.head.bias += 1000
    torch.testing.assert_close(published_map(model, features, words, True), before, rtol=1e-3, atol=1e-3)


@pytest.mark.data
@pytest.mark.parametrize("golden", goldens("video_captioning_3d"), ids=str)
def test_maps_equal_the_published_ones(golden: Path):
    """The README's tolerance is 1e-4."""
    if not (golden / "data.npz").is_file():
        pytest.skip(f"no golden data at {golden}")
    data = {name: torch.from_numpy(array) for name, array in np.load(golden / "data.npz", allow_pickle=False).items()}
    size = data["logits"].shape[-1]
    config, tensors = map_weights(read_published(golden).tensors, size, str(golden))
    model = FirstToken(config, size, data["features"].shape[1]).eval()
    load_state_strictly(model, tensors, golden)
    for maps, words, length, *expected in zip(
        *(data[name] for name in ("features", "captions", "lengths", "gradcam", "gradcampp")), strict=True
    ):
        features = one(maps.flatten(1).T, Layout(*maps.shape[1:]))
        for plus_plus, map_ in zip((False, True), expected, strict=True):
            found = published_map(model, features, words[1:length], plus_plus)
            torch.testing.assert_close(found.view(map_.shape), map_, rtol=0, atol=1e-4)
