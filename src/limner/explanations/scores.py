"""How good an explanation is: the pointing game, and deletion and insertion.

Pointing game (Zhang et al. 2018, arXiv:1608.00507): does the map's maximum lie where it should?  A cell picked blindly
hits with the share of the cells that lie there, which is the chance level, exactly.

Deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421): the probability of a word while the cells that count
most are taken away, or are all that there is, averaged over how many they are.  A good map is low in deletion and high
in insertion; an order that knows nothing has the same value in both, and is measured with a random one.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limner.core.types import Features
from limner.explanations.cells import bare, log_probabilities, rows_at_once
from limner.explanations.maps import Sentence
from limner.models.captioner import Captioner


class Pointing(NamedTuple):
    """Of one word, or the mean of many: both in [0, 1]."""

    hit: float
    chance: float


class Curves(NamedTuple):
    """Areas under curves of a word's probability, in [0, 1]."""

    deletion: float
    insertion: float
    random: float


def point(values: Float[np.ndarray, " N"], cells: Bool[np.ndarray, " N"], real: Bool[np.ndarray, " N"]) -> Pointing:
    """1 or 0; where several cells share the maximum, the share of them that lies in `cells`, so that a map which is
    the same everywhere has exactly the chance level."""
    inside, values = cells[real], values[real]
    return Pointing(float(inside[values == values.max()].mean()), float(inside.mean()))


@torch.no_grad()
def curves(
    model: Captioner,
    features: Features,
    sentence: Sentence,
    maps: Float[np.ndarray, "L N"],
    chosen: Sequence[int],
    levels: int = 10,
    seed: int = 0,
) -> list[Curves]:
    """Deletion and insertion for the words of one medium at the places `chosen`, by the order of their maps.

    Of n real cells 1, n/levels, 2n/levels, ..., n are kept: the highest ones for insertion, the lowest ones for
    deletion, any for random.  Cells of equal value are ordered by chance.
    """
    model, features = bare(model).prepare_for_occlusion(features)
    real = features.mask[0].nonzero().flatten().cpu().numpy()
    kept = sorted({max(1, round(len(real) * level / levels)) for level in range(levels + 1)})
    drawn = np.random.default_rng(seed)
    words = torch.tensor(sentence.ids, device=features.device)
    found = []
    for word in chosen:
        shuffled = drawn.permutation(real)
        rising = shuffled[maps[word, shuffled].argsort(kind="stable")]
        orders = [rising, rising[::-1], drawn.permutation(real)]  # their beginnings are kept
        masks = torch.zeros(len(orders) * len(kept), features.layout.cells, dtype=torch.bool)
        for row, (order, count) in enumerate((order, count) for order in orders for count in kept):
            masks[row, order[:count].copy()] = True
        chances = _probabilities(model, features, masks.to(features.device), words[: sentence.said[word] + 1])
        areas = chances.view(len(orders), len(kept)).cpu().double().numpy()
        found.append(Curves(*(float(_area(kept, row)) for row in areas)))
    return found


def _probabilities(
    model: Captioner, features: Features, masks: Bool[Tensor, "R N"], words: Int[Tensor, " L"]
) -> Float[Tensor, " R"]:
    """The probability of the last word with only the cells of each mask."""
    found = []
    for some in masks.split(rows_at_once(features, len(words))):
        rows = replace(features.map(partial(_repeated, count=len(some))), mask=some)
        found.append(log_probabilities(model, rows, words)[:, -1].exp())
    return torch.cat(found)


def _repeated(x: Float[Tensor, "1 *shape"] | Bool[Tensor, "1 *shape"], count: int) -> Tensor:
    return x.expand(count, *x.shape[1:])


def _area(kept: Sequence[int], heights: Float[np.ndarray, " K"]) -> float:
    """Under straight lines between the points, divided by their width."""
    if len(kept) == 1:
        return heights[0]
    return np.trapezoid(heights, kept) / (kept[-1] - kept[0])
