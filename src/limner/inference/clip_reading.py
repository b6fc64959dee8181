"""How models of `transformers` read clips: all frames together, the middle one, or a consensus of single frames."""

from collections.abc import Sequence
from dataclasses import replace
from math import log

import numpy as np

from limner.core.torch_free import Caption
from limner.decode.clip_options import ClipMethod, clip_method
from limner.decode.options import Decoding, Sample
from limner.metrics.consensus import consensus


def clip_method_of(name: str, together: bool, wanted: str | None) -> ClipMethod:
    """How a model reads clips; `together`: it takes several frames at a time, so that nothing else fits.

    Other models read the middle frame, or with `wanted` "consensus" several frames one by one.  Raises ValueError.
    """
    if together:
        return clip_method("clips", wanted, name)
    if wanted == "mosaic":
        raise ValueError(f"{name} reads one image of a fixed size, and no mosaic of frames: give consensus or middle")
    return "middle" if wanted is None else clip_method("images", wanted, name)


def choose_by_consensus(frames: Sequence[Caption], decoding: Decoding) -> Caption:
    """The caption of a clip from those of its frames, each with `others`: what agrees most with all of them.

    Words are what blanks separate.  The log-probability is that which the caption has in its own frame, less the
    logarithm of the number of frames, because the model was not asked about it in the others.
    """
    captions = [each for frame in frames for each in (replace(frame, others=()), *frame.others)]
    ids: dict[str, int] = {}
    words = [[ids.setdefault(word, len(ids)) for word in each.text.split()] for each in captions]
    equal = isinstance(decoding, Sample)  # a sample counts once
    logprobs = np.array([0.0 if equal else each.logprob for each in captions])
    best, *others = (
        replace(captions[place], logprob=captions[place].logprob - log(len(frames)))
        for place in consensus(words, logprobs, decoding.n_best)
    )
    return replace(best, others=tuple(others))
