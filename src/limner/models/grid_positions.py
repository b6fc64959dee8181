"""Where a region lies, as its overlaps with the cells of a g x g grid, and encodings of the cells made from them.

The overlap of a box with cell (i, j) is the product of two overlaps of intervals, so that all of a vector of
G = g x g cells is in g rows and g columns.  It is made from boxes on the fly; the script that stored it as files was
never published.
"""

from math import isqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limner.models.attention_blocks import sinusoids

Share = Literal["box", "cell"]  # of whose area an overlap is a part


def side_of(grid: int) -> int:
    """g of G = g x g cells.  Raises ValueError when there is no such g."""
    side = isqrt(max(grid, 0))
    if side < 1 or side * side != grid:
        near = max(1, isqrt(max(grid, 1)))
        raise ValueError(
            f"a grid of {grid} cells is no square; the next ones are {near**2} = {near}x{near} and {(near + 1) ** 2}"
        )
    return side


def rows_and_columns(
    boxes: Float[Tensor, "*B 4"], side: int, share: Share = "box"
) -> tuple[Float[Tensor, "*B g"], Float[Tensor, "*B g"]]:
    """Relative xyxy boxes -> what each row and each column of the grid has of them: the sums of `grid_vector`.

    What lies outside the picture is cut off.  A box without area in the picture gives zeros.
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    wide, high = _overlap(x0, x1, side), _overlap(y0, y1, side)
    width, height = wide.sum(-1, keepdim=True), high.sum(-1, keepdim=True)
    some = (width > 0) & (height > 0)
    if share == "cell":
        return side**2 * high * width * some, side**2 * wide * height * some
    one = torch.ones_like(width)
    rows, columns = (part / whole.where(some, one) * some for part, whole in ((high, height), (wide, width)))
    return rows, columns


def grid_vector(boxes: Float[Tensor, "*B 4"], side: int, share: Share = "box") -> Float[Tensor, "*B G"]:
    """The area that a box shares with each of G = side x side cells, row by row, as a part of the box's area in the
    picture (these sum to 1) or of the cell's (each in [0, 1])."""
    rows, columns = rows_and_columns(boxes, side, share)
    total = rows.sum(-1, keepdim=True)  # 1 of boxes
    rows = rows / total.where(total > 0, torch.ones_like(total))
    return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2)


def _overlap(low: Float[Tensor, "*B"], high: Float[Tensor, "*B"], side: int) -> Float[Tensor, "*B g"]:
    edges = torch.arange(side + 1, device=low.device, dtype=low.dtype) / side
    inside = torch.minimum(high.unsqueeze(-1), edges[1:]) - torch.maximum(low.unsqueeze(-1), edges[:-1])
    return inside.clamp(min=0)


class Gxg(nn.Module):
    """W3 x + W1 r + W2 c + biases, r and c the shares in rows and columns: it cannot tell boxes with equal r and c
    apart, of which a `g2` could."""

    def __init__(self, dim: int, grid: int, share: Share = "box"):
        super().__init__()
        self.side, self.share = side_of(grid), share
        self.rows, self.columns = nn.Linear(self.side, dim), nn.Linear(self.side, dim)
        self.cells = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        rows, columns = rows_and_columns(boxes, self.side, self.share)
        return self.cells(x) + self.rows(rows) + self.columns(columns)


class G2(nn.Module):
    """x + W v + b, v the shares in all G cells."""

    def __init__(self, dim: int, grid: int, share: Share = "box"):
        super().__init__()
        self.side, self.share = side_of(grid), share
        self.vector = nn.Linear(grid, dim)

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        return x + self.vector(grid_vector(boxes, self.side, self.share))


class BoxMlp(nn.Module):
    """x + MLP(x0, y0, x1, y1)."""

    def __init__(self, dim: int, grid: int, share: Share = "box"):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(4, max(1, dim // 2)), nn.ReLU(), nn.Linear(max(1, dim // 2), dim))

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        return x + self.mlp(boxes.clamp(0, 1))


class Sinusoidal(nn.Module):
    """x + sum_i r_i S_i + sum_j c_j C_j with fixed tables: S has sines at even and cosines at odd channels, C the other
    way round, so that up and left are told apart.  Nothing is learnt."""

    def __init__(self, dim: int, grid: int, share: Share = "box"):
        super().__init__()
        self.side, self.share = side_of(grid), share

    def forward(self, x: Float[Tensor, "B N D"], boxes: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N D"]:
        rows, columns = rows_and_columns(boxes, self.side, self.share)
        table = sinusoids(torch.arange(self.side, device=x.device), x.shape[-1])
        swapped = table.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return x + (rows @ table + columns @ swapped).to(x.dtype)


class NoPosition(nn.Module):
    """x: cells are a set."""

    def __init__(self, dim: int, grid: int, share: Share = "box"):
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
GRIDS = ("gxg", "g2", "sinusoidal")  # those that see a grid of G cells
