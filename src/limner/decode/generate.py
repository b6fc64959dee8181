"""Captions for many media."""

from collections.abc import Sequence

from limner.data.batches import Reader, in_order
from limner.decode.search import Beam, beam
from limner.models.captioner import Captioner
from limner.text.vocabulary import Vocabulary
from limner.types import Medium


def generate(
    model: Captioner,
    media: Sequence[Medium],
    reader: Reader,
    vocabulary: Vocabulary,
    options: Beam,
    batch_size: int = 64,
) -> dict[str, str]:
    """Captions by id, in evaluation mode; the model's mode is put back."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    captions: dict[str, str] = {}
    for batch in in_order(media, reader, batch_size):
        tokens = beam(model, batch.to(device).inputs, options).tokens.tolist()
        captions |= {id: vocabulary.decode(row) for id, row in zip(batch.ids, tokens, strict=True)}
    model.train(was_training)
    return captions
