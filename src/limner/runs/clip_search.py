"""Captions of clips by captioners that were trained on images; `limner.decode.clip_options` has the methods."""

from math import log
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limner.core.types import BOS, EOS, PAD, Captions, Features
from limner.decode.clip_options import ClipMethod, hypotheses_per_frame
from limner.decode.ensemble import EnsembleInputs, Inputs
from limner.decode.frames import frame_count, frames_apart, select_frame
from limner.decode.options import Decoding, Sample
from limner.decode.search import search
from limner.metrics.consensus import consensus
from limner.models.captioner import Captioner, CaptionerWrapper


def search_clips(model: Captioner, inputs: Inputs, options: Decoding, method: ClipMethod) -> Captions:
    """Caption B media -> `options.n_best` neighbouring rows per medium, with attention over all T * h * w cells.

    Media of one frame are images, and searched as such whatever the method.  With "middle" the attention of the other
    frames is 0.  With "consensus" a sentence's log-probability is the logarithm of its mean probability over the
    frames, and its attention over the cells of a frame is weighted by the probability that the sentence is about this
    frame: its probability given the frame, divided by the sum of those over all frames.
    """
    frames = frame_count(inputs)
    if method == "mosaic" or frames == 1:
        return search(model, inputs, options)
    if method == "middle":
        middle = frames // 2
        found = search(model, select_frame(inputs, middle), options)
        attention = found.attention.new_zeros(*found.attention.shape[:2], frames, found.attention.shape[2])
        attention[:, :, middle] = found.attention
        return found._replace(attention=attention.flatten(2))
    return _search_by_consensus(model, frames_apart(inputs), options, frames)


class _EncodedOnce(CaptionerWrapper):
    """A captioner that keeps the memory of its inputs: the search and the teacher forcing need the same one."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner, self.memory = captioner, None

    def encode(self, inputs: Any) -> Any:
        if self.memory is None:
            self.memory = self.captioner.encode(inputs)
        return self.memory


@torch.no_grad()
def _search_by_consensus(model: Captioner, inputs: Inputs, options: Decoding, frames: int) -> Captions:
    """`search_clips` for media whose frames are apart: B * T rows, T neighbouring ones per clip."""
    model = _EncodedOnce(model)
    wide = hypotheses_per_frame(options)
    found = search(model, inputs, wide)
    logprob = found.logprob.view(-1, frames * wide.n_best)  # (B, H): all hypotheses of a clip
    tokens = found.tokens.view(*logprob.shape, -1)
    seen = _seen(inputs).view(-1, frames).repeat_interleave(wide.n_best, 1)
    logprob = logprob.masked_fill(~seen, -torch.inf)
    weight = torch.zeros_like(logprob).masked_fill(~logprob.isfinite(), -torch.inf)  # a sample counts once
    chosen = _choose(tokens, weight if isinstance(options, Sample) else logprob, options.n_best)
    rows = chosen.clamp(min=0)
    sentences = tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[2]))  # (B, n_best, L)
    sentences = sentences.masked_fill((chosen < 0)[..., None], PAD)
    return _teacher_forced(model, inputs, sentences, frames, (chosen >= 0).flatten())


def _choose(tokens: Int[Tensor, "B H L"], logprob: Float[Tensor, "B H"], n_best: int) -> Int[Tensor, "B K"]:
    """The places of each clip's best sentences among its hypotheses; -1 where there are fewer than `n_best`."""
    places = []
    for ids, values in zip(tokens.tolist(), logprob.double().cpu().numpy(), strict=True):
        captions = [[i for i in (row[: row.index(EOS)] if EOS in row else row) if i != PAD] for row in ids]
        best = consensus(captions, values, n_best)
        places.append(best + [-1] * (n_best - len(best)))
    return torch.tensor(places, device=tokens.device)


def _seen(inputs: Inputs) -> Bool[Tensor, " R"]:
    """Which media have a real cell: frames that only fill up a batch say nothing."""
    first = inputs.parts[0] if isinstance(inputs, EnsembleInputs) else inputs
    if isinstance(first, Features):
        return first.mask.any(1)
    return torch.ones(len(first), dtype=torch.bool, device=first.device)


def _teacher_forced(
    model: Captioner, inputs: Inputs, sentences: Int[Tensor, "B K L"], frames: int, real: Bool[Tensor, " R"]
) -> Captions:
    """Log-probability and attention of sentences about clips whose frames are apart; see `search_clips`."""
    media, count, length = sentences.shape
    targets = sentences.repeat_interleave(frames, 0).flatten(0, 1)  # rows: clip, frame, sentence
    tokens = torch.cat([torch.full_like(targets[:, :1], BOS), targets[:, :-1]], 1)
    forced = model.forward_teacher_forced(model.encode(inputs), tokens)  # type: ignore[arg-type]
    logp = forced.logits.float().log_softmax(-1).gather(2, targets[..., None]).squeeze(2)
    said = targets != PAD
    logprob = logp.masked_fill(~said, 0.0).sum(1).view(media, frames, count)
    logprob = logprob.masked_fill(~_seen(inputs).view(media, frames, 1), -torch.inf)
    weights = logprob.softmax(1)  # (B, T, K)
    attention = forced.attention.masked_fill(~said[..., None], 0.0).view(media, frames, count, length, -1)
    attention = (attention * weights[..., None, None]).permute(0, 2, 3, 1, 4)  # (B, K, L, T, h * w)
    mean = (logprob.logsumexp(1) - log(frames)).flatten().masked_fill(~real, -torch.inf)
    return Captions(sentences.flatten(0, 1), mean, attention.flatten(3).flatten(0, 1))
