"""Explanations: one map over the cells of an image or clip for every word of a sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, UNK, Features, Layout
from limner.decode.frames import frames_apart
from limner.explanations.cells import attention_maps, sentence_logprobs, without_encoder
from limner.explanations.gradcam import gradcam, gradcam_plus_plus, normalise_maps
from limner.explanations.saliency import saliency
from limner.models.captioner import Captioner
from limner.text.vocabulary import Vocabulary

# name -> function (captioner, features of one medium, word ids) -> maps
METHODS: dict[str, Callable[..., Float[Tensor, "L N"]]] = {
    "attention": attention_maps,
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "saliency": saliency,
}


@dataclass(frozen=True)
class TargetSentence:
    """The sentence that is explained: the ids of its words, without BOS and EOS, and their spelling."""

    text: str
    ids: tuple[int, ...]
    words: tuple[str, ...]
    unknown: tuple[str, ...] = ()  # words that are not in the vocabulary

    @property
    def word_indices(self) -> list[int]:
        """Indices of the readable words.  Converted models may also generate PAD and BOS, which are left out."""
        return [index for index, id in enumerate(self.ids) if id not in (PAD, BOS)]


@dataclass(frozen=True)
class Explanation:
    """Maps of all words of one sentence, with what is needed to draw them.

    Values are >= 0.  Maps of attention sum to 1 over the cells.  Maps of other methods reach from 0 to 1, or are 0
    everywhere when the method gives all cells the same value.
    """

    text: str
    words: tuple[str, ...]
    maps: Float[np.ndarray, "L N"]
    layout: Layout
    method: str
    probabilities: Float[np.ndarray, " L"]  # of each word, given the words before it and all cells
    real: Bool[np.ndarray, " N"]  # False: the cell is padding
    regions: Float[np.ndarray, "N 4"] | None = None  # boxes of a detector, relative xyxy; None: cells form a grid

    @property
    def grid(self) -> Float[np.ndarray, "L t h w"]:
        """The maps with separate axes for time, height and width."""
        return self.maps.reshape(len(self.maps), *self.layout)

    def boxes(self, kept_region: tuple[float, float, float, float]) -> Float[np.ndarray, "N 4"]:
        """Box of every cell in the image, relative xyxy.

        A grid of cells tiles the part `kept_region` of the image, which is the part that the encoder saw.
        """
        if self.regions is not None:
            return self.regions
        left, top, right, bottom = kept_region
        size = np.array([right - left, bottom - top] * 2)
        return self.layout.boxes().numpy() * size + [left, top, left, top]

    @property
    def is_uniform(self) -> bool:
        """True when the map of every word is the same in all cells."""
        maps = self.maps[:, self.real]
        return bool((np.ptp(maps, axis=1) <= 1e-6 * maps.max(1)).all())


def explain(
    model: Captioner,
    features: Features,
    sentence: TargetSentence,
    method: str = "attention",
    frame_weights: Float[Tensor, " T"] | None = None,
    **options: Any,
) -> Explanation:
    """Explain every word of a sentence about one medium, for a captioner in evaluation mode.

    The cells are those of `features`, or the resampled ones where the captioner resamples them (`FirstToken.align`).
    `options` are passed to the method (saliency has `block`).  With `frame_weights`, which sum to 1, the captioner
    reads every frame of a clip by itself: the map of a frame is that of an image, times the frame's weight, and so is
    the probability of a word.  Raises ValueError for an unknown method or for features of several media.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if len(features) != 1:
        raise ValueError(f"one medium is explained at a time, got features of {len(features)}")
    model = without_encoder(model)
    parts, weights = [features], torch.ones(1)
    if frame_weights is not None:
        apart, weights = frames_apart(features), frame_weights
        parts = [apart.map(lambda x, t=t: x[t : t + 1]) for t in range(len(weights))]  # type: ignore[union-attr]
    cells = features if len(parts) > 1 else model.prepare_for_occlusion(features)[1]
    real = cells.mask[0] & (weights > 0).repeat_interleave(cells.layout.cells // len(parts)).to(cells.device)
    maps, logprob = torch.zeros(0, len(real)), torch.zeros(0)
    if sentence.ids:
        words = torch.tensor(sentence.ids, device=features.device)
        found = [METHODS[method](model, part, words, **options) for part in parts]
        # the values of saliency are logarithms of probabilities
        weighted = [m + w.log() if method == "saliency" else m * w for m, w in zip(found, weights, strict=True)]
        maps = torch.cat(weighted, 1) if method == "attention" else normalise_maps(torch.cat(weighted, 1), real)
        with torch.no_grad():
            logprobs = torch.cat([sentence_logprobs(model, part, words) for part in parts])
            logprob = (logprobs + weights.log().to(logprobs)[:, None]).logsumexp(0)
    return Explanation(
        sentence.text,
        tuple(sentence.words[index] for index in sentence.word_indices),
        maps[sentence.word_indices].float().cpu().numpy(),
        cells.layout,
        method,
        logprob[sentence.word_indices].exp().cpu().numpy(),
        real.cpu().numpy(),
        None if cells.regions is None else cells.regions[0].cpu().numpy(),
    )


def sentence_from_text(vocabulary: Vocabulary, text: str) -> TargetSentence:
    """The sentence that a user wrote.  Unknown words keep their spelling and get the id UNK.

    Raises ValueError when the text has no word.
    """
    words = vocabulary.tokenize(text)
    if not words:
        raise ValueError(f"the sentence {text!r} has no word in it: give at least one word")
    ids = vocabulary.encode(text)[1:-1]
    unknown = tuple(dict.fromkeys(word for word, id in zip(words, ids, strict=True) if id == UNK))
    return TargetSentence(vocabulary.join(words), tuple(ids), tuple(words), unknown)


def sentence_from_tokens(vocabulary: Vocabulary, tokens: Sequence[int]) -> TargetSentence:
    """The sentence that a search found: the tokens before EOS, without padding."""
    ids = tuple(tokens[: tokens.index(EOS)] if EOS in tokens else tokens)
    while ids and ids[-1] == PAD:
        ids = ids[:-1]
    return TargetSentence(vocabulary.decode(ids), ids, tuple(vocabulary.decode([id]) for id in ids))


def default_method(model: Captioner) -> str:
    """The default method of a captioner: attention if it has attention, else Grad-CAM."""
    return "attention" if without_encoder(model).attends else "gradcam"
