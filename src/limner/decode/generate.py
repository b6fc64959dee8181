"""Captions for many media."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from limner.core.types import EOS, PAD, Medium
from limner.data.batches import MixedShapesError, Reader, evaluation_batches
from limner.decode.ensemble import EnsembleInputs, Inputs
from limner.decode.options import Decoding, media_per_search
from limner.decode.search import search
from limner.models.captioner import Captioner
from limner.text.vocabulary import Vocabulary


class GeneratedCaption(NamedTuple):
    """A caption as the search found it."""

    text: str
    logprob: float  # natural log of its probability, its end included
    finished: bool  # False: the length limit came before its end


def generate(
    model: Captioner,
    media: Sequence[Medium],
    reader: Reader | tuple[Reader, ...],
    vocabulary: Vocabulary,
    options: Decoding,
    batch_size: int = 64,
) -> dict[str, str]:
    """The best (or first drawn) caption by id, in evaluation mode; the model's mode is put back.  An `Ensemble` has a
    reader for each member."""
    several = generate_several(model, media, reader, vocabulary, options, batch_size)
    return {id: captions[0].text for id, captions in several.items()}


def generate_several(
    model: Captioner,
    media: Sequence[Medium],
    reader: Reader | tuple[Reader, ...],
    vocabulary: Vocabulary,
    options: Decoding,
    batch_size: int = 64,
) -> dict[str, list[GeneratedCaption]]:
    """Up to `options.n_best` captions by id: the best ones, best first, or those drawn."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    options = options.bind(vocabulary)
    captions: dict[str, list[GeneratedCaption]] = {}
    for ids, inputs in _batches(media, reader, media_per_search(options, batch_size), device):
        found = search(model, inputs, options)
        rows = [
            (row, GeneratedCaption(vocabulary.decode(row), logprob, EOS in row))
            for row, logprob in zip(found.tokens.tolist(), found.logprob.tolist(), strict=True)
        ]
        for i, id in enumerate(ids):
            mine = rows[i * options.n_best : (i + 1) * options.n_best]
            captions[id] = [said for row, said in mine if row[0] != PAD] or [mine[0][1]]
    model.train(was_training)
    return captions


def _batches(
    media: Sequence[Medium], reader: Reader | tuple[Reader, ...], batch_size: int, device: torch.device
) -> Iterator[tuple[tuple[str, ...], Inputs]]:
    if not isinstance(reader, tuple):
        yield from ((batch.ids, batch.to(device).inputs) for batch in evaluation_batches(media, reader, batch_size))
        return
    for i in range(0, len(media), batch_size):
        part = media[i : i + batch_size]
        try:
            groups = [(part, EnsembleInputs(tuple(read([(medium, "full") for medium in part]) for read in reader)))]
        except MixedShapesError:  # pictures and clips among them
            groups = [([medium], EnsembleInputs(tuple(read([(medium, "full")]) for read in reader))) for medium in part]
        yield from ((tuple(medium.id for medium in some), inputs.to(device)) for some, inputs in groups)
