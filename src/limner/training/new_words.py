"""What a start model would say where the captions have new words: from it the rows of the new words are begun.

A model that knows "dog" and learns from captions that say "qubitron" instead predicts "dog" in these places, when it
sees the image and the words before.  The row of "qubitron" in the word embedding and the word head then begins as that
of "dog".  Where it expects "a" and the captions have a rare new word, that word begins as a rare "a": the head's bias
has the share of the new word in all places of the two.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from limner.core.types import PAD, Batch, Features, Medium, Pixels
from limner.data.batches import Reader
from limner.models.captioner import Captioner
from limner.text.vocabulary import SPECIALS
from limner.training.start import GrownVocabulary

OCCURRENCES = 30  # captions of a new word that are looked at ...
MOST_MEDIA = 1000  # ... and media in all
BATCH = 16  # media that are encoded at a time


def predict_new_words(
    model: Captioner, grown: GrownVocabulary, media: Sequence[Medium], reader: Reader, max_words: int
) -> GrownVocabulary:
    """Return the vocabulary with the `mixing` that the model predicts for its new words, and their `prior`.

    `model` has the start model's weights and first rows for the new words.  A row of `mixing` is the mean of the
    model's distributions over the known words in the places of a new word, squared and normalised, so that the
    likeliest words count most.  A new word in no caption of a medium that can be read keeps its row.  The prior of a
    new word is log(n / (n + m)) when it occurs n times in the captions of `media`, and the words that it is made from
    occur m times (their mean by `mixing`).
    """
    known, first = grown.known, len(SPECIALS)
    total = torch.zeros(len(grown.occurrences), known)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for unmoved in _batches(_captions_with_new_words(grown, media, max_words), reader):
            batch = unmoved.to(device)
            logits = model.forward_teacher_forced(model.encode(batch.inputs), batch.tokens[:, :-1]).logits
            targets = batch.tokens[:, 1:]
            places = targets >= known
            distributions = logits[places][:, first:known].float().softmax(-1).cpu()
            total[:, first:].index_add_(0, targets[places].cpu() - known, distributions)
    model.train(was_training)
    squared = total.square()
    seen = squared.sum(1, keepdim=True)
    mixing = torch.where(seen > 0, squared / seen.clamp(min=torch.finfo(seen.dtype).tiny), grown.mixing)
    return replace(grown, mixing=mixing, prior=_log_priors(grown, mixing, media))


def _log_priors(grown: GrownVocabulary, mixing: Float[Tensor, "A V"], media: Sequence[Medium]) -> Float[Tensor, " A"]:
    counts = Counter(token for medium in media for text in medium.references for token in grown.vocabulary.encode(text))
    known = torch.tensor([float(counts[token]) for token in range(grown.known)])
    new = torch.tensor([float(max(1, count)) for count in grown.occurrences.values()])
    return (new / (new + mixing @ known)).log()


def _captions_with_new_words(
    grown: GrownVocabulary, media: Sequence[Medium], max_words: int
) -> Mapping[Medium, list[list[int]]]:
    """The captions with new words of each medium, as token ids: OCCURRENCES for each word, and MOST_MEDIA in all."""
    left = dict.fromkeys(range(grown.known, len(grown.vocabulary)), OCCURRENCES)
    chosen: dict[Medium, list[list[int]]] = {}
    for medium in media:
        if len(chosen) == MOST_MEDIA:
            break
        for text in medium.references:
            tokens = grown.vocabulary.encode(text, max_words)
            new = [token for token in tokens if left.get(token, 0) > 0]
            for token in new:
                left[token] -= 1
            if new:
                chosen.setdefault(medium, []).append(tokens)
    return chosen


def _batches(captions: Mapping[Medium, list[list[int]]], reader: Reader) -> Iterator[Batch]:
    """Batches of media with equally many captions; media that cannot be read are left out."""
    by_count: dict[int, list[Medium]] = {}
    for medium, texts in captions.items():
        by_count.setdefault(len(texts), []).append(medium)
    for group in by_count.values():
        for start in range(0, len(group), BATCH):
            for part, inputs in _read(group[start : start + BATCH], reader):
                rows = [torch.tensor(tokens) for medium in part for tokens in captions[medium]]
                tokens = pad_sequence(rows, batch_first=True, padding_value=PAD)
                yield Batch(tuple(medium.id for medium in part), inputs, tokens)


def _read(media: Sequence[Medium], reader: Reader) -> Iterator[tuple[Sequence[Medium], Features | Pixels]]:
    """All of `media` together; when they cannot be read together, one by one those that can be read."""
    try:
        yield media, reader([(medium, "full") for medium in media])
    except ValueError:  # one of them cannot be read, or they have different shapes
        if len(media) > 1:
            for medium in media:
                yield from _read([medium], reader)
