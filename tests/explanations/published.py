"""The Grad-CAM maps that yiskw713/VideoCaptioning makes of a whole caption, from limner's parts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import Features
from limner.explanations.cells import teacher_forced_logits
from limner.explanations.gradcam import cam, normalise_maps
from limner.models.spatiotemporal import FirstToken
from tests.convert.published import start_logits


def published_map(
    model: FirstToken, features: Features, words: Int[Tensor, " L"], plus_plus: bool = False
) -> Float[Tensor, " M"]:
    """One map in [0, 1] over the M cells of the model, for the whole caption of one clip.

    `words`: w1 .. wn EOS; the clip's own step predicts BOS before them.  The score is the sum over the steps of their
    highest logit, whichever word it belongs to.  The published Grad-CAM++ sums A g^3 over the cells, where the paper
    sums A and multiplies by g^3 of each cell.  Its factor exp(score) overflows and is left out: no normalised map
    depends on it.
    """
    features = Features(features.grid.detach().requires_grad_(), features.mask, features.layout)
    memory = model.encode(features)
    score = start_logits(model, memory).amax() + teacher_forced_logits(model, memory, words).amax(-1).sum()
    (gradient,) = torch.autograd.grad(score, memory.cells)
    cells, g = memory.cells[0].detach(), gradient[0]
    if plus_plus:
        below = 2 * g**2 + (cells * g**3).sum(0)
        alpha = g**2 / (below.where(below != 0, torch.ones_like(below)) + 1e-7)
        values = torch.relu(cells @ (alpha * torch.relu(g)).sum(0))
    else:
        values = cam(cells, g)
    return normalise_maps(values[None])[0]
