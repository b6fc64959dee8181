"""Cells that can be taken away, and what a captioner says of words when they are."""

import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.models.captioner import Captioner, FromPixels, Taught, first_tensor
from limner.models.positions import places, waves
from limner.models.sa_lstm import SaLstm
from limner.models.spatiotemporal import FirstToken, SpatioTemporal, resampled
from limner.types import BOS, Features, Layout


def bare(model: Captioner) -> Captioner:
    """Without an encoder in front, whose cells are what is explained."""
    return model.captioner if isinstance(model, FromPixels) else model


@torch.no_grad()
def loose(model: Captioner, features: Features) -> tuple[Captioner, Features]:
    """The same captioner and media, in a form in which what a cell says does not depend on which others are there.

    A model that tells cells when they come takes the last real frame for the clip's end, and one that resamples maps
    needs them whole: with cells taken away both would be shown another clip.  Here cells are told, and maps resampled,
    beforehand.
    """
    if isinstance(model, SpatioTemporal):
        told = features.grid + model.place(waves(places(features)).to(features.grid.dtype))
        return model.captioner, replace(features, grid=told)
    place = getattr(model, "place", None)  # that of SaLstm and of the models of pictures which read clips too
    if place is not None:
        told = place(waves(places(features)).to(features.grid.dtype))
        grid, mask = features.grid, features.mask
        if isinstance(model, SaLstm) and not model.config.masked:
            grid, mask = grid.masked_fill(~mask[..., None], 0.0), torch.ones_like(mask)
        twin = copy.copy(model)
        twin._modules = {**model._modules, "place": None}
        return twin, replace(features, grid=grid + told, mask=mask)
    if isinstance(model, FirstToken) and model.config.align is not None:
        layout = Layout(*model.config.align)
        grid = resampled(features, layout)
        aligned = copy.copy(model)
        aligned.config = replace(model.config, align=None)
        return aligned, Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device), layout)
    return model, features


def teach(model: Captioner, memory: Any, words: Int[Tensor, " L"]) -> Float[Tensor, "B L V"]:
    """Scores of every word along the same sentence for every medium: `[:, i]` are those of place i."""
    return _taught(model, memory, words).logits


def along(logits: Float[Tensor, "B L V"], words: Int[Tensor, " L"]) -> Float[Tensor, "B L"]:
    """Natural log of the probability of every word after the ones before it."""
    logits = logits.float()
    return logits.gather(-1, words.expand(len(logits), -1)[..., None]).squeeze(-1) - logits.logsumexp(-1)


def log_probabilities(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "B L"]:
    """`along` the same sentence for every medium."""
    return along(teach(model, model.encode(features), words), words)


@torch.no_grad()
def attended(model: Captioner, features: Features, words: Int[Tensor, " L"]) -> Float[Tensor, "L N"]:
    """Features of one medium -> the captioner's attention at every word: a distribution over the cells."""
    model, features = loose(model, features)
    return _taught(model, model.encode(features), words).attention[0]


def _taught(model: Captioner, memory: Any, words: Int[Tensor, " L"]) -> Taught:
    tokens = torch.cat([torch.full_like(words[:1], BOS), words[:-1]])
    return model.teach(memory, tokens.expand(len(first_tensor(memory)), -1))


def rows_at_once(features: Features, words: int) -> int:
    """So many media of this size go through a captioner together that it needs about 256 MB, at 50,000 words."""
    return max(1, (1 << 26) // (words * 50_000 + 4 * features.grid[0].numel()))
