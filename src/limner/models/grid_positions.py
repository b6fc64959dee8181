"""Position encodings of regions by their overlap with a g x g grid over the image.

The overlap of a box with grid cell (i, j) is the product of two overlaps of intervals, one in rows and one in columns.
The vector of all G = g x g overlaps is therefore the outer product of g row shares and g column shares.  It is computed
from the boxes here; the script that stored it in files was never published.

Example for g = 2, the box x0, y0, x1, y1 = 0, 0, 0.75, 0.5 and shares of the box's area:

    row shares     1, 0        all of the box lies in the upper row
    column shares  2/3, 1/3    0.5 of its width 0.75 lies in the left column
    grid vector    2/3, 1/3, 0, 0
"""

from math import isqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limner.models.attention_blocks import sinusoidal_table

AreaShare = Literal["box", "cell"]  # the area that an overlap is a share of: the box's or the grid cell's


def grid_side(grid: int) -> int:
    """The side g of a grid of G = g x g cells.  Raises ValueError when G is not a square number.

    >>> grid_side(144)
    12
    """
    side = isqrt(max(grid, 0))
    if side < 1 or side * side != grid:
        near = max(1, isqrt(max(grid, 1)))
        raise ValueError(
            f"a grid of {grid} cells is no square; the next ones are {near**2} = {near}x{near} and {(near + 1) ** 2}"
        )
    return side


def row_and_column_shares(
    boxes: Float[Tensor, "*B 4"], side: int, share: AreaShare = "box"
) -> tuple[Float[Tensor, "*B g"], Float[Tensor, "*B g"]]:
    """The shares of relative boxes (x0, y0, x1, y1) in each row and each column of the grid.

    They are the sums of `grid_vector` over the columns and over the rows.  Boxes are clipped to the image; a box
    without area in the image gives zeros.

    >>> rows, columns = row_and_column_shares(torch.tensor([0.0, 0.0, 0.75, 0.5]), 2)
    >>> rows.tolist(), [round(share, 3) for share in columns.tolist()]
    ([1.0, 0.0], [0.667, 0.333])
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    wide, high = _interval_overlap(x0, x1, side), _interval_overlap(y0, y1, side)
    width, height = wide.sum(-1, keepdim=True), high.sum(-1, keepdim=True)
    has_area = (width > 0) & (height > 0)
    if share == "cell":
        return side**2 * high * width * has_area, side**2 * wide * height * has_area
    one = torch.ones_like(width)
    rows, columns = (part / total.where(has_area, one) * has_area for part, total in ((high, height), (wide, width)))
    return rows, columns


def grid_vector(boxes: Float[Tensor, "*B 4"], side: int, share: AreaShare = "box") -> Float[Tensor, "*B G"]:
    """The area that a box shares with each of G = side x side grid cells, row by row.

    It is a share of the box's area in the image (the shares sum to 1) or of the grid cell's area (each in [0, 1]).

    >>> grid_vector(torch.tensor([0.0, 0.0, 0.75, 0.5]), 2, "cell").tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    rows, columns = row_and_column_shares(boxes, side, share)
    total = rows.sum(-1, keepdim=True)  # 1 for shares of the box
    rows = rows / total.where(total > 0, torch.ones_like(total))
    return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2)


def _interval_overlap(low: Float[Tensor, "*B"], high: Float[Tensor, "*B"], side: int) -> Float[Tensor, "*B g"]:
    edges = torch.arange(side + 1, device=low.device, dtype=low.dtype) / side
    inside = torch.minimum(high.unsqueeze(-1), edges[1:]) - torch.maximum(low.unsqueeze(-1), edges[:-1])
    return inside.clamp(min=0)


class Gxg(nn.Module):
    """`gxg`: W3 x + W1 r + W2 c + biases, with the row shares r and column shares c of the box.

    It knows as much about a box as `g2`, whose vector is the outer product of r and c.
    """

    def __init__(self, dim: int, grid: int, share: AreaShare = "box"):
        super().__init__()
        self.side, self.share = grid_side(grid), share
        self.rows, self.columns = nn.Linear(self.side, dim), nn.Linear(self.side, dim)
        self.cells = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        rows, columns = row_and_column_shares(boxes, self.side, self.share)
        return self.cells(x) + self.rows(rows) + self.columns(columns)


class G2(nn.Module):
    """`g2`: x + W v + b, with the shares v of the box in all G grid cells."""

    def __init__(self, dim: int, grid: int, share: AreaShare = "box"):
        super().__init__()
        self.side, self.share = grid_side(grid), share
        self.vector = nn.Linear(grid, dim)

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        return x + self.vector(grid_vector(boxes, self.side, self.share))


class BoxMlp(nn.Module):
    """`box`: x + MLP(x0, y0, x1, y1)."""

    def __init__(self, dim: int, grid: int, share: AreaShare = "box"):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(4, max(1, dim // 2)), nn.ReLU(), nn.Linear(max(1, dim // 2), dim))

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        return x + self.mlp(boxes.clamp(0, 1))


class Sinusoidal(nn.Module):
    """`sinusoidal`: x + sum_i r_i S_i + sum_j c_j C_j with row shares r, column shares c and fixed tables S and C.

    S has sines in even and cosines in odd channels.  C has them the other way round, which makes rows and columns
    different.  There are no parameters.
    """

    def __init__(self, dim: int, grid: int, share: AreaShare = "box"):
        super().__init__()
        self.side, self.share = grid_side(grid), share

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        rows, columns = row_and_column_shares(boxes, self.side, self.share)
        table = sinusoidal_table(torch.arange(self.side, device=x.device), x.shape[-1])
        swapped = table.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return x + (rows @ table + columns @ swapped).to(x.dtype)


class NoPosition(nn.Module):
    """`none`: x; the cells have no order and no position."""

    def __init__(self, dim: int, grid: int, share: AreaShare = "box"):
        super().__init__()

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        return x


POSITIONS: dict[str, type[nn.Module]] = {
    "gxg": Gxg,
    "g2": G2,
    "box": BoxMlp,
    "sinusoidal": Sinusoidal,
    "none": NoPosition,
}
GRID_POSITIONS = ("gxg", "g2", "sinusoidal")  # the encodings that use a grid of G cells
