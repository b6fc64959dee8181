"""Media without a single real cell, such as pictures in which a detector found no regions: nothing is read of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.core.types import EOS, Features, Layout
from limner.models.captioner import Captioner, not_ended, unroll
from limner.models.layers import AdditiveAttention, masked_max
from limner.models.sft_network import Attention
from tests.models.captioners import SMALL, random_features, small
from tests.models.test_captioner import TOKENS, close

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **{case: (case, {}) for case in SMALL},
    "show_attend_tell, from the maximum": ("show_attend_tell", {"initial": "max"}),
    "spatio_temporal, from the maximum": ("spatio_temporal", {"initial": "max"}),
    "spatial_transformer, with geometry": ("spatial_transformer", {"geometry": True, "positions": "gxg"}),
    "sft, LSTM over slots": ("sft, teacher with slots", {"module": "lstm"}),
    "up_down, with places": ("up_down", {"position_embedding": True}),
}


@pytest.fixture(params=OPTIONS)
def model(request: pytest.FixtureRequest) -> Captioner:
    case, options = OPTIONS[request.param]
    return small(case, **options)


def without_cells(features: Features, *rows: int) -> Features:
    mask = features.mask.clone()
    mask[list(rows)] = False
    return replace(features, mask=mask)


def gradients(model: Captioner, features: Features) -> dict[str, Tensor]:
    """Of every parameter that has one; of one without, zeros."""
    model.zero_grad()
    logits = model(features, TOKENS)
    logits.masked_fill(logits.isinf(), 0).square().sum().backward()
    return {name: torch.zeros_like(it) if it.grad is None else it.grad for name, it in model.named_parameters()}


def test_a_medium_without_cells_reads_nothing_and_does_not_disturb_the_others(model: Captioner):
    """Medium 0 has no real cell: whatever its padding holds, beside others, alone, and with a grid of no cells."""
    features = random_features()
    some = without_cells(features, 0)
    whole = model(features, TOKENS)
    with torch.no_grad():
        forced, stepped = (
            model.forward_teacher_forced(model.encode(some), TOKENS),
            unroll(model, model.encode(some), TOKENS),
        )
    alive = not_ended(TOKENS)
    assert forced.logits[alive][:, EOS:].isfinite().all() and not forced.logits.isnan().any()
    assert (forced.attention[0] == 0).all() and (stepped.attention[0] == 0).all()
    close(stepped.logits, forced.logits)
    torch.testing.assert_close(forced.logits[1:], whole[1:], rtol=1e-6, atol=1e-6)
    other = replace(some, grid=some.grid.masked_fill(~some.mask[..., None], 7.0))
    assert torch.equal(model(other, TOKENS)[0], model(some, TOKENS)[0])
    for alone in (
        without_cells(features, 0, 1, 2, 3),
        Features(features.grid[:, :0], some.mask[:, :0], Layout(1, 1, 0)),
    ):
        for way in (model.forward_teacher_forced, lambda *told: unroll(model, *told)):
            found = way(model.encode(alone), TOKENS)
            assert (found.attention == 0).all() and found.attention.shape == (*TOKENS.shape, alone.layout.cells)
            close(found.logits[0], forced.logits[0])


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_the_words_alone(model: Captioner, training: bool):
    """Finite, and without dropout the same for cells that are all padding and for a grid of no cells."""
    features = random_features()
    none = Features(features.grid[:, :0], features.mask[:, :0], Layout(1, 1, 0))
    some, padded, empty = (
        gradients(model.train(training), given)
        for given in (without_cells(features, 0), without_cells(features, 0, 1, 2, 3), none)
    )
    for grad in (*some.values(), *padded.values(), *empty.values()):
        assert grad.isfinite().all()
    assert any(grad.any() for grad in empty.values())
    if not training:
        for name, grad in padded.items():
            torch.testing.assert_close(grad, empty[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("counts", [None, [1, 1]])
def test_additive_attention_by_hand(counts: list[int] | None):
    """Of equal cells the weights are 1/2 each; of none they are 0, and so is what is read."""
    values = torch.tensor([[[2.0], [4.0]], [[2.0], [4.0]]])
    attend = AdditiveAttention(3, 1, 2)
    mask = torch.tensor([[True, True], [False, False]])
    context, weights = attend(torch.ones(2, 3), values, torch.zeros(2, 2, 2), mask, counts)
    assert context.tolist() == [[3.0], [0.0]] and weights.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_attention_of_heads_by_hand():
    """With all maps the identity: the mean of two equal keys' values, and 0 where there is none."""
    attend = Attention(2, 1, 0.0)
    for part in (attend.query, attend.key, attend.value, attend.out):
        torch.nn.init.eye_(part.weight)
        torch.nn.init.zeros_(part.bias)
    memory = torch.tensor([[[1.0, 2.0], [1.0, 4.0]]] * 2)
    mask = torch.tensor([[True, True], [False, False]])
    assert attend(torch.tensor([[[1.0, 0.0]]] * 2), memory, mask).tolist() == [[[1.0, 3.0]], [[0.0, 0.0]]]


def test_the_maximum_over_no_cells_is_0():
    cells = torch.tensor([[[-1.0], [-2.0]], [[5.0], [7.0]]])
    assert masked_max(cells, torch.tensor([[False, True], [False, False]])).tolist() == [[-2.0], [0.0]]
    assert masked_max(cells[:, :0], torch.ones(2, 0, dtype=torch.bool)).tolist() == [[0.0], [0.0]]
