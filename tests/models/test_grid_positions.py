"""Shares of boxes in grid cells, worked out on paper."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limner.core.types import Layout
from limner.models.attention_blocks import sinusoidal_table
from limner.models.grid_positions import (
    POSITIONS,
    AreaShare,
    Gxg,
    Sinusoidal,
    grid_side,
    grid_vector,
    row_and_column_shares,
)

SHARES = get_args(AreaShare)


def boxes(*values: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(values)


def test_grid_vectors_by_hand():
    third = 1 / 3
    shares = grid_vector(
        boxes(
            (third, 0, 2 * third, third),  # one cell: the middle of the first row
            (0, 0, 1, 1),  # the whole picture
            (0, 0, 0.5, third),  # 1/3 of the picture's width in the first cell, 1/6 in the second
            (third / 2, third / 2, third * 1.5, third * 1.5),  # a quarter in each of four cells
        ),
        3,
    )
    expected = torch.zeros(4, 3, 3)
    expected[0, 0, 1] = 1
    expected[1] = 1 / 9
    expected[2, 0, :2] = torch.tensor([2 / 3, 1 / 3])
    expected[3, :2, :2] = 1 / 4
    torch.testing.assert_close(shares.view(4, 3, 3), expected, rtol=0, atol=1e-6)


def test_shares_of_cells_by_hand():
    """Half the picture's width, two thirds of its height, over 3 x 3 cells, half a cell from the border."""
    sixth = 1 / 6
    box = boxes((sixth, sixth, 4 * sixth, 5 * sixth), (0, 0, 1, 1))
    expected = torch.tensor([[0.25, 0.5, 0], [0.5, 1, 0], [0.25, 0.5, 0]])
    found = grid_vector(box, 3, "cell").view(2, 3, 3)
    torch.testing.assert_close(found, torch.stack([expected, torch.ones(3, 3)]), rtol=0, atol=1e-6)
    rows, columns = row_and_column_shares(box, 3, "cell")
    torch.testing.assert_close(rows, torch.tensor([[0.75, 1.5, 0.75], [3, 3, 3]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(columns, torch.tensor([[1.0, 2, 0], [3, 3, 3]]), rtol=0, atol=1e-6)


def test_boxes_count_only_where_they_lie_in_the_picture():
    """The box of the lower right quarter, drawn too far; boxes beyond the border, without area or turned around."""
    far = grid_vector(boxes((0.5, 0.5, 7, 9), (0.5, 0.5, 1, 1)), 2)
    assert far.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    whole = grid_vector(boxes((0.5, 0.25, 7, 9)), 2, "cell")
    assert whole.tolist() == [[0, 0.5, 0, 1]]
    nothing = boxes((2, 2, 3, 3), (0.3, 0.3, 0.3, 0.8), (0.8, 0.2, 0.2, 0.9), (0, 0, 0, 0), (-2, 0, -1, 1))
    for share in SHARES:
        assert (grid_vector(nothing, 2, share) == 0).all()
        assert all((part == 0).all() for part in row_and_column_shares(nothing, 2, share))


coordinate = st.floats(-0.5, 1.5, width=32)


@given(st.tuples(coordinate, coordinate, coordinate, coordinate), st.integers(1, 7))
def test_every_overlap_is_that_of_two_rectangles(box: tuple[float, float, float, float], side: int):
    """The slow twin: the area of the intersection with every cell, divided by their sum or by the cell's area."""
    x0, y0, x1, y1 = box
    areas = []
    for i in range(side):
        for j in range(side):
            wide = min(x1, (j + 1) / side) - max(x0, j / side)
            high = min(y1, (i + 1) / side) - max(y0, i / side)
            areas.append(max(0.0, wide) * max(0.0, high))
    whole = sum(areas)
    if 0 < whole < 1e-9:
        return  # too thin for float32
    expected = torch.tensor([area / whole if whole else 0.0 for area in areas])
    torch.testing.assert_close(grid_vector(boxes(box), side)[0], expected, rtol=0, atol=2e-3)
    rows, columns = row_and_column_shares(boxes(box), side)
    for part, axis in ((rows, 1), (columns, 0)):
        torch.testing.assert_close(part[0], expected.view(side, side).sum(axis), rtol=0, atol=2e-3)
        assert part.sum().item() == pytest.approx(1 if whole else 0, abs=1e-4)
    cells = torch.tensor(areas) * side**2
    torch.testing.assert_close(grid_vector(boxes(box), side, "cell")[0], cells, rtol=0, atol=1e-4)


def test_cells_of_a_grid_are_told_apart():
    """The boxes of a 3 x 4 layout over 3 x 3: row k lies in row k."""
    rows, columns = row_and_column_shares(Layout(1, 3, 4).boxes(), 3)
    torch.testing.assert_close(rows, torch.eye(3).repeat_interleave(4, 0))
    torch.testing.assert_close(columns[:4], torch.tensor([[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 2 / 3, 1 / 3], [0, 0, 1]]))


@pytest.mark.parametrize(
    ("grid", "hint"), [(143, "121 = 11x11 and 144"), (0, "1 = 1x1"), (-4, "no square"), (2, "1 = 1x1 and 4")]
)
def test_grids_must_be_square(grid: int, hint: str):
    with pytest.raises(ValueError, match=hint):
        grid_side(grid)


def test_the_side_of_a_grid_is_the_root_of_its_cells():
    assert [grid_side(grid) for grid in (1, 4, 144, 576)] == [1, 2, 12, 24]


def test_gxg_by_hand():
    """W3 x + W1 r + W2 c and their biases, with a box in the upper half: r = (1, 0), c = (1/2, 1/2)."""
    layer = Gxg(2, 4)
    with torch.no_grad():
        for number, part in enumerate((layer.rows, layer.columns, layer.cells)):
            part.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * 10**number)
            part.bias.fill_(1000.0 * (number + 1))
    placed = layer(torch.tensor([[[1.0, 1.0]]]), boxes((0, 0, 1, 0.5))[None])
    assert placed.tolist() == [[[1 + 15 + 300 + 6000, 3 + 35 + 700 + 6000]]]


def test_gxg_depends_on_rows_and_columns_only():
    """Checklist 7: two pictures' worth of area with equal row and column sums cannot be told apart by their sums."""
    diagonal = grid_vector(boxes((0, 0, 0.5, 0.5)), 2) + grid_vector(boxes((0.5, 0.5, 1, 1)), 2)
    other = grid_vector(boxes((0.5, 0, 1, 0.5)), 2) + grid_vector(boxes((0, 0.5, 0.5, 1)), 2)
    assert diagonal.tolist() != other.tolist()
    for axis in (1, 2):
        assert diagonal.view(1, 2, 2).sum(axis).tolist() == other.view(1, 2, 2).sum(axis).tolist()


def test_sinusoidal_positions_by_hand():
    """A box in cell (1, 0): sines and cosines of 1 for its row, cosines and sines of 0 for its column."""
    placed = Sinusoidal(4, 4)(torch.zeros(1, 1, 4), boxes((0, 0.5, 0.5, 1))[None])[0, 0]
    one, small = torch.tensor(1.0), torch.tensor(0.01)
    torch.testing.assert_close(placed, torch.stack([one.sin() + 1, one.cos(), small.sin() + 1, small.cos()]))
    assert [*Sinusoidal(4, 4).parameters()] == []
    assert sinusoidal_table(torch.tensor([0]), 4).tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", POSITIONS)
def test_every_position_embedding_is_finite_for_any_box(name: str, share: AreaShare):
    layer = POSITIONS[name](6, 9, share)
    strange = boxes((-5, -5, 9, 9), (0.5, 0.5, 0.5, 0.5), (1, 1, 0, 0), (0, 0, 1e-30, 1e-30))[None]
    x = torch.randn(1, 4, 6)
    placed = layer(x, strange)
    assert placed.shape == x.shape and placed.isfinite().all()
    assert (name == "none") == torch.equal(placed, x)
