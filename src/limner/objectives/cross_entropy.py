"""Cross entropy, teacher-forced or with scheduled sampling, with label smoothing and terms that shape attention."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from limner.core.fields import FractionBelowOne, NonNegativeFloat
from limner.core.types import PAD, Batch, Loss, Pixels
from limner.models.captioner import Captioner, TeacherForced
from limner.objectives.context import Context
from limner.objectives.objective import ObjectiveConfig
from limner.objectives.scheduled_sampling import ScheduledSampling

Weight = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class CrossEntropy(ObjectiveConfig):
    """Mean over the words (EOS included) of -log p, plus the weights below times their terms."""

    name: Literal["xe"] = "xe"
    label_smoothing: FractionBelowOne = 0.0  # epsilon, spread over the V - 1 other words that the model may say
    doubly_stochastic: NonNegativeFloat = (
        0.0  # the paper's lambda (eq. 14); the public code calls it alpha_c and uses 1
    )
    # entropies in nats, means over the words; a positive weight makes surer, a negative one punishes being sure
    entropy: Weight = 0.0  # of the next word's distribution (SA-LSTM's reg_lambda; its code sums over the batch axis)
    attention_entropy: Weight = 0.0  # of the attention over the cells
    sampling: ScheduledSampling = field(default_factory=ScheduledSampling)  # scheduled sampling; off by default

    def build(self, context: Context) -> "CrossEntropy":
        return self

    def __call__(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        return self.score(self.forward_teacher_forced(model, model.encode(batch.inputs), batch, epoch), batch)

    def forward_teacher_forced(self, model: Captioner, memory: Any, batch: Batch, epoch: int) -> TeacherForced:
        return self.sampling.forward_teacher_forced(model, memory, batch.tokens[:, :-1], epoch)

    def score(self, forced: TeacherForced, batch: Batch) -> Loss:
        targets = batch.tokens[:, 1:]
        keep = targets != PAD
        logits = forced.logits[keep].float()
        loss, nll = smoothed(logits, targets[keep], self.label_smoothing)
        logs, terms = {"xe": nll.item()}, {}
        if self.doubly_stochastic:
            terms["doubly_stochastic"] = doubly_stochastic(forced.attention.float(), _mask(batch, forced.attention))
        if self.entropy:
            terms["entropy"] = entropy(logits.softmax(-1)).mean()
        if self.attention_entropy:
            terms["attention_entropy"] = entropy(forced.attention[keep].float()).mean()
        for name, term in terms.items():
            loss, logs[name] = loss + getattr(self, name) * term, term.item()
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


def entropy(p: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """-sum p log p, and a finite gradient where p is 0."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(-1)


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
