"""Caption-guided saliency (Ramanishka et al. 2017, arXiv:1612.07360): probability of a word from one block of cells.

The captioner gets one block of cells at a time, and the log-probability of each word is the value of that block.  This
works for every captioner, with or without attention.  A block is a single cell, a frame (1, h, w), a region through all
frames (t, 1, 1), or a box of any other size.
"""

import sys
from collections.abc import Iterator
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import Features, Layout
from limner.explanations.cells import max_batch_size, sentence_logprobs
from limner.models.captioner import Captioner

SINGLE_CELL = Layout(1, 1, 1)


def parse_block(unit: str) -> Layout:
    """Parse the size of a block: "cell", "frame", "region", or cells in time, height and width, for example "2,2,2".

    A side that is longer than the layout means all cells along it.  Raises ValueError for anything else.
    """
    everything = sys.maxsize
    named = {
        "cell": SINGLE_CELL,
        "frame": Layout(1, everything, everything),
        "region": Layout(everything, 1, 1),
    }
    if unit in named:
        return named[unit]
    sides = unit.split(",")
    if len(sides) != 3 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise ValueError(f"unit {unit!r}: expected cell, frame, region, or cells in time, height and width as in 2,2,2")
    return Layout(*map(int, sides))


@torch.no_grad()
def saliency(
    model: Captioner, features: Features, words: Int[Tensor, " L"], block: Layout = SINGLE_CELL
) -> Float[Tensor, "L N"]:
    """Saliency of every cell of one medium for every word.

    The value of a cell is the natural log of the probability of the word, given the words before it and only the block
    of cells in which the cell lies.  Blocks at the far edges are smaller where the layout is not a multiple of the
    block.  The value is -inf where a block holds only padding.
    """
    model, features = model.prepare_for_occlusion(features)
    maps = torch.full((len(words), features.layout.cells), -torch.inf, device=features.device)
    for layout, blocks in _blocks(features.layout, block):
        real = blocks[features.mask[0].cpu()[blocks].any(1)].to(features.device)
        single = _keep_only(features, real[:1], layout)
        for batch in real.split(max_batch_size(single, len(words))):
            logprobs = sentence_logprobs(model, _keep_only(features, batch, layout), words)
            maps[:, batch.flatten()] = logprobs.T.repeat_interleave(layout.cells, 1).to(maps)
    return maps


def _keep_only(features: Features, blocks: Int[Tensor, "B n"], layout: Layout) -> Features:
    """One medium per block that holds only the cells of this block, with their boxes."""
    grid, mask, boxes = features.grid[0], features.mask[0], features.boxes[0]
    return Features(grid[blocks], mask[blocks], layout, boxes[blocks])


def _blocks(layout: Layout, block: Layout) -> Iterator[tuple[Layout, Int[Tensor, "B n"]]]:
    """The cell indices of all blocks, grouped by the shape of the block."""
    indices = torch.arange(layout.cells).view(*layout)
    axes = [_split_axis(length, part) for length, part in zip(layout, block, strict=True)]
    for (t0, t, dt), (y0, y, dy), (x0, x, dx) in product(*axes):
        inside = indices[t0 : t0 + t * dt, y0 : y0 + y * dy, x0 : x0 + x * dx].reshape(t, dt, y, dy, x, dx)
        yield Layout(dt, dy, dx), inside.permute(0, 2, 4, 1, 3, 5).reshape(t * y * x, dt * dy * dx)


def _split_axis(length: int, part: int) -> list[tuple[int, int, int]]:
    """Cut an axis into pieces of length `part` -> (start, number, length) of the full pieces and of the rest.

    >>> _split_axis(7, 3)
    [(0, 2, 3), (6, 1, 1)]
    """
    part = min(part, length)
    count, rest = divmod(length, part)
    return [(0, count, part)] + ([(count * part, 1, rest)] if rest else [])
