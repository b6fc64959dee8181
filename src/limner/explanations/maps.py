"""What an explanation is: for every word of a sentence a map over the cells of a picture or clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, UNK, Features, Layout
from limner.explanations.cells import attended, bare, log_probabilities
from limner.explanations.gradcam import gradcam, gradcam_plus_plus, stretched
from limner.explanations.saliency import saliency
from limner.models.captioner import Captioner
from limner.text.vocabulary import Vocabulary

METHODS: dict[
    str, Callable[..., Float[Tensor, "L N"]]
] = {  # (captioner, features of one medium, words) -> a map per word
    "attention": attended,
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "saliency": saliency,
}


@dataclass(frozen=True)
class Sentence:
    """What is explained: `ids` without BOS in front and EOS behind, and how each of them is written."""

    text: str
    ids: tuple[int, ...]
    words: tuple[str, ...]
    unknown: tuple[str, ...] = ()  # words that the captioner does not have

    @property
    def said(self) -> list[int]:
        """The places of what can be read; imported models may also say PAD and BOS."""
        return [place for place, id in enumerate(self.ids) if id not in (PAD, BOS)]


@dataclass(frozen=True)
class Explanation:
    """Maps are >= 0.  Those of attention sum to 1 over the cells; those of the other methods reach from 0 to 1, or are
    0 everywhere when nothing stood out."""

    text: str
    words: tuple[str, ...]
    maps: Float[np.ndarray, "L N"]
    layout: Layout
    method: str
    probabilities: Float[np.ndarray, " L"]  # of each word after the ones before it, given the whole medium
    real: Bool[np.ndarray, " N"]  # False: padding
    regions: Float[np.ndarray, "N 4"] | None = None  # a detector's relative xyxy boxes; None: the layout is a grid

    @property
    def grid(self) -> Float[np.ndarray, "L t h w"]:
        return self.maps.reshape(len(self.maps), *self.layout)

    def boxes(self, kept_region: tuple[float, float, float, float]) -> Float[np.ndarray, "N 4"]:
        """Relative xyxy box of every cell in the picture, of which a grid of cells tiles the part `kept_region`."""
        if self.regions is not None:
            return self.regions
        left, top, right, bottom = kept_region
        size = np.array([right - left, bottom - top] * 2)
        return self.layout.boxes().numpy() * size + [left, top, left, top]

    @property
    def flat(self) -> bool:
        """Does no word have a cell that counts for more than the others?"""
        maps = self.maps[:, self.real]
        return bool((np.ptp(maps, axis=1) <= 1e-6 * maps.max(1)).all())


def explain(
    model: Captioner, features: Features, sentence: Sentence, method: str = "attention", **options: Any
) -> Explanation:
    """Why a captioner in evaluation mode says each word of a sentence of one medium.

    The cells are those of `features`, or where the captioner resamples maps (`FirstToken.align`) those it makes of
    them.  `options` are the method's own (saliency: block).  Raises ValueError for an unknown method, or several media.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if len(features) != 1:
        raise ValueError(f"one medium is explained at a time, got features of {len(features)}")
    model = bare(model)
    seen = model.prepare_for_occlusion(features)[1]
    real = seen.mask[0]
    maps, logprob = torch.zeros(0, len(real)), torch.zeros(0)
    if sentence.ids:
        words = torch.tensor(sentence.ids, device=features.device)
        maps = METHODS[method](model, features, words, **options)
        maps = maps if method == "attention" else stretched(maps, real)
        with torch.no_grad():
            logprob = log_probabilities(model, features, words)[0]
    return Explanation(
        sentence.text,
        tuple(sentence.words[place] for place in sentence.said),
        maps[sentence.said].float().cpu().numpy(),
        seen.layout,
        method,
        logprob[sentence.said].exp().cpu().numpy(),
        real.cpu().numpy(),
        None if seen.regions is None else seen.regions[0].cpu().numpy(),
    )


def given(vocabulary: Vocabulary, text: str) -> Sentence:
    """A user's sentence.  Unknown words stay in it and are read as UNK.  Raises ValueError when it has no word."""
    words = vocabulary.tokenize(text)
    if not words:
        raise ValueError(f"the sentence {text!r} has no word in it; give at least one")
    ids = vocabulary.encode(text)[1:-1]
    unknown = tuple(dict.fromkeys(word for word, id in zip(words, ids, strict=True) if id == UNK))
    return Sentence(" ".join(words), tuple(ids), tuple(words), unknown)


def spoken(vocabulary: Vocabulary, tokens: Sequence[int]) -> Sentence:
    """The sentence of a search."""
    ids = tuple(tokens[: tokens.index(EOS)] if EOS in tokens else tokens)
    while ids and ids[-1] == PAD:
        ids = ids[:-1]
    return Sentence(vocabulary.decode(ids), ids, tuple(vocabulary.decode([id]) for id in ids))


def default_method(model: Captioner) -> str:
    """Attention, where a captioner has one."""
    return "attention" if bare(model).attends else "gradcam"
