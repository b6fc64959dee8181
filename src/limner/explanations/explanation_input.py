"""Input of an explanation: the cells that a captioner reads, and the frames on which the maps are displayed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from limner.core.types import Features, Medium, Pixels
from limner.data.archives import local_file, medium_exists
from limner.data.clips import index_clip, read_segments, sample_timestamps
from limner.data.datasets import data_parts, read_dataset
from limner.data.frame_folders import frame_files, is_frame_folder, sampled_frames
from limner.data.frames import FrameSampling
from limner.data.media import is_clip, read_medium
from limner.encoders.encoder import Encoder
from limner.explanations.overlay import WHOLE_IMAGE, Box
from limner.inference.onnx.pixels import Preprocess
from limner.inference.pipeline import Pipeline
from limner.runs.inputs import open_inputs
from limner.runs.run import Run

DISPLAY_FPS = 15  # frames per second of a film
MIN_SECONDS, MAX_SECONDS = 1.6, 4.0  # duration of one pass through a clip; longer clips are sped up
MAX_SIDE = 640  # pixels of the longer side of a frame
PLACEHOLDER = np.full((1, 240, 320, 3), 72, np.uint8)  # grey frame, displayed where features have no image


@dataclass(frozen=True)
class DisplayFrames:
    """The frames on which maps are displayed.

    `moments` is the time of each frame as a fraction of the time that the cells cover, in [0, 1].  `seconds` is its
    time in the file, or None where that is unknown.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    moments: Float[np.ndarray, " F"]
    seconds: Float[np.ndarray, " F"] | None = None
    kept_region: Box = WHOLE_IMAGE  # the part of the frames that the encoder saw, relative xyxy


@dataclass(frozen=True)
class ExplanationInput:
    """One medium that is explained.  `notes` name what is damaged or missing."""

    features: Features
    display: DisplayFrames
    notes: tuple[str, ...] = ()


def load_explanation_input(run: Run, source: str, device: str = "cpu", frames: int | None = None) -> ExplanationInput:
    """Read an image or clip, or the stored features of the medium with the id `source`.

    `frames` overrides the number of frames of the recipe.  Raises ValueError (MediaError) when the medium cannot be
    read.
    """
    if run.recipe.features and not medium_exists(source):
        if frames is not None:
            raise ValueError(f"the frames of {source} were chosen when its features were stored: leave out --frames")
        return _from_store(run, source, device)
    if run.recipe.features and run.encoder is None:
        raise ValueError(
            f"{run.folder} reads features of an unknown encoder: give the id of stored features instead of {source}"
        )
    return _from_file(Pipeline(run, device, frames), source)


def _from_file(pipeline: Pipeline, source: str) -> ExplanationInput:
    """Encode an image or clip."""
    notes: list[str] = []
    medium = Medium(Path(source).stem, source)
    pixels = pipeline.read(medium, notes)[0]
    features = pipeline.encode(Pixels(pixels[None].to(pipeline.device)))
    return ExplanationInput(features, display_frames(medium, pipeline.encoder, pipeline.sampling), tuple(notes))


@torch.no_grad()
def _from_store(run: Run, id: str, device: str) -> ExplanationInput:
    """Read stored features, and the frames of their medium where the recipe's data has it."""
    recipe, inputs = run.recipe, open_inputs(run.recipe, run.encoder)
    medium, notes = Medium(id, ""), []
    if any(part.media for part in data_parts(recipe.data).values()):
        try:
            medium = next((m for m in read_dataset(recipe.data).media if m.id == id), medium)
        except (ValueError, OSError) as error:
            notes.append(f"no image of {id} ({error})")
    if problems := inputs.split_readable([medium])[1]:
        raise ValueError(f"{problems[0]}; give a file, or an id of the features of {run.folder}")
    features = inputs.reader([(medium, "full")])
    assert isinstance(features, Features)
    count = 1 if features.layout.t == 1 else round(DISPLAY_FPS * MIN_SECONDS)
    display = DisplayFrames(PLACEHOLDER.repeat(count, 0), (np.arange(count) + 0.5) / count)
    if medium_exists(medium.path):
        sampling = FrameSampling(recipe.frames) if inputs.store is None else recipe.frame_sampling
        display = display_frames(medium, run.encoder, sampling)
    return ExplanationInput(features.map(lambda x: x.to(device)), display, tuple(notes))


def display_frames(medium: Medium, encoder: Encoder | Preprocess | None, sampling: FrameSampling) -> DisplayFrames:
    """Read the frames of an image or clip for display; `encoder` tells which part of them the captioner saw.

    A clip is read at `DISPLAY_FPS` frames per second of the film.  The captioner saw the frames of
    `sampling`; this determines the moments.
    """
    if not is_clip(medium.path):
        images = read_medium(medium)
        return DisplayFrames(images, np.array([0.5]), None, _kept_region(encoder, images))
    if is_frame_folder(medium.path):
        return _display_of_frames(medium, encoder, sampling)
    with local_file(medium.path) as path:
        clip = index_clip(path)
        begin, end = (clip.to_seconds(edge) for edge in clip.interval(medium.start, medium.end))
        count = round(DISPLAY_FPS * min(max(end - begin, MIN_SECONDS), MAX_SECONDS))
        moments = (np.arange(count) + 0.5) / count
        seconds = begin + moments * (end - begin)
        if sampling.policy not in ("uniform", "random"):
            sampled = [clip.to_seconds(it) for it in sample_timestamps(clip, sampling, medium.start, medium.end)]
            moments = np.interp(seconds, sampled, (np.arange(len(sampled)) + 0.5) / len(sampled))
        images = next(read_segments(clip, [(medium.start, medium.end)], FrameSampling(count), max_side=MAX_SIDE))
    return DisplayFrames(images, moments, seconds, _kept_region(encoder, images))


def _display_of_frames(medium: Medium, encoder: Encoder | Preprocess | None, sampling: FrameSampling) -> DisplayFrames:
    """Read the frames of a folder for display; their times are not known."""
    total = len(frame_files(medium.path))
    count = round(DISPLAY_FPS * MIN_SECONDS)
    images = read_medium(medium, FrameSampling(count))
    moments = (np.arange(count) + 0.5) / count
    if sampling.policy not in ("uniform", "random"):
        sampled = sampled_frames(total, sampling)
        moments = np.interp(moments * total, sampled, (np.arange(len(sampled)) + 0.5) / len(sampled))
    return DisplayFrames(images, moments, None, _kept_region(encoder, images))


def _kept_region(encoder: Encoder | Preprocess | None, images: UInt8[np.ndarray, "F H W 3"]) -> Box:
    """The part of the images that the encoder saw; all of it where the encoder is unknown."""
    return WHOLE_IMAGE if encoder is None else encoder.kept_region(*images.shape[1:3])
