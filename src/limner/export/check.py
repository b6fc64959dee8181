"""Check of an exported model: PyTorch and the ONNX engine caption the same media, and the captions are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from limner.core.torch_free import BOS, Failure, Source
from limner.core.types import Pixels
from limner.data.media import frames_of
from limner.data.media_folder import media_below
from limner.data.shapes import make_clip, make_image
from limner.decode.options import Beam
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline

MICROWORLD_IMAGES = 24  # generated images where no media are given; half as many clips


@dataclass(frozen=True)
class ExportCheck:
    """Comparison of the ONNX engine's captions with PyTorch's.

    Log-probabilities are natural logs of whole captions, EOS included.
    """

    media: int  # number of media that were captioned
    identical: int  # number of captions that are the same
    examples: tuple[tuple[str, str], ...]  # (PyTorch's, the engine's): the first three that differ
    max_logprob_difference: float  # between the engines, over identical captions
    mean_logprob: float  # of PyTorch's captions
    mean_logprob_loss: float  # how much lower it is for the engine's captions, both computed by PyTorch
    failures: tuple[str, ...]  # reasons why media could not be read; these are not in `media`

    @property
    def identical_share(self) -> float:
        """Share of captions that are the same, in [0, 1]."""
        return self.identical / self.media

    @property
    def relative_loss(self) -> float:
        """`mean_logprob_loss` relative to the log-probability of PyTorch's captions: 0.05 means 5 % worse."""
        return self.mean_logprob_loss / max(1e-9, -self.mean_logprob)

    def to_json(self) -> dict[str, Any]:
        """The numbers that model.json records."""
        return {
            "media": self.media,
            "identical": self.identical,
            "largest difference of log-probabilities": self.max_logprob_difference,
            "mean log-probability": [self.mean_logprob, self.mean_logprob - self.mean_logprob_loss],
        }


def media_in_folder(folder: str | Path, limit: int) -> list[Source]:
    """The first `limit` images and clips in a folder and its subfolders, in the order of their names.

    Raises ValueError when there are none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder} is not a folder: give a folder of images or clips")
    paths = [str(path) for path in media_below(root).media if path.is_file()]
    if not paths:
        raise ValueError(f"{folder} holds no image and no clip")
    return [*paths[:limit]]


def microworld_media(images: bool, clips: bool) -> list[Source]:
    """Generated images and clips of the micro-world as uint8 RGB arrays, with noise so that no two are alike."""
    rng = np.random.default_rng(0)
    media = [make_image(7, i, 128)[2] for i in range(MICROWORLD_IMAGES)] if images else []
    media += [make_clip(7, i, 64)[2] for i in range(MICROWORLD_IMAGES // 2)] if clips else []
    return [np.clip(frames + rng.normal(0, 25, frames.shape), 0, 255).astype(np.uint8) for frames in media]


def check_export(pipeline: Pipeline, engine: OnnxPipeline, media: Sequence[Source], decoding: Beam) -> ExportCheck:
    """Caption all media with both engines and compare the captions.

    Raises ValueError when none of the media can be read.
    """
    differences: list[float] = []
    logprobs: list[float] = []
    losses: list[float] = []
    examples: list[tuple[str, str]] = []
    failures: list[str] = []
    pairs = zip(pipeline.captions(media, decoding), engine.captions(media, decoding), strict=True)
    for (source, expected), (_, actual) in pairs:
        if isinstance(expected, Failure) or isinstance(actual, Failure):
            failed = expected if isinstance(expected, Failure) else actual
            failures.append(failed.reason)  # type: ignore[union-attr]
            continue
        logprobs.append(expected.logprob)
        if expected.text == actual.text and expected.finished == actual.finished:
            differences.append(abs(expected.logprob - actual.logprob))
        else:
            examples.append((expected.text, actual.text))
            tokens = engine.search([engine.pixels(source, [])], decoding)[0][0].tokens
            losses.append(expected.logprob - caption_logprob(pipeline, source, tokens))
    if not logprobs:
        raise ValueError(f"none of {len(media)} media to check with can be read: {'; '.join(failures[:3])}")
    count = len(logprobs)
    return ExportCheck(
        media=count,
        identical=len(differences),
        examples=tuple(examples[:3]),
        max_logprob_difference=max(differences, default=0.0),
        mean_logprob=sum(logprobs) / count,
        mean_logprob_loss=sum(losses) / count,
        failures=tuple(failures),
    )


@torch.no_grad()
def caption_logprob(pipeline: Pipeline, source: Source, tokens: Int[np.ndarray, " L"]) -> float:
    """Log-probability that PyTorch gives to a caption of an image or clip (natural log, EOS included)."""
    frames = frames_of(source, pipeline.sampling, [], pipeline.encoder.reading_side())
    features = pipeline.encode(Pixels(pipeline.encoder.preprocess(frames)[None]))
    targets = torch.from_numpy(tokens)
    inputs = torch.cat([torch.tensor([BOS]), targets[:-1]])
    logits = pipeline.model.forward_teacher_forced(pipeline.model.encode(features), inputs[None]).logits[0]
    return float(logits.float().log_softmax(-1).gather(1, targets[:, None]).sum())
