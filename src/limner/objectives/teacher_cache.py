"""What a teacher has said, remembered: its likeliest words along every caption that a student has been shown.

At temperature 2 a teacher of some thousand words gives most of its probability to unlikely ones: the 32 likeliest taken
for all there are would be another lesson.  So what all others have together is kept as well.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.types import PAD, Batch

ROOM = 2 << 30  # bytes; what comes when they are full is asked for anew each time


class TeacherCache:
    """The `count` likeliest words at every word of (medium, view, caption), their log-probabilities at `temperature` as
    float16, and that of all others together.

    TeacherCache are the same whether they were asked for or remembered.  They travel with a checkpoint: a teacher's
    scores depend in their last bits on the batch it was asked in.
    """

    def __init__(self, count: int, temperature: float, room: int = ROOM):
        self.count, self.temperature, self.room = count, temperature, room
        self.known: dict[int, tuple[Tensor, Tensor]] = {}
        self.asked = 0  # captions

    def of(
        self, batch: Batch, ask: Callable[[Batch], Float[Tensor, "r L V"]]
    ) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k+1"]]:
        """k words for each of the batch's M words (EOS included), row by row, and log-probabilities, that of all others
        last (-inf where there are none).

        `ask` has the teacher's logits of some of the batch's media.
        """
        captions = len(batch.tokens) // len(batch.ids)
        keys = [key(batch, row) for row in range(len(batch.tokens))]
        media = sorted({row // captions for row, name in enumerate(keys) if name not in self.known})
        fresh: dict[int, tuple[Tensor, Tensor]] = {}
        if media:
            rows = list(chain(*(range(m * captions, (m + 1) * captions) for m in media)))
            part = pick(batch, media, rows)
            fresh = dict(zip([keys[row] for row in rows], self.likeliest(ask(part), part.tokens), strict=True))
            self.asked += len(rows)
            for name, lesson in fresh.items():
                if name not in self.known and (size := sum(x.nbytes for x in lesson)) <= self.room:
                    self.known[name] = lesson
                    self.room -= size
        words, logp = zip(*(self.known.get(name) or fresh[name] for name in keys), strict=True)
        # float32 first: autocast on a CPU refuses to join float16
        return torch.cat(words).to(batch.tokens), torch.cat([x.float() for x in logp]).to(batch.tokens.device)

    def likeliest(self, logits: Float[Tensor, "r L V"], tokens: Int[Tensor, "r T"]) -> list[tuple[Tensor, Tensor]]:
        """A lesson for each caption."""
        keep = tokens[:, 1:] != PAD
        scores = (logits[keep].float() / self.temperature).log_softmax(-1)
        logp, words = scores.topk(min(self.count, scores.shape[1]))
        logp = torch.cat([logp, scores.scatter(1, words, -torch.inf).logsumexp(-1, keepdim=True)], 1)
        small = torch.int16 if scores.shape[1] <= 1 << 15 else torch.int32
        sizes = keep.sum(1).tolist()
        pairs = zip(words.cpu().to(small).split(sizes), logp.cpu().half().split(sizes), strict=True)
        return [(w.clone(), p.clone()) for w, p in pairs]

    def pack(self) -> dict[str, Tensor]:
        """As tensors, for a checkpoint; none when nothing is known."""
        if not self.known:
            return {}
        words, logp = zip(*self.known.values(), strict=True)
        sizes = torch.tensor([len(x) for x in words])
        return {"keys": torch.tensor(list(self.known)), "sizes": sizes, "words": torch.cat(words), "p": torch.cat(logp)}

    def unpack(self, tensors: dict[str, Tensor]) -> None:
        """The inverse."""
        if tensors:
            sizes = tensors["sizes"].tolist()
            pairs = zip(tensors["words"].split(sizes), tensors["p"].split(sizes), strict=True)
            self.known = dict(zip(tensors["keys"].tolist(), pairs, strict=True))
            self.room -= tensors["words"].nbytes + tensors["p"].nbytes


def key(batch: Batch, row: int) -> int:
    """64 bits of the medium, its view and a caption: 100,000 lessons have two alike with a chance of 3e-10."""
    medium = row // (len(batch.tokens) // len(batch.ids))
    caption = [token for token in batch.tokens[row].tolist() if token != PAD]
    text = repr((batch.ids[medium], batch.augmentations[medium] if batch.augmentations else "full", caption))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def pick(batch: Batch, media: list[int], rows: list[int]) -> Batch:
    """Some of a batch's media, and their rows of tokens."""
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
