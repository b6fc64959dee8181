"""Teacher-forced cross entropy with label smoothing and the doubly stochastic attention term."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limner.models.captioner import Captioner
from limner.ranges import Below1, NotNegative
from limner.types import PAD, Batch, Loss, Pixels


@dataclass(frozen=True)
class CrossEntropy:
    """Mean over the words (EOS included) of -log p, plus `doubly_stochastic` times the attention penalty."""

    name: Literal["xe"] = "xe"
    label_smoothing: Below1 = 0.0  # epsilon, spread over the V - 1 other words that the model may say
    doubly_stochastic: NotNegative = 0.0  # the paper's lambda (eq. 14); the public code calls it alpha_c and uses 1

    def __call__(self, model: Captioner, batch: Batch) -> Loss:
        memory = model.encode(batch.inputs)
        taught = model.teach(memory, batch.tokens[:, :-1])
        targets = batch.tokens[:, 1:]
        keep = targets != PAD
        loss, nll = smoothed(taught.logits[keep].float(), targets[keep], self.label_smoothing)
        logs = {"xe": nll.item()}
        if self.doubly_stochastic:
            cells = _mask(batch, taught.attention)
            penalty = doubly_stochastic(taught.attention.float(), cells)
            loss = loss + self.doubly_stochastic * penalty
            logs["doubly_stochastic"] = penalty.item()
        return Loss(loss, logs)


def smoothed(logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], epsilon: float) -> tuple[Tensor, Tensor]:
    """-> (smoothed loss, plain negative log-likelihood), means over the M words.

    The target keeps 1 - epsilon; each other word with a finite score gets epsilon / (V - 1), V counting those words.
    """
    logp = logits.log_softmax(-1)
    nll = -logp.gather(1, targets[:, None]).squeeze(1)
    if epsilon == 0:
        return nll.mean(), nll.detach().mean()
    allowed = torch.isfinite(logits)
    rest = -logp.masked_fill(~allowed, 0.0).sum(-1) - nll
    loss = (1 - epsilon) * nll + epsilon * rest / (allowed.sum(-1) - 1)
    return loss.mean(), nll.detach().mean()


def doubly_stochastic(attention: Float[Tensor, "R L N"], mask: Bool[Tensor, "R N"]) -> Float[Tensor, ""]:
    """Mean over (caption, real cell) of (1 - sum over the caption's own steps of alpha)^2 (Xu et al. 2015, eq. 14).

    `attention` is 0 after a caption's end.  With uniform attention over P cells for T steps it is (1 - T / P)^2.
    """
    return (1 - attention.sum(1)).square()[mask].mean()


def _mask(batch: Batch, attention: Float[Tensor, "R L N"]) -> Bool[Tensor, "R N"]:
    """The real cells, a row for each caption.  An encoder's own cells are all real."""
    if isinstance(batch.inputs, Pixels):
        return torch.ones_like(attention[:, 0], dtype=torch.bool)
    return batch.inputs.mask.repeat_interleave(len(attention) // len(batch.inputs), 0)
