"""Cross entropy with label smoothing, scheduled sampling, and terms that shape attention and confidence."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from limner.core.fields import FractionBelowOne, NonNegativeFloat
from limner.core.processes import mean_over_processes
from limner.core.types import PAD, Batch, Loss, Pixels
from limner.models.captioner import Captioner, TeacherForced
from limner.objectives.context import Context
from limner.objectives.objective import ObjectiveConfig
from limner.objectives.scheduled_sampling import ScheduledSampling

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class CrossEntropy(ObjectiveConfig):
    """The objective `xe`: mean of -log p over the words, EOS included, plus weighted terms."""

    name: Literal["xe"] = "xe"
    label_smoothing: FractionBelowOne = 0.0  # epsilon, spread over the V - 1 other allowed words
    # weight of the term of Xu et al. 2015, eq. 14.  The term is a mean over the N cells, as in the public code (which
    # calls the weight alpha_c and sets it to 1); the paper sums over the cells, so its lambda = weight / N
    doubly_stochastic: NonNegativeFloat = 0.0
    # weight of the entropy of the next word's distribution, in nats, mean over the words: a positive weight makes the
    # model surer, a negative one less sure (SA-LSTM's reg_lambda; its code sums over the batch)
    entropy: FiniteFloat = 0.0
    attention_entropy: FiniteFloat = 0.0  # weight of the entropy of the attention over the cells, in nats
    sampling: ScheduledSampling = field(default_factory=ScheduledSampling)  # scheduled sampling; off by default

    def build(self, context: Context) -> "CrossEntropy":
        return self

    def __call__(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """The loss of a batch; `logs` hold -log p without smoothing, and the terms before they are weighted."""
        return self.loss(self.forward_teacher_forced(model, model.encode(batch.inputs), batch, epoch), batch)

    def forward_teacher_forced(self, model: Captioner, memory: Any, batch: Batch, epoch: int) -> TeacherForced:
        """The model's outputs along the captions, some words of which scheduled sampling replaces."""
        return self.sampling.forward_teacher_forced(model, memory, batch.tokens[:, :-1], epoch)

    def loss(self, forced: TeacherForced, batch: Batch) -> Loss:
        """The loss of outputs that were computed along `batch.tokens`."""
        targets = batch.tokens[:, 1:]
        keep = targets != PAD
        logits = forced.logits[keep].float()
        loss, nll = smoothed_cross_entropy(logits, targets[keep], self.label_smoothing)
        logs, terms = {"xe": nll.item()}, {}
        if self.doubly_stochastic:
            terms["doubly_stochastic"] = doubly_stochastic(
                forced.attention.float(), _cell_mask(batch, forced.attention)
            )
        if self.entropy:
            terms["entropy"] = mean_over_processes(entropy(logits.softmax(-1)))
        if self.attention_entropy:
            terms["attention_entropy"] = mean_over_processes(entropy(forced.attention[keep].float()))
        for name, term in terms.items():
            loss, logs[name] = loss + getattr(self, name) * term, term.item()
        return Loss(loss, logs)


def smoothed_cross_entropy(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], epsilon: float
) -> tuple[Tensor, Tensor]:
    """-> (label-smoothed cross entropy, negative log-likelihood), both means over the M words, in nats.

    The target distribution gives 1 - epsilon to the right word and epsilon / (V - 1) to each other word, where V counts
    the words with a finite score.  Words that score -inf take no part.  For p = (1/2, 1/4, 1/4), the first word as the
    target and epsilon = 0.1 the loss is 0.9 log 2 + 0.05 log 4 + 0.05 log 4 = log 2 + 0.1 log 2:

    >>> p = torch.tensor([[0.5, 0.25, 0.25]])
    >>> loss, nll = smoothed_cross_entropy(p.log(), torch.tensor([0]), 0.1)
    >>> round(loss.item(), 4), round(nll.item(), 4)
    (0.7625, 0.6931)
    """
    logp = logits.log_softmax(-1)
    nll = -logp.gather(1, targets[:, None]).squeeze(1)
    if epsilon == 0:
        mean = mean_over_processes(nll)
        return mean, mean.detach()
    allowed = torch.isfinite(logits)
    rest = -logp.masked_fill(~allowed, 0.0).sum(-1) - nll
    loss = (1 - epsilon) * nll + epsilon * rest / (allowed.sum(-1) - 1)
    return mean_over_processes(loss), mean_over_processes(nll.detach())


def entropy(p: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """Entropy -sum p log p of each row, in nats; the gradient is finite also where p is 0."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(-1)


def doubly_stochastic(attention: Float[Tensor, "R L N"], mask: Bool[Tensor, "R N"]) -> Float[Tensor, ""]:
    """Mean over captions and real cells of (1 - sum of alpha over the caption's steps)^2 (Xu et al. 2015, eq. 14).

    The paper sums over the cells where this is a mean, as in the public code.  `attention` is 0 after a caption's end.
    With uniform attention over N cells for T steps it is (1 - T / N)^2, here (1 - 3 / 4)^2:

    >>> doubly_stochastic(torch.full((1, 3, 4), 0.25), torch.ones(1, 4, dtype=torch.bool)).item()
    0.0625
    """
    return mean_over_processes((1 - attention.sum(1)).square()[mask])


def _cell_mask(batch: Batch, attention: Float[Tensor, "R L N"]) -> Bool[Tensor, "R N"]:
    """Which cells are real, a row for each caption.  Cells of an encoder that is trained along are all real."""
    if isinstance(batch.inputs, Pixels):
        return torch.ones_like(attention[:, 0], dtype=torch.bool)
    return batch.inputs.mask.repeat_interleave(len(attention) // len(batch.inputs), 0)
