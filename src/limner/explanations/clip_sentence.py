"""The sentence that is explained, and the weights of the frames where clips are read frame by frame."""

import torch
from jaxtyping import Float
from torch import Tensor

from limner.core.types import Features
from limner.decode.clip_options import ClipMethod
from limner.decode.frames import frames_apart
from limner.decode.options import Decoding
from limner.explanations.cells import sentence_logprobs
from limner.explanations.maps import TargetSentence, sentence_from_tokens
from limner.models.captioner import Captioner
from limner.runs.clip_search import search_clips
from limner.runs.run import Run
from limner.runs.trained_media import clip_method_of


def captioned(
    run: Run, features: Features, decoding: Decoding, clip: str | None = None, sentence: TargetSentence | None = None
) -> tuple[TargetSentence, Float[Tensor, " T"] | None]:
    """The caption of one medium (or `sentence`), and the weight of every frame in its explanation.

    `decoding` has words as ids.  `clip` is how a captioner of images reads clips (None: by consensus).  With a
    consensus, a frame's weight is the probability that the sentence is about this frame; with "middle" the other frames
    have the weight 0.  There are no weights (None) where all frames are read together.
    Raises ValueError for a `clip` that the run does not have.
    """
    method = clip_method_of([run], clip)
    if sentence is None:
        tokens = search_clips(run.model, features, decoding, method).tokens[0].tolist()
        sentence = sentence_from_tokens(run.vocabulary, tokens)
    if method == "mosaic" or features.layout.t == 1:
        return sentence, None
    return sentence, _frame_weights(run.model, features, sentence, method)


@torch.no_grad()
def _frame_weights(
    model: Captioner, features: Features, sentence: TargetSentence, method: ClipMethod
) -> Float[Tensor, " T"]:
    if method == "middle":
        weights = torch.zeros(features.layout.t, device=features.device)
        weights[features.layout.t // 2] = 1
        return weights
    frames = frames_apart(features)
    assert isinstance(frames, Features)
    words = torch.tensor(sentence.ids, dtype=torch.long, device=features.device)
    logprob = sentence_logprobs(model, frames, words).sum(1) if len(words) else torch.zeros(len(frames))
    return logprob.masked_fill(~frames.mask.any(1), -torch.inf).softmax(0)
