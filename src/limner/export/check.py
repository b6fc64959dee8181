"""Is what was exported the model it was made of?  Both caption the same media."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from limner.core.torch_free import BOS, Failure, Source
from limner.core.types import Pixels
from limner.data.media import MEDIA_SUFFIXES, frames_of
from limner.data.shapes import make_clip, make_image
from limner.decode.options import Beam
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline

DRAWN = 24  # pictures, or half as many clips, when none are given


@dataclass(frozen=True)
class Comparison:
    """Captions of an engine against PyTorch's."""

    media: int
    identical: int
    examples: tuple[tuple[str, str], ...]  # (PyTorch's, the engine's) where they differ, the first three
    off: float  # largest difference of the log-probability of captions that are the same
    logprob: float  # mean of PyTorch's captions
    regret: float  # how much lower it is for the engine's captions; PyTorch computes both
    unread: tuple[str, ...]  # reasons; these media are not counted

    @property
    def share(self) -> float:
        return self.identical / self.media

    @property
    def loss(self) -> float:
        """`regret` as a share of what there is to lose."""
        return self.regret / max(1e-9, -self.logprob)

    def facts(self) -> dict[str, Any]:
        return {
            "media": self.media,
            "identical": self.identical,
            "largest difference of log-probabilities": self.off,
            "mean log-probability": [self.logprob, self.logprob - self.regret],
        }


def media_of(folder: str | Path, limit: int) -> list[Source]:
    """The first pictures and clips below a folder, in name order.  Raises ValueError when there are none."""
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder} is no folder of pictures or clips")
    found = sorted(str(path) for path in root.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"{folder} holds no picture and no clip")
    return [*found[:limit]]


def drawn(pictures: bool, clips: bool) -> list[Source]:
    """Pictures and clips of the micro-world, on top of it noise, so that no two are alike."""
    rng = np.random.default_rng(0)
    made = [make_image(7, i, 128)[2] for i in range(DRAWN)] if pictures else []
    made += [make_clip(7, i, 64)[2] for i in range(DRAWN // 2)] if clips else []
    return [np.clip(it + rng.normal(0, 25, it.shape), 0, 255).astype(np.uint8) for it in made]


def compare(pipeline: Pipeline, engine: OnnxPipeline, media: Sequence[Source], decoding: Beam) -> Comparison:
    """Raises ValueError when none of the media can be read."""
    off: list[float] = []
    logprob: list[float] = []
    regret: list[float] = []
    examples: list[tuple[str, str]] = []
    unread: list[str] = []
    both = zip(pipeline.captions(media, decoding), engine.captions(media, decoding), strict=True)
    for (source, theirs), (_, mine) in both:
        if isinstance(theirs, Failure) or isinstance(mine, Failure):
            unread.append(theirs.reason if isinstance(theirs, Failure) else mine.reason)  # type: ignore[union-attr]
            continue
        logprob.append(theirs.logprob)
        if theirs.text == mine.text and theirs.finished == mine.finished:
            off.append(abs(theirs.logprob - mine.logprob))
        else:
            examples.append((theirs.text, mine.text))
            tokens = engine.search(engine.pixels(source, []), decoding)[0].tokens
            regret.append(theirs.logprob - likelihood(pipeline, source, tokens))
    if not logprob:
        raise ValueError(f"none of {len(media)} media to check with can be read: {'; '.join(unread[:3])}")
    count = len(logprob)
    return Comparison(
        count, len(off), tuple(examples[:3]), max(off, default=0.0), sum(logprob) / count, sum(regret) / count,
        tuple(unread),
    )  # fmt: skip


@torch.no_grad()
def likelihood(pipeline: Pipeline, source: Source, tokens: Int[np.ndarray, " L"]) -> float:
    """PyTorch's log-probability of a caption, its end included, of a picture or clip."""
    frames = frames_of(source, pipeline.sampling, [])
    features = pipeline.encode(Pixels(pipeline.encoder.preprocess(frames)[None]))
    said = torch.from_numpy(tokens)
    given = torch.cat([torch.tensor([BOS]), said[:-1]])
    logits = pipeline.model.forward_teacher_forced(pipeline.model.encode(features), given[None]).logits[0]
    return float(logits.float().log_softmax(-1).gather(1, said[:, None]).sum())
