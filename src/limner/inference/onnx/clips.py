"""Captions of clips with an exported captioner, in NumPy; the same captions as `limner.runs.clip_search`."""

from collections.abc import Mapping, Sequence
from math import log

import numpy as np
from jaxtyping import Float, Int, UInt8

from limner.core.torch_free import BOS, EOS, PAD
from limner.decode.clip_options import ClipMethod, hypotheses_per_frame
from limner.decode.options import Beam
from limner.inference.onnx.beam import OnnxHypothesis, OnnxStepOutput, State, beam, log_softmax
from limner.inference.onnx.model import OnnxModel
from limner.metrics.consensus import consensus

Encoded = tuple[Mapping[str, np.ndarray], State]  # the memory of a frame by name, and its initial state (one row)


def search_clip(
    model: OnnxModel, pixels: UInt8[np.ndarray, "T h w 3"], options: Beam, method: ClipMethod
) -> list[OnnxHypothesis]:
    """The `options.n_best` best captions of an image or clip, best first; see `limner.runs.clip_search.search_clips`.

    Their attention is over all T * h * w cells.
    """
    frames = len(pixels)
    if method == "mosaic" or frames == 1:
        return _search(model, model.encode(pixels), options)
    if method == "middle":
        found = _search(model, model.encode(pixels[frames // 2][None]), options)
        return [each._replace(attention=_in_frame(each.attention, frames // 2, frames)) for each in found]
    encoded = [model.encode(frame[None]) for frame in pixels]
    wide = hypotheses_per_frame(options)
    assert isinstance(wide, Beam)
    hypotheses = [each for frame in encoded for each in _search(model, frame, wide)]
    captions = [[int(i) for i in each.tokens if i not in (PAD, EOS)] for each in hypotheses]
    chosen = consensus(captions, np.array([each.logprob for each in hypotheses]), options.n_best)
    return [_teacher_forced(model, encoded, hypotheses[place].tokens) for place in chosen]


def _search(model: OnnxModel, encoded: Encoded, options: Beam) -> list[OnnxHypothesis]:
    memory, start = encoded

    def step(token: np.ndarray, state: State) -> OnnxStepOutput:
        return model.step(memory, token, state)

    return beam(step, start, options)


def _in_frame(attention: Float[np.ndarray, "L n"], frame: int, frames: int) -> Float[np.ndarray, "L N"]:
    """Attention over the cells of one frame as attention over those of all frames; it is 0 in the others."""
    everywhere = np.zeros((len(attention), frames, attention.shape[1]), attention.dtype)
    everywhere[:, frame] = attention
    return everywhere.reshape(len(attention), -1)


def _teacher_forced(model: OnnxModel, frames: Sequence[Encoded], tokens: Int[np.ndarray, " L"]) -> OnnxHypothesis:
    """Mean log-probability and attention of a sentence about a clip, given the encoded frames."""
    parts = [_logprob_and_attention(model, frame, tokens) for frame in frames]
    logprob = np.array([value for value, _ in parts])
    total = float(np.logaddexp.reduce(logprob))
    attention = [maps * np.exp(value - total) for value, maps in parts]
    mean = total - log(len(frames))
    return OnnxHypothesis(mean, mean, tokens, np.concatenate(attention, 1))


def _logprob_and_attention(
    model: OnnxModel, encoded: Encoded, tokens: Int[np.ndarray, " L"]
) -> tuple[float, Float[np.ndarray, "L n"]]:
    """Log-probability of a sentence about one frame (natural log), and its attention at every token."""
    memory, state = encoded
    total, maps, previous = 0.0, [], BOS
    for token in tokens.tolist():
        logits, attention, state = model.step(memory, np.array([previous], np.int64), state)
        total += float(log_softmax(logits)[0, token])
        maps.append(attention[0])
        previous = token
    return total, np.stack(maps)
