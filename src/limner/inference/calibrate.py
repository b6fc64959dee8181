"""`calibrate`: fits how sure a run's captions are on a split that people have captioned.

found = calibrate(load_run("runs/mine"), "val")
found.calibration.save(Path("runs/mine"))
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from limner.core.torch_free import Caption
from limner.core.types import Medium
from limner.data.datasets import read_dataset
from limner.data.media import frames_of
from limner.decode.confidence import (
    Calibration,
    Reliability,
    caption_features,
    comparable,
    cross_validated,
    fit_familiarity,
    fit_logistic,
    reliability,
)
from limner.decode.options import Decoding
from limner.encoders.encoder import group_by_shape
from limner.inference.pipeline import Pipeline
from limner.metrics.cider import cider
from limner.metrics.references import References
from limner.runs.run import Run
from limner.text.tokens import scoring_tokenizer

BATCH = 32  # images that are captioned together; of clips fewer, with as many frames
FOLDS = 5
MIN_MEDIA = 50  # fewer captions say too little about three weights and a percentile


@dataclass(frozen=True)
class Calibrated:
    """The result of `calibrate`."""

    calibration: Calibration
    held_out: Reliability  # of cross-validated probabilities
    probability: Float[np.ndarray, " C"]  # cross-validated, of every caption ...
    right: Bool[np.ndarray, " C"]  # ... and whether its CIDEr exceeded the bar
    problems: tuple[str, ...]  # a line for each medium that was left out


def calibrate(
    run: Run,
    split: str = "val",
    bar: float = 0.5,
    decoding: Decoding | None = None,
    limit: int | None = None,
    training: int = 2000,
    device: str = "cpu",
) -> Calibrated:
    """Caption the media of `split`, and fit the probability that a caption's CIDEr exceeds `bar`.

    `decoding` None is the recipe's; confidences will be given for this search only.  `limit` takes the first media
    only; `training` is the number of training media, evenly over the split, whose mean and variance say what is
    familiar.  CIDEr has the document frequencies of the split's references, as in an evaluation.
    Raises ValueError when the run has no encoder or its data cannot be read, for fewer than 50 captions, and for a bar
    that all captions exceed, or none.
    """
    pipeline = Pipeline(run, device, clip="mosaic" if run.info.media == "clips" else None, calibrated=False)
    dataset = read_dataset(run.recipe.data)
    known = dataset.split("train")
    selected = [medium for medium in dataset.split(split) if medium.references][:limit]
    options = (decoding or run.recipe.decoding).bind(run.vocabulary)
    problems: list[str] = []
    captions: dict[str, Caption] = {}
    pooled: dict[str, np.ndarray] = {}
    frames: set[int] = set()
    for media, pixels in _batches(pipeline, selected, problems):
        found, mean = pipeline.captions_and_pooled([(each,) for each in pixels], options)
        captions |= {medium.id: caption for medium, caption in zip(media, found, strict=True)}
        pooled |= {medium.id: row for medium, row in zip(media, mean, strict=True)}
        frames.add(len(pixels[0]))
    if len(captions) < MIN_MEDIA or len(frames) > 1:
        reason = "images and clips together" if len(frames) > 1 else f"{len(captions)} captions"
        raise ValueError(
            f"the split '{split}' of {run.folder} gives {reason}: a calibration needs at least {MIN_MEDIA} captions of "
            f"media of one kind{'; the first problem: ' + problems[0] if problems else ''}"
        )
    kept = [medium for medium in selected if medium.id in captions]
    references = References({m.id: m.references for m in kept}, scoring_tokenizer(run.vocabulary.tokenizer))
    scores = cider(references.candidates({id: captions[id].text for id in captions}), references).segments
    validation = np.stack([pooled[medium.id] for medium in kept])
    step = max(1, len(known) // training)
    trained = [pipeline.pooled(pixels) for _, pixels in _batches(pipeline, known[::step][:training], problems)]
    familiarity = fit_familiarity(np.concatenate(trained) if trained else validation, validation)
    features = caption_features([captions[m.id] for m in kept], familiarity.distance(validation))
    right = scores > bar
    probability = cross_validated(features, right, FOLDS)
    held_out = reliability(probability, right)
    measured = {
        "split": split,
        "captions": len(right),
        "share above the bar": float(right.mean()),
        "training media": sum(map(len, trained)),
        f"held out, {FOLDS} folds": held_out._asdict(),
    }
    count = frames.pop()
    calibration = Calibration(
        bar, comparable(options), "images" if count == 1 else "clips", count, fit_logistic(features, right),
        familiarity, measured,
    )  # fmt: skip
    return Calibrated(calibration, held_out, probability, right, tuple(problems))


def _batches(
    pipeline: Pipeline, media: Sequence[Medium], problems: list[str]
) -> Iterator[tuple[list[Medium], list[torch.Tensor]]]:
    """Media with their preprocessed frames (T, 3, h, w), those of equal shapes together.

    A line is added to `problems` for each medium that cannot be read.
    """
    size = BATCH if pipeline.clip != "mosaic" else max(1, BATCH // pipeline.frames)
    for start in range(0, len(media), size):
        chunk, pixels = [], []
        for medium in media[start : start + size]:
            try:
                frames = frames_of(medium, pipeline.sampling, [], pipeline.encoder.reading_side())
                pixels.append(pipeline.encoder.preprocess(frames))
                chunk.append(medium)
            except (ValueError, OSError) as error:
                problems.append(str(error))
        for group in group_by_shape(pixels):
            yield [chunk[k] for k in group], [pixels[k] for k in group]
