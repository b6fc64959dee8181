"""Saliency is what the definition says: the word's log-probability with nothing but one part of the medium."""

from itertools import product

import pytest
import torch

from limner.core.types import Features, Layout
from limner.explanations import saliency as module
from limner.explanations.cells import sentence_logprobs
from limner.explanations.saliency import parse_block, saliency
from tests.models.captioners import SMALL, small

WORDS = torch.tensor([4, 8, 3])


def clip(layout: Layout, seed: int = 0) -> Features:
    grid = torch.randn(1, layout.cells, 10, generator=torch.Generator().manual_seed(seed))
    return Features(grid, torch.ones(1, layout.cells, dtype=torch.bool), layout)


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("block", [Layout(1, 1, 1), Layout(1, 99, 99), Layout(99, 1, 1), Layout(2, 2, 2)])
def test_the_saliency_of_a_part_is_its_log_probability_alone(case: str, block: Layout):
    """Each block is cut out by its own coordinates, and given alone; 3 and 5 are no multiples of 2."""
    model, features = small(case), clip(Layout(3, 2, 5))
    other, free = model.prepare_for_occlusion(features)
    found = saliency(model, features, WORDS, block).view(3, 3, 2, 5)
    cells = free.grid.view(3, 2, 5, 10)
    for t, y, x in product(*(range(0, side, step) for side, step in zip(free.layout, block, strict=True))):
        part = cells[t : t + block.t, y : y + block.h, x : x + block.w]
        alone = Features(part.reshape(1, -1, 10), torch.ones(1, part[..., 0].numel(), dtype=torch.bool),
                         Layout(*part.shape[:3]))  # fmt: skip
        expected = sentence_logprobs(other, alone, WORDS)[0]
        inside = found[:, t : t + block.t, y : y + block.h, x : x + block.w].flatten(1)
        torch.testing.assert_close(inside, expected[:, None].expand_as(inside), rtol=1e-4, atol=1e-5)


def test_one_part_with_all_cells_gives_the_usual_log_probability():
    model, features = small("spatio_temporal"), clip(Layout(2, 2, 2))
    found = saliency(model, features, WORDS, Layout(9, 9, 9))
    torch.testing.assert_close(found, sentence_logprobs(model, features, WORDS)[0][:, None].expand(3, 8))


def test_padding_is_not_part_of_any_unit():
    model, features = small("sa_lstm"), clip(Layout(4, 1, 1))
    features = Features(features.grid, torch.tensor([[True, True, False, True]]), features.layout)
    found = saliency(model, features, WORDS)
    assert (found[:, 2] == -torch.inf).all() and found[:, [0, 1, 3]].isfinite().all()
    paired = saliency(model, features, WORDS, Layout(2, 1, 1))
    torch.testing.assert_close(paired[:, 3], found[:, 3])  # the third frame adds nothing to the fourth


def test_parts_are_computed_in_portions(monkeypatch: pytest.MonkeyPatch):
    model, features = small("show_attend_tell"), clip(Layout(2, 3, 3))
    together, asked = saliency(model, features, WORDS), []

    def few(one: Features, words: int) -> int:
        asked.append((one.grid.shape, words))
        return 4

    monkeypatch.setattr(module, "max_batch_size", few)
    torch.testing.assert_close(saliency(model, features, WORDS), together)
    assert asked == [((1, 1, 10), 3)]


def test_units_by_name_and_number():
    most = parse_block("frame").h
    assert parse_block("cell") == (1, 1, 1) and parse_block("2,3,4") == (2, 3, 4)
    assert parse_block("frame") == (1, most, most) and parse_block("region") == (most, 1, 1)
    for bad in ("", "pixel", "2,2", "0,1,1", "1,1,-1", "1,1,x"):
        with pytest.raises(ValueError, match="expected cell, frame, region, or cells in time, height and width"):
            parse_block(bad)
