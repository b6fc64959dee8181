"""Captioners whose explanations can be worked out by hand."""

from typing import Any

import torch
from torch import Tensor

from limner.core.types import Features, Layout
from limner.models.captioner import Captioner, Step, TeacherForced


class Linear(Captioner):
    """Whatever was said before, word v scores the sum of weight[n, v] . cell n over the real cells; cells are attended
    alike."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight  # (N, V, D)
        self.embed = torch.nn.Embedding(weight.shape[1], 1)

    def encode(self, inputs: Any) -> Any:
        cells = inputs.grid * inputs.mask[..., None]
        return (torch.einsum("bnd,nvd->bv", cells, self.weight), inputs.mask / inputs.mask.sum(1, keepdim=True))

    def init_state(self, memory: Any) -> Any:
        return memory

    def step(self, token: Tensor, state: Any, memory: Any) -> Step:
        raise NotImplementedError

    def forward_teacher_forced(self, memory: Any, tokens: Tensor) -> TeacherForced:
        scores, attention = memory
        return TeacherForced(
            scores[:, None].expand(-1, tokens.shape[1], -1), attention[:, None].expand(-1, tokens.shape[1], -1)
        )


def one(cells: Tensor, layout: Layout, real: list[bool] | None = None) -> Features:
    """Features of one medium from (N, D)."""
    mask = torch.tensor(real or [True] * len(cells))
    return Features(cells[None], mask[None], layout)
