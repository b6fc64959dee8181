"""Captions for many media: batches are read, searched and decoded to text."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from limner.core.types import EOS, PAD, Captions, Medium
from limner.data.batches import MixedShapesError, Reader, evaluation_batches
from limner.data.loader import Loading
from limner.decode.ensemble import EnsembleInputs, Inputs
from limner.decode.options import Decoding, media_per_search
from limner.decode.search import search
from limner.models.captioner import Captioner
from limner.text.vocabulary import Vocabulary

SearchFunction = Callable[[Captioner, Inputs, Decoding], Captions]


class GeneratedCaption(NamedTuple):
    """One caption that a search returned."""

    text: str
    logprob: float  # natural logarithm of its probability, the end of the caption included
    finished: bool  # False: the caption reached the length limit before its end


def generate(
    model: Captioner,
    media: Sequence[Medium],
    reader: Reader | tuple[Reader, ...],
    vocabulary: Vocabulary,
    options: Decoding,
    batch_size: int = 64,
    loading: Loading | None = None,
) -> dict[str, str]:
    """The best caption of every medium, by id; with sampling, the first one sampled.

    The model runs in evaluation mode and gets its mode back afterwards.  An `Ensemble` needs a tuple of readers, one
    per member.
    """
    several = generate_several(model, media, reader, vocabulary, options, batch_size, loading=loading)
    return {id: captions[0].text for id, captions in several.items()}


def generate_several(
    model: Captioner,
    media: Sequence[Medium],
    reader: Reader | tuple[Reader, ...],
    vocabulary: Vocabulary,
    options: Decoding,
    batch_size: int = 64,
    find: SearchFunction = search,
    loading: Loading | None = None,
) -> dict[str, list[GeneratedCaption]]:
    """Up to `options.n_best` captions of every medium, by id: best first, or in the order they were sampled.

    `find` searches a batch, as `limner.decode.search.search` does.  `loading` says how media are read ahead; the
    readers of an `Ensemble` do not read ahead.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    options = options.bind(vocabulary)
    captions: dict[str, list[GeneratedCaption]] = {}
    for ids, inputs in _batches(media, reader, media_per_search(options, batch_size), device, loading):
        result = find(model, inputs, options)
        rows = [
            (row, GeneratedCaption(vocabulary.decode(row), logprob, EOS in row))
            for row, logprob in zip(result.tokens.tolist(), result.logprob.tolist(), strict=True)
        ]
        for i, id in enumerate(ids):
            own = rows[i * options.n_best : (i + 1) * options.n_best]
            captions[id] = [caption for row, caption in own if row[0] != PAD] or [own[0][1]]  # PAD first: an empty row
    model.train(was_training)
    return captions


def _batches(
    media: Sequence[Medium],
    reader: Reader | tuple[Reader, ...],
    batch_size: int,
    device: torch.device,
    loading: Loading | None,
) -> Iterator[tuple[tuple[str, ...], Inputs]]:
    if not isinstance(reader, tuple):
        batches = evaluation_batches(media, reader, batch_size, loading)
        yield from ((batch.ids, batch.to(device).inputs) for batch in batches)
        return
    for i in range(0, len(media), batch_size):
        part = media[i : i + batch_size]
        try:
            groups = [(part, EnsembleInputs(tuple(read([(medium, "full") for medium in part]) for read in reader)))]
        except MixedShapesError:  # images and clips in one batch: one medium at a time
            groups = [([medium], EnsembleInputs(tuple(read([(medium, "full")]) for read in reader))) for medium in part]
        yield from ((tuple(medium.id for medium in some), inputs.to(device)) for some, inputs in groups)
