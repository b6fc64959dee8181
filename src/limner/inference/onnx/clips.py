"""Captions of images and clips with an exported captioner, in NumPy; the same as `limner.runs.clip_search` finds.

The encoder runs for one medium (or frame) after the other, which is as fast as a batch; decoding steps are taken for
several together.
"""

from collections.abc import Sequence
from functools import partial
from math import log

import numpy as np
from jaxtyping import Float, Int, UInt8

from limner.core.torch_free import BOS, EOS, PAD
from limner.decode.clip_options import ClipMethod, hypotheses_per_frame
from limner.decode.options import Beam
from limner.decode.single_beam import FoundCaption, StepOutput, beam, log_softmax
from limner.inference.onnx.model import OnnxModel, State
from limner.metrics.consensus import consensus

Encoded = tuple[list[np.ndarray], State]  # the memory of B media, and their states (B, K, ...)


def search_media(
    model: OnnxModel, media: Sequence[UInt8[np.ndarray, "T h w 3"]], options: Beam, method: ClipMethod
) -> list[list[FoundCaption]]:
    """The `options.n_best` best captions of each image or clip, best first; see `limner.runs.clip_search.search_clips`.

    All have the same number of frames.  Their attention is over all T * h * w cells.
    """
    frames = len(media[0])
    if method == "mosaic" or frames == 1:
        return _search(model, [model.encode(pixels) for pixels in media], options)
    if method == "middle":
        found = _search(model, [model.encode(pixels[frames // 2][None]) for pixels in media], options)
        return [
            [each._replace(attention=_in_frame(each.attention, frames // 2, frames)) for each in captions]
            for captions in found
        ]
    return [_search_by_consensus(model, pixels, options) for pixels in media]


def _search_by_consensus(model: OnnxModel, pixels: UInt8[np.ndarray, "T h w 3"], options: Beam) -> list[FoundCaption]:
    """The captions of a clip on which its frames agree."""
    encoded = [model.encode(frame[None]) for frame in pixels]
    wide = hypotheses_per_frame(options)
    assert isinstance(wide, Beam)
    hypotheses = [each for found in _search(model, encoded, wide) for each in found]
    captions = [[int(i) for i in each.tokens if i not in (PAD, EOS)] for each in hypotheses]
    chosen = consensus(captions, np.array([each.logprob for each in hypotheses]), options.n_best)
    return [_teacher_forced(model, encoded, hypotheses[place].tokens) for place in chosen]


def _search(model: OnnxModel, encoded: Sequence[Encoded], options: Beam) -> list[list[FoundCaption]]:
    """The best captions of media of equal shapes, together where the exported step can do that."""
    groups = [encoded] if model.manifest.batched else [[one] for one in encoded]
    return [
        captions
        for group in groups
        for captions in beam(partial(_step, model), _together(group), options, _select, len(group))
    ]


def _together(encoded: Sequence[Encoded]) -> Encoded:
    """The memories and states of several media as those of a batch."""
    memories, states = zip(*encoded, strict=True)
    memory, state = ([np.concatenate(parts) for parts in zip(*trees, strict=True)] for trees in (memories, states))
    return memory, state


def _step(model: OnnxModel, token: Int[np.ndarray, "B K"], encoded: Encoded) -> StepOutput:
    """A step of the search, whose state is the decoder's memory and state."""
    memory, state = encoded
    logits, attention, state = model.step(memory, token, state)
    return log_softmax(logits), attention, (memory, state)


def _select(encoded: Encoded, media: Int[np.ndarray, " b"], rows: Int[np.ndarray, "b k"]) -> Encoded:
    """The memory of `media`, and the states of the hypotheses `rows` of each."""
    memory, state = encoded
    if state and len(media) < len(state[0]):
        memory = [x[media] for x in memory]
    return memory, [x[media[:, None], rows] for x in state]


def _in_frame(attention: Float[np.ndarray, "L n"], frame: int, frames: int) -> Float[np.ndarray, "L N"]:
    """Attention over the cells of one frame as attention over those of all frames; it is 0 in the others."""
    everywhere = np.zeros((len(attention), frames, attention.shape[1]), attention.dtype)
    everywhere[:, frame] = attention
    return everywhere.reshape(len(attention), -1)


def _teacher_forced(model: OnnxModel, frames: Sequence[Encoded], tokens: Int[np.ndarray, " L"]) -> FoundCaption:
    """Mean log-probability and attention of a sentence about a clip, given the encoded frames."""
    parts = [_logprobs_and_attention(model, frame, tokens) for frame in frames]
    logprob = np.array([float(logprobs.sum()) for logprobs, _ in parts])
    total = float(np.logaddexp.reduce(logprob))
    attention = [maps * np.exp(value - total) for value, (_, maps) in zip(logprob, parts, strict=True)]
    mean = total - log(len(frames))
    return FoundCaption(mean, mean, tokens, np.concatenate(attention, 1))


def explain_tokens(
    model: OnnxModel, pixels: UInt8[np.ndarray, "T h w 3"], tokens: Int[np.ndarray, " L"], method: ClipMethod
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, "L N"]]:
    """Log-probability (natural log) of every token of a sentence about an image or clip, given the tokens before it,
    and the attention at every token over all T * h * w cells.

    With "consensus", both are means over the frames, weighted by the probability that the sentence is about the frame;
    with "middle" the attention of the other frames is 0.
    """
    frames = len(pixels)
    if method == "mosaic" or frames == 1:
        return _logprobs_and_attention(model, model.encode(pixels), tokens)
    if method == "middle":
        logprobs, maps = _logprobs_and_attention(model, model.encode(pixels[frames // 2][None]), tokens)
        return logprobs, _in_frame(maps, frames // 2, frames)
    parts = [_logprobs_and_attention(model, model.encode(frame[None]), tokens) for frame in pixels]
    each = np.stack([logprobs for logprobs, _ in parts])
    weights = each.sum(1) - np.logaddexp.reduce(each.sum(1))
    maps = np.concatenate([maps * np.exp(weight) for weight, (_, maps) in zip(weights, parts, strict=True)], 1)
    return np.logaddexp.reduce(each + weights[:, None], axis=0), maps


def _logprobs_and_attention(
    model: OnnxModel, encoded: Encoded, tokens: Int[np.ndarray, " L"]
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, "L n"]]:
    """Log-probability of every token of a sentence about one frame (natural log), and its attention at every token."""
    logprobs, maps, previous = [], [], BOS
    for token in tokens.tolist():
        logp, attention, encoded = _step(model, np.array([[previous]], np.int64), encoded)
        logprobs.append(float(logp[0, 0, token]))
        maps.append(attention[0, 0])
        previous = token
    return np.array(logprobs), np.stack(maps)
