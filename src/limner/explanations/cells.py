"""Cells that can be taken away, and what a captioner says of words when they are."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import BOS, Features
from limner.models.captioner import Captioner, FromPixels, TeacherForced, first_tensor


def bare(model: Captioner) -> Captioner:
    """Without an encoder in front, whose cells are what is explained."""
    return model.captioner if isinstance(model, FromPixels) else model


def teacher_forced_logits(model: Captioner, memory: Any, words: Int[Tensor, " L"]) -> Float[Tensor, "B L V"]:
    """Scores of every word along the same sentence for every medium: `[:, i]` are those of place i."""
    return _taught(model, memory, words).logits


def token_logprobs(logits: Float[Tensor, "B L V"], words: Int[Tensor, " L"]) -> Float[Tensor, "B L"]:
    """Natural log of the probability of every word after the ones before it."""
    logits = logits.float()
    return logits.gather(-1, words.expand(len(logits), -1)[..., None]).squeeze(-1) - logits.logsumexp(-1)


def log_probabilities(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "B L"]:
    """`token_logprobs` the same sentence for every medium."""
    return token_logprobs(teacher_forced_logits(model, model.encode(features), words), words)


@torch.no_grad()
def attended(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "L N"]:
    """Features of one medium -> the captioner's attention at every word: a distribution over the cells."""
    model, features = model.prepare_for_occlusion(features)
    return _taught(model, model.encode(features), words).attention[0]


def _taught(model: Captioner, memory: Any, words: Int[Tensor, " L"]) -> TeacherForced:
    tokens = torch.cat([torch.full_like(words[:1], BOS), words[:-1]])
    return model.forward_teacher_forced(memory, tokens.expand(len(first_tensor(memory)), -1))


def rows_at_once(features: Features, words: int) -> int:
    """So many media of this size go through a captioner together that it needs about 256 MB, at 50,000 words."""
    return max(1, (1 << 26) // (words * 50_000 + 4 * features.grid[0].numel()))
