"""Teacher-forced scores and attention of one sentence: what every explanation method asks a captioner."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import BOS, Features
from limner.models.captioner import Captioner, FromPixels, TeacherForced, first_tensor


def without_encoder(model: Captioner) -> Captioner:
    """The captioner itself, where it is wrapped with an encoder: explanations are about the encoder's cells."""
    return model.captioner if isinstance(model, FromPixels) else model


def teacher_forced_logits(model: Captioner, memory: Any, words: Int[Tensor, " L"]) -> Float[Tensor, "B L V"]:
    """Logits before each word of one sentence, for every medium: `[:, i]` are those that predict word i."""
    return _teacher_forced(model, memory, words).logits


def token_logprobs(logits: Float[Tensor, "B L V"], words: Int[Tensor, " L"]) -> Float[Tensor, "B L"]:
    """Natural log of the probability of every word, given the words before it."""
    logits = logits.float()
    return logits.gather(-1, words.expand(len(logits), -1)[..., None]).squeeze(-1) - logits.logsumexp(-1)


def sentence_logprobs(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "B L"]:
    """Natural log of the probability of every word of one sentence, for every medium of `features`."""
    return token_logprobs(teacher_forced_logits(model, model.encode(features), words), words)


@torch.no_grad()
def attention_maps(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "L N"]:
    """The captioner's attention at every word of a sentence about one medium; every row sums to 1 over the cells."""
    model, features = model.prepare_for_occlusion(features)
    return _teacher_forced(model, model.encode(features), words).attention[0]


def _teacher_forced(model: Captioner, memory: Any, words: Int[Tensor, " L"]) -> TeacherForced:
    """One forward pass with teacher forcing: the input at word i is word i - 1, and BOS at the first."""
    tokens = torch.cat([torch.full_like(words[:1], BOS), words[:-1]])
    return model.forward_teacher_forced(memory, tokens.expand(len(first_tensor(memory)), -1))


def max_batch_size(features: Features, words: int) -> int:
    """How many media of this size a captioner can encode together in about 256 MB, with 50,000 words."""
    return max(1, (1 << 26) // (words * 50_000 + 4 * features.grid[0].numel()))
