"""Saliency that any captioner has, whether it attends or not (Ramanishka et al. 2017, arXiv:1612.07360): how likely a
word is when the captioner is given one part of the medium only.

A part is a block of cells: a single one, a frame (1, h, w), a region through all frames (t, 1, 1), or any other size.
"""

import sys
from collections.abc import Iterator
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import Features, Layout
from limner.explanations.cells import log_probabilities, rows_at_once
from limner.models.captioner import Captioner

CELL = Layout(1, 1, 1)


def block_of(unit: str) -> Layout:
    """cell, frame, region, or "2,2,2" -> cells of a block in time, height and width; more than there are means all.

    Raises ValueError for anything else.
    """
    most = sys.maxsize
    named = {"cell": CELL, "frame": Layout(1, most, most), "region": Layout(most, 1, 1)}
    if unit in named:
        return named[unit]
    sides = unit.split(",")
    if len(sides) != 3 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise ValueError(f"unit {unit!r}: expected cell, frame, region, or cells in time, height and width as in 2,2,2")
    return Layout(*map(int, sides))


@torch.no_grad()
def saliency(
    model: Captioner, features: Features, words: Int[Tensor, " L"], block: Layout = CELL
) -> Float[Tensor, "L N"]:
    """Features of one medium -> natural log of the probability of every word after the ones before it, when
    the captioner is given only the block in which the cell lies.

    Blocks at the far edges are smaller where the layout is no multiple of them.  One without a real cell is -inf.
    """
    model, features = model.prepare_for_occlusion(features)
    found = torch.full((len(words), features.layout.cells), -torch.inf, device=features.device)
    for layout, blocks in _blocks(features.layout, block):
        there = blocks[features.mask[0].cpu()[blocks].any(1)].to(features.device)
        one = _only(features, there[:1], layout)
        for some in there.split(rows_at_once(one, len(words))):
            alone = log_probabilities(model, _only(features, some, layout), words)
            found[:, some.flatten()] = alone.T.repeat_interleave(layout.cells, 1).to(found)
    return found


def _only(features: Features, blocks: Int[Tensor, "B n"], layout: Layout) -> Features:
    """A medium for every block, which holds nothing else; its cells keep their boxes."""
    grid, mask, boxes = features.grid[0], features.mask[0], features.boxes[0]
    return Features(grid[blocks], mask[blocks], layout, boxes[blocks])


def _blocks(layout: Layout, block: Layout) -> Iterator[tuple[Layout, Int[Tensor, "B n"]]]:
    """The numbers of the cells of every block, for each of the shapes that blocks have."""
    numbers = torch.arange(layout.cells).view(*layout)
    sides = [_sides(whole, part) for whole, part in zip(layout, block, strict=True)]
    for shape in product(*sides):
        (t0, t, dt), (y0, y, dy), (x0, x, dx) = shape
        inside = numbers[t0 : t0 + t * dt, y0 : y0 + y * dy, x0 : x0 + x * dx].reshape(t, dt, y, dy, x, dx)
        yield Layout(dt, dy, dx), inside.permute(0, 2, 4, 1, 3, 5).reshape(t * y * x, dt * dy * dx)


def _sides(whole: int, part: int) -> list[tuple[int, int, int]]:
    """(first, how many, how long) of the equal pieces of an axis, and of what is left of it."""
    part = min(part, whole)
    count, left = divmod(whole, part)
    return [(0, count, part)] + ([(count * part, 1, left)] if left else [])
