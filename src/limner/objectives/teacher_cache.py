"""A cache of a teacher's predictions: its likeliest words at every position of every caption a student has seen.

The cache also stores the probability that all other words have together.  At temperature 2 a teacher with some thousand
words gives most of its probability to unlikely ones, so the 32 likeliest alone would be a different distribution.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import PAD, Batch

MAX_BYTES = 2 << 30  # when the cache is full, the teacher computes further captions anew each time


class TeacherCache:
    """The teacher's `count` likeliest words at every position of (medium, augmentation, caption).

    It stores their log-probabilities at `temperature` as float16, and the log-probability of all other words together.
    A prediction is the same whether it was computed or cached.  Checkpoints contain the cache, because the last bits
    of a teacher's scores depend on the batch in which they were computed.
    """

    def __init__(self, count: int, temperature: float, max_bytes: int = MAX_BYTES):
        self.count, self.temperature, self.free_bytes = count, temperature, max_bytes
        self.entries: dict[int, tuple[Tensor, Tensor]] = {}
        self.computed_captions = 0  # by the teacher, since the cache was made

    def get(
        self, batch: Batch, ask: Callable[[Batch], Float[Tensor, "r L V"]]
    ) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k+1"]]:
        """The k likeliest words for each of the batch's M target words, EOS included, row by row.

        -> word ids, and their log-probabilities followed by that of all other words (-inf when there are none).
        `ask` computes the teacher's logits for a batch of those media that are not in the cache.
        """
        captions = len(batch.tokens) // len(batch.ids)
        keys = [cache_key(batch, row) for row in range(len(batch.tokens))]
        media = sorted({row // captions for row, name in enumerate(keys) if name not in self.entries})
        fresh: dict[int, tuple[Tensor, Tensor]] = {}
        if media:
            rows = list(chain(*(range(m * captions, (m + 1) * captions) for m in media)))
            part = select_media(batch, media, rows)
            fresh = dict(zip([keys[row] for row in rows], self.top_words(ask(part), part.tokens), strict=True))
            self.computed_captions += len(rows)
            for name, entry in fresh.items():
                if name not in self.entries and (size := sum(x.nbytes for x in entry)) <= self.free_bytes:
                    self.entries[name] = entry
                    self.free_bytes -= size
        words, logp = zip(*(self.entries.get(name) or fresh[name] for name in keys), strict=True)
        # float32 first: autocast on a CPU refuses to join float16
        return torch.cat(words).to(batch.tokens), torch.cat([x.float() for x in logp]).to(batch.tokens.device)

    def top_words(self, logits: Float[Tensor, "r L V"], tokens: Int[Tensor, "r T"]) -> list[tuple[Tensor, Tensor]]:
        """The cache entry of each caption: (words (T, k), log-probabilities (T, k + 1))."""
        keep = tokens[:, 1:] != PAD
        scores = (logits[keep].float() / self.temperature).log_softmax(-1)
        logp, words = scores.topk(min(self.count, scores.shape[1]))
        logp = torch.cat([logp, scores.scatter(1, words, -torch.inf).logsumexp(-1, keepdim=True)], 1)
        small = torch.int16 if scores.shape[1] <= 1 << 15 else torch.int32
        sizes = keep.sum(1).tolist()
        pairs = zip(words.cpu().to(small).split(sizes), logp.cpu().half().split(sizes), strict=True)
        return [(w.clone(), p.clone()) for w, p in pairs]

    def to_tensors(self) -> dict[str, Tensor]:
        """The cache as tensors, for a checkpoint; empty when nothing is cached."""
        if not self.entries:
            return {}
        words, logp = zip(*self.entries.values(), strict=True)
        sizes = torch.tensor([len(x) for x in words])
        return {
            "keys": torch.tensor(list(self.entries)),
            "sizes": sizes,
            "words": torch.cat(words),
            "p": torch.cat(logp),
        }

    def from_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore the cache from the tensors of `to_tensors`."""
        if tensors:
            sizes = tensors["sizes"].tolist()
            pairs = zip(tensors["words"].split(sizes), tensors["p"].split(sizes), strict=True)
            self.entries = dict(zip(tensors["keys"].tolist(), pairs, strict=True))
            self.free_bytes -= tensors["words"].nbytes + tensors["p"].nbytes


def cache_key(batch: Batch, row: int) -> int:
    """A 64-bit hash of the medium, its augmentation and the caption.

    The probability that two of 100,000 captions have the same hash is 3e-10.
    """
    medium = row // (len(batch.tokens) // len(batch.ids))
    caption = [token for token in batch.tokens[row].tolist() if token != PAD]
    text = repr((batch.ids[medium], batch.augmentations[medium] if batch.augmentations else "full", caption))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def select_media(batch: Batch, media: list[int], rows: list[int]) -> Batch:
    """A batch with the given media and rows of tokens only."""
    if len(media) == len(batch.ids):
        return batch
    ids, augmentations = (tuple(names[m] for m in media) if names else () for names in (batch.ids, batch.augmentations))
    return replace(
        batch,
        ids=ids,
        augmentations=augmentations,
        inputs=batch.inputs.map(lambda x: x[media]),
        tokens=batch.tokens[rows],
        references=(),
    )
