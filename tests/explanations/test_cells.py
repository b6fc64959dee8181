"""Cells that can be taken away: the captioner says the same, and what is left does not notice."""

import pytest
import torch
from torch.nn import functional as F

from limner.core.types import BOS, Features, Layout
from limner.explanations.cells import sentence_logprobs, without_encoder
from limner.models.captioner import FromPixels
from limner.models.position_embedding import cell_centres, fourier_features
from limner.models.spatiotemporal import SpatioTemporal
from tests.models.captioners import SMALL, pick, random_features, small

WORDS = torch.tensor([4, 8, 3, 5])


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("row", [0, 1, 2])  # all cells; the last missing; a hole in the middle
def test_a_model_prepared_for_occlusion_predicts_the_same(case: str, row: int):
    model, features = small(case), pick(random_features(), [row])
    before = sentence_logprobs(model, features, WORDS)
    assert torch.equal(sentence_logprobs(*_pair(model, features)), before)
    tokens = torch.cat([torch.tensor([BOS]), WORDS[:-1]])[None]
    expected = model(features, tokens).log_softmax(-1)[0].gather(1, WORDS[:, None])[:, 0]
    torch.testing.assert_close(before[0], expected)


@pytest.mark.parametrize("options", [{"align": (2, 2, 2)}, {"align": (1, 3, 1), "pool": "max"}])
def test_aligned_maps_are_resampled_beforehand(options: dict):
    model = small("first_token", **options)
    features = Features(torch.randn(1, 12, 10), torch.ones(1, 12, dtype=torch.bool), Layout(3, 2, 2))
    other, free = model.prepare_for_occlusion(features)
    assert free.layout == Layout(*options["align"])
    expected = F.interpolate(features.grid.transpose(1, 2).view(1, 10, 3, 2, 2), options["align"], mode="trilinear")
    torch.testing.assert_close(free.grid[0].T, expected.flatten(2)[0])
    torch.testing.assert_close(sentence_logprobs(other, free, WORDS), sentence_logprobs(model, features, WORDS))
    assert model.config.align is not None, "the captioner itself stays as it was"
    holes = Features(free.grid, torch.arange(free.grid.shape[1])[None] != 1, free.layout)
    assert sentence_logprobs(other, holes, WORDS).isfinite().all()
    with pytest.raises(ValueError, match="cells are missing"):
        sentence_logprobs(model, holes, WORDS)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("sa_lstm", {"position_embedding": True}),
        ("spatio_temporal", {}),
        ("spatial_transformer", {"position_embedding": True, "positions": "none"}),
        ("xlan", {"position_embedding": True}),
    ],
)
def test_a_cell_keeps_its_time_when_other_cells_are_occluded(case: str, options: dict):
    """Of a clip of six frames only the third is left: the captioner must not take it for the clip's last."""
    model = small(case, **options)
    grid = torch.randn(1, 6, 10, generator=torch.Generator().manual_seed(3))
    whole = Features(grid, torch.ones(1, 6, dtype=torch.bool), Layout(6, 1, 1))
    alone = torch.arange(6)[None] == 2
    other, free = model.prepare_for_occlusion(whole)
    kept = sentence_logprobs(other, Features(free.grid, alone, free.layout), WORDS)
    told = grid + model.position_embedding(fourier_features(cell_centres(whole)))  # type: ignore[union-attr, operator]
    if isinstance(model, SpatioTemporal):
        torch.testing.assert_close(kept, sentence_logprobs(model.captioner, Features(told, alone, whole.layout), WORDS))
    shown = sentence_logprobs(other, Features(told[:, 2:3], alone[:, 2:3], Layout(1, 1, 1)), WORDS)
    torch.testing.assert_close(kept, shown)  # and it makes no difference whether the others are masked or not there
    masked = sentence_logprobs(model, Features(grid, alone, whole.layout), WORDS)
    assert not torch.allclose(kept, masked, atol=1e-3), "the captioner alone is told that the clip ends there"
    assert model.position_embedding is not None, "the captioner itself stays as it was"


def test_unmasked_sa_lstm_attends_to_padding_as_before():
    model = small("sa_lstm, all options", masked=False)
    features = pick(random_features(), [1])
    torch.testing.assert_close(sentence_logprobs(*_pair(model, features)), sentence_logprobs(model, features, WORDS))
    assert model.prepare_for_occlusion(features)[1].mask.all()


def test_an_encoder_in_front_is_removed():
    model = small("sa_lstm")
    assert without_encoder(FromPixels(torch.nn.Identity(), model)) is model and without_encoder(model) is model


def _pair(model, features):
    return (*model.prepare_for_occlusion(features), WORDS)
