"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) and Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063).

Both give one map per word.  The score S that is differentiated is the logit of the word.  On the micro-world it points
better than the log-probability, whose gradient vanishes where the captioner is certain.  The cells A (N, D) with
respect to which it is differentiated are the features that the captioner reads.  In `FirstToken` they are its convolved
cells before normalisation, because the published system has this layer for the purpose.

Worked example with N = 2 cells and D = 2 channels:

    A = [[1, 0], [2, 1]]    g = dS/dA = [[2, -1], [4, -3]]

Grad-CAM: the weight of a channel is its mean gradient over the cells, a = ((2 + 4) / 2, (-1 - 3) / 2) = (3, -2).
The map is ReLU(A a) = (1 * 3 + 0 * -2, 2 * 3 + 1 * -2) = (3, 4).

Grad-CAM++: all A are >= 0 here, so only positive gradients count.  The weight of a channel is the sum over the cells of
g / (2 + g sum(A)).  Channel 1 has sum(A) = 3 and weight 2 / (2 + 6) + 4 / (2 + 12) = 0.536; channel 2 has no positive
gradient, so its weight is 0.  The map is (0.536, 1.071).
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
    """Grad-CAM map of one word: ReLU(sum_c a_c A_c), where a_c is the mean gradient of channel c (eq. 1 and 2).

    >>> cam(torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[2.0, -1.0], [4.0, -3.0]]))
    tensor([3., 4.])
    """
    return torch.relu(cells @ gradient.mean(0))


def cam_plus_plus(cells: Float[Tensor, "N D"], gradient: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    """Grad-CAM++ map of one word (eq. 4 and 19).

    The paper derives the weights for A >= 0.  A channel with both signs is therefore split into two channels that are
    not negative, A = A+ - A-; where A >= 0, this is the formula of the paper.  The factor Y = exp(S) of the paper is
    left out: it is the same for all cells, so it does not change a normalised map, and it overflows.

    >>> cam_plus_plus(torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[2.0, -1.0], [4.0, -3.0]]))
    tensor([0.5357, 1.0714])
    """
    positive, negative = torch.relu(cells), torch.relu(-cells)
    return positive @ _plus_plus_weights(positive, torch.relu(gradient)) + negative @ _plus_plus_weights(
        negative, torch.relu(-gradient)
    )


def _plus_plus_weights(cells: Float[Tensor, "N D"], gradient: Float[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """Weight of each channel: sum over the cells of alpha g, with alpha = g^2 / (2 g^2 + sum(A) g^3), for g >= 0.

    alpha g = g / (2 + sum(A) g), which needs no special case where g = 0.
    """
    return (gradient / (2 + cells.sum(0) * gradient)).sum(0)


def gradcam(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "L N"]:
    """Grad-CAM of every word of a sentence about one medium; all values are >= 0."""
    return _word_maps(model, features, words, cam)


def gradcam_plus_plus(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "L N"]:
    """Grad-CAM++ of every word of a sentence about one medium; all values are >= 0."""
    return _word_maps(model, features, words, cam_plus_plus)


def normalise_maps(values: Float[Tensor, "L N"], real: Bool[Tensor, " N"] | None = None) -> Float[Tensor, "L N"]:
    """Scale every map linearly to [0, 1] over the real cells; a constant map becomes 0, and so does padding.

    >>> normalise_maps(torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]))
    tensor([[0.0000, 1.0000, 0.5000],
            [0.0000, 0.0000, 0.0000]])
    """
    real = torch.ones_like(values[0], dtype=torch.bool) if real is None else real
    low, high = values[:, real].amin(1, keepdim=True), values[:, real].amax(1, keepdim=True)
    spread = torch.where(high > low, high - low, torch.ones_like(high))
    return ((values - low) / spread).masked_fill(~real, 0.0)


def _word_maps(
    model: Captioner, features: Features, words: Int[Tensor, " L"], weighting: Weighting
) -> Float[Tensor, "L N"]:
    """One map per word: the gradient of its logit with respect to the cells, weighted by `weighting`."""
    with _enable_gradients():
        inputs = _with_gradients(features)
        memory = model.encode(inputs)
        cells, mask = model.gradcam_cells(memory, inputs)
        real = mask[0]
        scores = teacher_forced_logits(model, memory, words)[0].gather(1, words[:, None]).squeeze(1)
        maps = torch.zeros(len(words), len(real), device=real.device)
        for index, score in enumerate(scores):
            (gradient,) = torch.autograd.grad(score, cells, retain_graph=index + 1 < len(words))
            maps[index, real] = weighting(cells[0, real].detach().float(), gradient[0, real].float())
    return maps


def _with_gradients(features: Features) -> Features:
    """The same features, with cells that gradients are computed for."""
    return replace(features, grid=features.grid.detach().requires_grad_())


@contextmanager
def _enable_gradients() -> Iterator[None]:
    """Enable gradients in evaluation mode.  cuDNN is off, because its recurrent layers refuse gradients there."""
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield
