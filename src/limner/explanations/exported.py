"""Attention maps of exported captioners.

Their graphs give no gradients, and no cell can be taken out of them, so that attention is the only method.
"""

import numpy as np
from jaxtyping import UInt8

from limner.core.types import Layout
from limner.decode.options import Decoding
from limner.explanations.maps import Explanation, TargetSentence, sentence_from_tokens
from limner.inference.onnx.clips import explain_tokens
from limner.inference.onnx.pipeline import OnnxPipeline


def explain_exported(
    pipeline: OnnxPipeline,
    pixels: UInt8[np.ndarray, "T h w 3"],
    decoding: Decoding | None = None,
    sentence: TargetSentence | None = None,
) -> Explanation:
    """The attention at every word of a sentence about one medium; of the model's own caption when it is None.

    `pixels` is what `pipeline.read` returns.  The same as `explain` with the method attention says about the run that
    was exported.  Raises ValueError for a model that does not attend.
    """
    if not pipeline.model.manifest.attends:
        raise ValueError(f"{pipeline.name} has no attention: it looks at all cells alike at every word")
    if sentence is None:
        ((found, *_),) = pipeline.search([pixels], decoding)
        sentence = sentence_from_tokens(pipeline.vocabulary, found.tokens.tolist())
    h, w = pipeline.model.manifest.layout
    cells = len(pixels) * h * w
    logprobs, maps = np.zeros(0), np.zeros((0, cells))
    if sentence.ids:
        logprobs, maps = explain_tokens(pipeline.model, pixels, np.array(sentence.ids), pipeline.clip)
    kept = sentence.word_indices
    return Explanation(
        sentence.text,
        tuple(sentence.words[index] for index in kept),
        maps[kept].astype(np.float32),
        Layout(maps.shape[1] // (h * w), h, w),
        "attention",
        np.exp(logprobs[kept]).astype(np.float32),
        np.ones(maps.shape[1], bool),
    )
