"""Scores of explanations: the pointing game, and the areas under the deletion and insertion curves.

Pointing game (Zhang et al. 2018, arXiv:1608.00507): does the maximum of the map lie on the target?  The chance level is
the share of cells that lie on the target, because a cell that is chosen at random hits with this probability.

Deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421): the probability of a word while the cells with the
highest values are removed (deletion), or are the only ones given (insertion), averaged over their number.  A good map
has a low deletion and a high insertion area.  The area of a random order is the baseline of both.

Worked example: four cells, where the word has probability 0.8 if cell 2 is given and 0.2 if it is not.  A map with its
maximum at cell 2 inserts cell 2 first, so the curve is 0.8 at 1, 2, 3 and 4 cells, and the insertion area is 0.8.
Deletion gives the lowest cells first, so the curve is 0.2, 0.2, 0.2, 0.8, and its area is (0.2 + 0.2 + 0.5) / 3 = 0.3.
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
from limner.explanations.cells import max_batch_size, sentence_logprobs, without_encoder
from limner.explanations.maps import TargetSentence
from limner.models.captioner import Captioner


class PointingScore(NamedTuple):
    """Pointing game of one word, or the mean over words; both values are in [0, 1]."""

    hit: float  # 1 when the maximum lies on the target, else 0
    chance: float  # share of cells that lie on the target


class CurveAreas(NamedTuple):
    """Areas under the curves of the probability of a word, or their means over words, in [0, 1]."""

    deletion: float  # lower is better
    insertion: float  # higher is better
    random: float  # baseline of both: cells in random order


def pointing_game(
    values: Float[np.ndarray, " N"], target: Bool[np.ndarray, " N"], real: Bool[np.ndarray, " N"]
) -> PointingScore:
    """Does the maximum of a map lie on the target?  Padded cells (not `real`) do not count.

    Where several cells share the maximum, `hit` is the share of them that lies on the target, so a constant map scores
    exactly the chance level.

    >>> target, real = np.array([True, True, False, False]), np.ones(4, dtype=bool)
    >>> pointing_game(np.array([0.1, 0.7, 0.7, 0.7]), target, real)  # 1 of 3 maxima is on the target
    PointingScore(hit=0.3333333333333333, chance=0.5)
    """
    on_target, values = target[real], values[real]
    return PointingScore(float(on_target[values == values.max()].mean()), float(on_target.mean()))


@torch.no_grad()
def deletion_insertion(
    model: Captioner,
    features: Features,
    sentence: TargetSentence,
    maps: Float[np.ndarray, "L N"],
    chosen: Sequence[int],
    levels: int = 10,
    seed: int = 0,
) -> list[CurveAreas]:
    """Deletion, insertion and random areas for the words with the indices `chosen`, in a sentence about one medium.

    Of the n real cells, 1, n/levels, 2n/levels, ..., n are given: those with the highest values for insertion, those
    with the lowest values for deletion, random ones for the baseline.  Cells of equal value are in random order, which
    `seed` determines.
    """
    model, features = without_encoder(model).prepare_for_occlusion(features)
    real = features.mask[0].nonzero().flatten().cpu().numpy()
    counts = sorted({max(1, round(len(real) * level / levels)) for level in range(levels + 1)})
    rng = np.random.default_rng(seed)
    words = torch.tensor(sentence.ids, device=features.device)
    areas = []
    for word in chosen:
        shuffled = rng.permutation(real)
        rising = shuffled[maps[word, shuffled].argsort(kind="stable")]
        # deletion, insertion, random: of each order, the first cells are given
        orders = [rising, rising[::-1], rng.permutation(real)]
        masks = torch.zeros(len(orders) * len(counts), features.layout.cells, dtype=torch.bool)
        for row, (order, count) in enumerate((order, count) for order in orders for count in counts):
            masks[row, order[:count].copy()] = True
        probabilities = _probabilities(
            model, features, masks.to(features.device), words[: sentence.word_indices[word] + 1]
        )
        curves = probabilities.view(len(orders), len(counts)).cpu().double().numpy()
        areas.append(CurveAreas(*(float(_area(counts, curve)) for curve in curves)))
    return areas


def _probabilities(
    model: Captioner, features: Features, masks: Bool[Tensor, "R N"], words: Int[Tensor, " L"]
) -> Float[Tensor, " R"]:
    """The probability of the last word when only the cells of a mask are given, for every mask."""
    probabilities = []
    for batch in masks.split(max_batch_size(features, len(words))):
        rows = replace(features.map(partial(_repeat, count=len(batch))), mask=batch)
        probabilities.append(sentence_logprobs(model, rows, words)[:, -1].exp())
    return torch.cat(probabilities)


def _repeat(x: Float[Tensor, "1 *shape"] | Bool[Tensor, "1 *shape"], count: int) -> Tensor:  # noqa: F821 (a shape, not a name)
    """The only row `count` times, without a copy."""
    return x.expand(count, *x.shape[1:])


def _area(counts: Sequence[int], heights: Float[np.ndarray, " K"]) -> float:
    """Area under a curve by the trapezoidal rule, divided by the width of the curve: its mean height.

    >>> round(float(_area([1, 2, 3, 4], np.array([0.2, 0.2, 0.2, 0.8]))), 6)  # (0.2 + 0.2 + 0.5) / 3
    0.3
    """
    if len(counts) == 1:
        return heights[0]
    return np.trapezoid(heights, counts) / (counts[-1] - counts[0])
