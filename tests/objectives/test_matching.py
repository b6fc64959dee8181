"""Distances between a student and its teacher, by hand."""

from itertools import pairwise
from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limner.core.types import Features, Layout
from limner.objectives.matching import (
    attention_divergence,
    cell_mapping,
    cell_overlap,
    divergence,
    mean_squared_distance,
    top_k_divergence,
)

INF = torch.inf


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_the_divergence_of_two_distributions_by_hand():
    """.5 log(.5/.25) + .5 log(.5/.75) = .5 log(4/3)"""
    found = divergence(logs([0.25, 0.75]), logs([0.5, 0.5]), 1.0)
    assert found.item() == pytest.approx(0.5 * log(4 / 3))
    twice = divergence(logs([0.25, 0.75], [0.5, 0.5]), logs([0.5, 0.5], [0.5, 0.5]), 1.0)
    assert twice.item() == pytest.approx(0.25 * log(4 / 3))  # a mean over the words


def test_temperature_takes_roots_of_the_probabilities():
    """At 2, (.2, .8) becomes (1, 2) / 3; the teacher's (.5, .5) stays."""
    found = divergence(logs([0.2, 0.8]), logs([0.5, 0.5]), 2.0)
    assert found.item() == pytest.approx(0.5 * log(0.5 / (1 / 3)) + 0.5 * log(0.5 / (2 / 3)))


def test_high_temperatures_match_logits():
    """Hinton et al. 2015, eq. 4: tau^2 KL -> half the variance-like distance of centred logits over V."""
    student, teacher = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.3, 1.0, -1.3]])
    gap = (student - student.mean()) - (teacher - teacher.mean())
    assert 1e4 * divergence(student.double(), teacher.double(), 100.0).item() == pytest.approx(
        gap.square().mean().item() / 2, rel=0.02
    )


@given(st.integers(0, 10_000), st.floats(0.2, 20))
def test_the_divergence_is_never_negative_and_zero_with_a_zero_gradient_where_both_agree(seed: int, temperature: float):
    torch.manual_seed(seed)
    student, teacher = torch.randn(3, 6, requires_grad=True), torch.randn(3, 6)
    assert divergence(student, teacher, temperature) >= -1e-6
    same = divergence(student, student.detach() + 4.0, temperature)  # a constant changes no softmax
    same.backward()
    assert abs(same.item()) < 1e-6 and student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("forbidden", [(True, True), (True, False), (False, True)])
def test_masked_words_do_not_count_on_either_side(forbidden: tuple[bool, bool]):
    """Word 0 is -inf for the student, the teacher or both: what is left is compared, and nothing becomes nan."""
    student, teacher = logs([0.5, 0.125, 0.375]), logs([0.9, 0.05, 0.05])
    student[:, 0] = -INF if forbidden[0] else student[:, 0]
    teacher[:, 0] = -INF if forbidden[1] else teacher[:, 0]
    student.requires_grad_()
    found = divergence(student, teacher, 1.0)
    found.backward()
    renormed = (0.25, 0.75) if forbidden[0] else (0.125, 0.375)
    assert found.item() == pytest.approx(0.5 * log(0.5 / renormed[0]) + 0.5 * log(0.5 / renormed[1]), rel=1e-5)
    assert student.grad.isfinite().all()


def likeliest(teacher: torch.Tensor, count: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    logp, words = (teacher / temperature).log_softmax(-1).topk(count)
    rest = (1 - logp.exp().sum(-1, keepdim=True)).clamp(min=0).log() if count < teacher.shape[1] else -INF
    return words, torch.cat([logp, torch.as_tensor(rest).expand(len(teacher), 1)], 1)


def test_top_k_divergence_by_hand():
    """Of (.1, .2, .3, .4) and the teacher's (.6, .05, .3, .05): the last word but one, the first, and .6 to .1."""
    student, (words, teacher) = logs([0.1, 0.2, 0.3, 0.4]), likeliest(logs([0.6, 0.05, 0.3, 0.05]), 2, 1.0)
    assert words.tolist() == [[0, 2]]
    expected = 0.6 * log(0.6 / 0.1) + 0.3 * log(0.3 / 0.3) + 0.1 * log(0.1 / 0.6)
    assert top_k_divergence(student, words, teacher, 1.0).item() == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 10_000), st.floats(0.5, 8))
def test_top_k_divergence_grows_with_k_to_the_whole_divergence(seed: int, temperature: float):
    """Coarser outcomes cannot diverge more (the log sum inequality); no gradient becomes nan where no other is left."""
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, 7), torch.randn(2, 7)
    student[:, 1] = teacher[:, 1] = -INF
    student.requires_grad_()
    found = [top_k_divergence(student, *likeliest(teacher, k, temperature), temperature) for k in range(1, 8)]
    whole = divergence(student, teacher, temperature).item()
    assert found[-1].item() == pytest.approx(whole, abs=1e-5) and found[0].item() >= -1e-5
    assert all(a.item() <= b.item() + 1e-5 for a, b in pairwise(found))
    for loss in (found[0], found[-1]):
        loss.backward()
        assert student.grad.isfinite().all()


def test_attention_divergence_by_hand():
    """A cell that both leave out counts nothing."""
    student, teacher = torch.tensor([[0.25, 0.75, 0.0]], requires_grad=True), torch.tensor([[0.5, 0.5, 0.0]])
    found = attention_divergence(student, teacher)
    found.backward()
    assert found.item() == pytest.approx(0.5 * log(4 / 3)) and student.grad.isfinite().all()
    assert attention_divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-7)


def test_distance_of_hidden_states_by_hand():
    assert mean_squared_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]])).item() == 2.0


def test_overlap_of_grids_by_hand():
    """Three columns over two: the middle one is halved; 2 x 2 into one: all of each."""
    columns = cell_overlap(Layout(1, 1, 3), Layout(1, 1, 2))
    torch.testing.assert_close(columns, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(cell_overlap(Layout(1, 2, 2), Layout(1, 1, 1)), torch.ones(4, 1))


sides = st.integers(1, 4)


@given(sides, sides, sides, sides, sides, sides)
def test_overlap_keeps_the_sum_and_is_that_of_the_boxes(a: int, b: int, c: int, d: int, e: int, f: int):
    theirs, own = Layout(a, b, c), Layout(d, e, f)
    found = cell_overlap(theirs, own)
    torch.testing.assert_close(found.sum(1), torch.ones(theirs.cells))
    torch.testing.assert_close(found.sum(0), torch.full((own.cells,), theirs.cells / own.cells))
    if a == d == 1:  # the slow twin: intersections of boxes
        x, y = theirs.boxes()[:, None], own.boxes()[None]
        inner = (torch.minimum(x[..., 2:], y[..., 2:]) - torch.maximum(x[..., :2], y[..., :2])).clamp(min=0).prod(-1)
        torch.testing.assert_close(found, inner * theirs.cells, atol=1e-5, rtol=1e-5)


def cells(layout: Layout, real: int | None = None, regions: bool = False) -> Features:
    mask = torch.arange(layout.cells)[None] < (layout.cells if real is None else real)
    return Features(torch.zeros(1, layout.cells, 2), mask, layout, layout.boxes()[None] if regions else None)


def test_cells_that_do_not_tile_the_picture_are_refused():
    assert cell_mapping(cells(Layout(3, 1, 1), 2), cells(Layout(3, 1, 1), 2)) is None
    found = cell_mapping(cells(Layout(1, 2, 2)), cells(Layout(1, 1, 1)))
    assert found is not None and found.shape == (4, 1)
    for theirs, own in [
        (cells(Layout(3, 1, 1), 2), cells(Layout(3, 1, 1))),
        (cells(Layout(3, 1, 1), 2), cells(Layout(2, 1, 1))),
        (cells(Layout(1, 1, 3), regions=True), cells(Layout(1, 1, 3))),
    ]:
        with pytest.raises(ValueError, match="cannot be compared: regions, or clips of different length"):
            cell_mapping(theirs, own)
