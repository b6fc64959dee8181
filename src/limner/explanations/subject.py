"""What is explained: the cells that a captioner reads of a picture or clip, and the frames that a viewer is shown."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from limner.core.types import Features, Medium, Pixels
from limner.data.clips import index_clip, read_segments, sample_timestamps
from limner.data.datasets import read_dataset
from limner.data.frames import FrameSampling
from limner.data.media import is_clip, read_medium
from limner.encoders.encoder import Encoder
from limner.explanations.overlay import WHOLE, Box
from limner.inference.pipeline import Pipeline, frames_of
from limner.runs.inputs import open_inputs
from limner.runs.run import Run

PACE = 15  # frames per second of what is shown
SHORTEST, LONGEST = 1.6, 4.0  # seconds in which a clip is shown once; longer ones are sped up
SIDE = 640  # pixels of the longer side
BLANK = np.full((1, 240, 320, 3), 72, np.uint8)  # where there are features and no pictures


@dataclass(frozen=True)
class Shown:
    """`moments`: the share of the cells' time at which each frame is shown, in [0, 1]; `seconds`: of the file."""

    frames: UInt8[np.ndarray, "F H W 3"]
    moments: Float[np.ndarray, " F"]
    seconds: Float[np.ndarray, " F"] | None = None
    kept_region: Box = WHOLE  # the part of the frames that the encoder saw


@dataclass(frozen=True)
class Subject:
    """One medium; `notes` say what was damaged or is not there."""

    features: Features
    shown: Shown
    notes: tuple[str, ...] = ()


def open_subject(run: Run, source: str, device: str = "cpu", frames: int | None = None) -> Subject:
    """`source`: a picture or clip, or where a run reads stored features the id of a medium.

    Raises ValueError (MediaError) when it cannot be read.
    """
    if run.recipe.features and not Path(source).is_file():
        if frames is not None:
            raise ValueError(f"{source} has stored features, in which the frames are chosen: leave out --frames")
        return _from_store(run, source, device)
    if run.recipe.features and run.encoder is None:
        raise ValueError(f"{run.folder} reads features of an unknown encoder: give the id of some, not {source}")
    return _from_file(Pipeline(run, device, frames), source)


def _from_file(pipeline: Pipeline, source: str) -> Subject:
    notes: list[str] = []
    medium = Medium(Path(source).stem, source)
    pixels = pipeline.encoder.preprocess(frames_of(medium, pipeline.sampling, notes))
    features = pipeline.encode(Pixels(pixels[None].to(pipeline.device)))
    return Subject(features, show(medium, pipeline.encoder, pipeline.sampling), tuple(notes))


@torch.no_grad()
def _from_store(run: Run, id: str, device: str) -> Subject:
    recipe, inputs = run.recipe, open_inputs(run.recipe, run.encoder)
    medium, notes = Medium(id, ""), []
    if recipe.data.media:
        try:
            medium = next((m for m in read_dataset(recipe.data).media if m.id == id), medium)
        except (ValueError, OSError) as error:
            notes.append(f"no picture of {id} ({error})")
    if problems := inputs.split_readable([medium])[1]:
        raise ValueError(f"{problems[0]}; give a file, or an id of the features of {run.folder}")
    features = inputs.reader([(medium, "full")])
    assert isinstance(features, Features)
    count = 1 if features.layout.t == 1 else round(PACE * SHORTEST)
    shown = Shown(BLANK.repeat(count, 0), (np.arange(count) + 0.5) / count)
    if Path(medium.path).is_file():
        # which rows of a feature file were chosen says nothing about times in the clip
        sampling = FrameSampling(recipe.frames) if inputs.store is None else recipe.frame_sampling
        shown = show(medium, run.encoder, sampling)
    return Subject(features.map(lambda x: x.to(device)), shown, tuple(notes))


def show(medium: Medium, encoder: Encoder | None, sampling: FrameSampling) -> Shown:
    """A picture; or a clip, of which the captioner sees the frames of `sampling`, at `PACE` frames per second."""
    if not is_clip(medium.path):
        pictures = read_medium(medium)
        return Shown(pictures, np.array([0.5]), None, _view(encoder, pictures))
    clip = index_clip(medium.path)
    begin, end = (float((x - clip.timestamps[0]) * clip.time_base) for x in clip.interval(medium.start, medium.end))
    count = round(PACE * min(max(end - begin, SHORTEST), LONGEST))
    moments = (np.arange(count) + 0.5) / count
    seconds = begin + moments * (end - begin)
    if sampling.policy not in ("uniform", "random"):
        seen = [clip.to_seconds(it) for it in sample_timestamps(clip, sampling, medium.start, medium.end)]
        moments = np.interp(seconds, seen, (np.arange(len(seen)) + 0.5) / len(seen))
    pictures = next(read_segments(clip, [(medium.start, medium.end)], FrameSampling(count), max_side=SIDE))
    return Shown(pictures, moments, seconds, _view(encoder, pictures))


def _view(encoder: Encoder | None, pictures: UInt8[np.ndarray, "F H W 3"]) -> Box:
    return WHOLE if encoder is None else encoder.kept_region(*pictures.shape[1:3])
