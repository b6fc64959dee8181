"""How far a student is from its teacher: in the words it expects, where it looks, and what it holds inside."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import Features, Layout


def divergence(student: Float[Tensor, "M V"], teacher: Float[Tensor, "M V"], temperature: float) -> Float[Tensor, ""]:
    """Mean over M words of KL(p_teacher || p_student) in nats, p = softmax(logits / temperature), not yet times its
    square (Hinton et al. 2015, arXiv:1503.02531, section 2).

    What the student may never say (-inf) is outside of the teacher's softmax as well, and what the teacher never says
    counts nothing.
    """
    return _divergence((student.float() / temperature).log_softmax(-1), teacher.float() / temperature)


def divergence_of_likeliest(
    student: Float[Tensor, "M V"], words: Int[Tensor, "M k"], teacher: Float[Tensor, "M k+1"], temperature: float
) -> Float[Tensor, ""]:
    """`divergence` of k words and of all others together, as if these were one; never more than that of V words.

    `teacher` holds log-probabilities at the same temperature, that of all others last.
    """
    own = (student.float() / temperature).log_softmax(-1)
    others = own.scatter(1, words, -torch.inf).logsumexp(-1, keepdim=True)
    return _divergence(torch.cat([own.gather(1, words), others], 1), teacher.float())


def _divergence(own: Float[Tensor, "M K"], teacher: Float[Tensor, "M K"]) -> Float[Tensor, ""]:
    theirs = teacher.masked_fill(own == -torch.inf, -torch.inf).log_softmax(-1)
    p = theirs.exp()
    return (p * (theirs - own).masked_fill(p == 0, 0.0)).sum(-1).mean()


def attention_divergence(student: Float[Tensor, "M N"], teacher: Float[Tensor, "M N"]) -> Float[Tensor, ""]:
    """Mean over M words of KL(teacher || student) between their distributions over the N cells, in nats."""
    tiny = torch.finfo(torch.float32).tiny
    student, teacher = student.float(), teacher.float()
    return (teacher * (teacher.clamp(min=tiny).log() - student.clamp(min=tiny).log())).sum(-1).mean()


def distance(student: Float[Tensor, "M D"], teacher: Float[Tensor, "M D"]) -> Float[Tensor, ""]:
    """Mean of the squared differences (Romero et al. 2015, arXiv:1412.6550, eq. 3, per channel)."""
    return (student.float() - teacher.float()).square().mean()


def overlap(theirs: Layout, own: Layout) -> Float[Tensor, "N M"]:
    """How much of each of their N cells lies in each of our M, when both tile the same medium; rows sum to 1."""

    def along(n: int, m: int) -> Float[Tensor, "n m"]:
        start, stop = torch.arange(n)[:, None] / n, (torch.arange(n)[:, None] + 1) / n
        low, high = torch.arange(m) / m, (torch.arange(m) + 1) / m
        return (torch.minimum(stop, high) - torch.maximum(start, low)).clamp(min=0) * n

    sides = [along(n, m) for n, m in zip(theirs, own, strict=True)]
    return torch.kron(torch.kron(sides[0], sides[1]), sides[2])


def tiling(theirs: Features, own: Features) -> Float[Tensor, "N M"] | None:
    """`overlap` of their cells and ours; None when they are the same.  Raises ValueError when cells are no tiles: a
    detector's regions, or rows of cells that are partly padding."""
    regions = theirs.regions is not None or own.regions is not None
    if theirs.layout == own.layout and not regions:
        if torch.equal(theirs.mask, own.mask):
            return None
    elif not regions and theirs.mask.all() and own.mask.all():
        return overlap(theirs.layout, own.layout).to(own.device)
    raise ValueError(
        f"the teacher's cells {tuple(theirs.layout)} and the student's {tuple(own.layout)} cannot be compared: "
        "regions, or clips of different length in a batch; set attention and features to 0"
    )
