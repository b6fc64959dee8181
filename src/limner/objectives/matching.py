"""Distances between a student and its teacher: word distributions, attention, hidden states and features."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.processes import mean_over_processes
from limner.core.types import Features, Layout


def divergence(student: Float[Tensor, "M V"], teacher: Float[Tensor, "M V"], temperature: float) -> Float[Tensor, ""]:
    """Mean over M words of KL(p_teacher || p_student) in nats, where p = softmax(logits / temperature).

    The loss of Hinton et al. 2015 (arXiv:1503.02531, section 2) multiplies it by temperature^2; the caller does that.
    Words that score -inf for the student are left out of the teacher's softmax; words that score -inf for the teacher
    contribute 0.

    For p_teacher = (1/2, 1/2) and p_student = (1/4, 3/4) it is log(2) / 2 + log(2/3) / 2:

    >>> student, teacher = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> round(divergence(student, teacher, 1.0).item(), 4)
    0.1438
    """
    return _divergence((student.float() / temperature).log_softmax(-1), teacher.float() / temperature)


def top_k_divergence(
    student: Float[Tensor, "M V"], words: Int[Tensor, "M k"], teacher: Float[Tensor, "M k+1"], temperature: float
) -> Float[Tensor, ""]:
    """`divergence` over k words and one class for all other words; it never exceeds the divergence over all V words.

    `words` are the k words of each position; `teacher` holds their log-probabilities at the same temperature and, last,
    the log-probability of all other words together.
    """
    own = (student.float() / temperature).log_softmax(-1)
    others = own.scatter(1, words, -torch.inf).logsumexp(-1, keepdim=True)
    return _divergence(torch.cat([own.gather(1, words), others], 1), teacher.float())


def _divergence(own: Float[Tensor, "M K"], teacher: Float[Tensor, "M K"]) -> Float[Tensor, ""]:
    target = teacher.masked_fill(own == -torch.inf, -torch.inf).log_softmax(-1)
    p = target.exp()
    return mean_over_processes((p * (target - own).masked_fill(p == 0, 0.0)).sum(-1))  # 0 log 0 = 0


def attention_divergence(student: Float[Tensor, "M N"], teacher: Float[Tensor, "M N"]) -> Float[Tensor, ""]:
    """Mean over M words of KL(teacher || student), in nats, of their attention weights over the same N cells."""
    tiny = torch.finfo(torch.float32).tiny
    student, teacher = student.float(), teacher.float()
    return mean_over_processes((teacher * (teacher.clamp(min=tiny).log() - student.clamp(min=tiny).log())).sum(-1))


def mean_squared_distance(student: Float[Tensor, "M D"], teacher: Float[Tensor, "M D"]) -> Float[Tensor, ""]:
    """Mean over rows and channels of the squared difference (Romero et al. 2015, arXiv:1412.6550, eq. 3, sums it)."""
    return mean_over_processes((student.float() - teacher.float()).square())


def cell_overlap(teacher: Layout, student: Layout) -> Float[Tensor, "N M"]:
    """The share of each of the teacher's N cells that lies in each of the student's M cells; rows sum to 1.

    Both layouts tile the same medium.  With 3 columns against 2, the middle column lies in both halves:

    >>> cell_overlap(Layout(1, 1, 3), Layout(1, 1, 2)).mul(10).round().int().tolist()
    [[10, 0], [5, 5], [0, 10]]
    """

    def along(n: int, m: int) -> Float[Tensor, "n m"]:
        start, stop = torch.arange(n)[:, None] / n, (torch.arange(n)[:, None] + 1) / n
        low, high = torch.arange(m) / m, (torch.arange(m) + 1) / m
        return (torch.minimum(stop, high) - torch.maximum(start, low)).clamp(min=0) * n

    sides = [along(n, m) for n, m in zip(teacher, student, strict=True)]
    return torch.kron(torch.kron(sides[0], sides[1]), sides[2])


def cell_mapping(teacher: Features, student: Features) -> Float[Tensor, "N M"] | None:
    """`cell_overlap` of the teacher's and the student's cells; None when the cells are the same.

    Raises ValueError when cells do not tile the medium: a detector's regions, or clips of different length in a batch.
    """
    regions = teacher.regions is not None or student.regions is not None
    if teacher.layout == student.layout and not regions:
        if torch.equal(teacher.mask, student.mask):
            return None
    elif not regions and teacher.mask.all() and student.mask.all():
        return cell_overlap(teacher.layout, student.layout).to(student.device)
    raise ValueError(
        f"the teacher's cells {tuple(teacher.layout)} and the student's {tuple(student.layout)} cannot be compared: "
        "regions, or clips of different length in a batch; set attention and features to 0"
    )
