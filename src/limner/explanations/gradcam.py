"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) and Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063), a map
per word.

What is differentiated is the word's score before the softmax (on the micro-world it points better than the
log-probability, whose gradient fades where the captioner is sure), and the cells A (N, D) by which it is are the
features that the captioner reads; in `FirstToken`, whose published form has a layer of its own for it, its convolved
cells before their normalisation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limner.core.types import Features
from limner.explanations.cells import teacher_forced_logits
from limner.models.captioner import Captioner

Weighting = Callable[[Float[Tensor, "N D"], Float[Tensor, "N D"]], Float[Tensor, " N"]]


def cam(cells: Float[Tensor, "N D"], gradient: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    """Grad-CAM, eq. 1 and 2: ReLU(sum_c a_c A_c) with a_c the mean of the gradient over the cells."""
    return torch.relu(cells @ gradient.mean(0))


def cam_plus_plus(cells: Float[Tensor, "N D"], gradient: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    """Grad-CAM++, eq. 4 and 19.  A channel of either sign is read as two that are not negative, A = A+ - A-, since the
    weights are derived for such; where A >= 0 this is the paper's.  Its Y = exp(S) of the score S is a factor that all
    cells share, and is left out: it overflows, and no normalised map depends on it."""
    up, down = torch.relu(cells), torch.relu(-cells)
    return up @ _weights(up, torch.relu(gradient)) + down @ _weights(down, torch.relu(-gradient))


def _weights(cells: Float[Tensor, "N D"], rising: Float[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """sum over cells of alpha ReLU(g), alpha = g^2 / (2 g^2 + sum(A) g^3): where g > 0 that is g / (2 + sum(A) g)."""
    return (rising / (2 + cells.sum(0) * rising)).sum(0)


def gradcam(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "L N"]:
    """Features of one medium -> a map >= 0 for every word."""
    return _word_maps(model, features, words, cam)


def gradcam_plus_plus(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "L N"]:
    """Features of one medium -> a map >= 0 for every word."""
    return _word_maps(model, features, words, cam_plus_plus)


def stretched(values: Float[Tensor, "L N"], real: Bool[Tensor, " N"] | None = None) -> Float[Tensor, "L N"]:
    """Every map brought to [0, 1] over the real cells; one that is the same everywhere is 0."""
    real = torch.ones_like(values[0], dtype=torch.bool) if real is None else real
    low, high = values[:, real].amin(1, keepdim=True), values[:, real].amax(1, keepdim=True)
    spread = torch.where(high > low, high - low, torch.ones_like(high))
    return ((values - low) / spread).masked_fill(~real, 0.0)


def _word_maps(
    model: Captioner, features: Features, words: Int[Tensor, " L"], weighting: Weighting
) -> Float[Tensor, "L N"]:
    with _gradients():
        watched = _watched(features)
        memory = model.encode(watched)
        cells, mask = model.gradcam_cells(memory, watched)
        real = mask[0]
        scores = teacher_forced_logits(model, memory, words)[0].gather(1, words[:, None]).squeeze(1)
        maps = torch.zeros(len(words), len(real), device=real.device)
        for place, score in enumerate(scores):
            (gradient,) = torch.autograd.grad(score, cells, retain_graph=place + 1 < len(words))
            maps[place, real] = weighting(cells[0, real].detach().float(), gradient[0, real].float())
    return maps


def _watched(features: Features) -> Features:
    return replace(features, grid=features.grid.detach().requires_grad_())


@contextmanager
def _gradients() -> Iterator[None]:
    """Gradients in evaluation mode; cuDNN's recurrent layers refuse them there."""
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield
