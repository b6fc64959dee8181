"""What a run costs: parameters, operations, memory, and the time of every stage from file to sentence."""

import io
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from limner.decode.search import Beam, beam
from limner.files import read_json
from limner.pipeline import Pipeline, Source, frames_of
from limner.run import Run, load_run
from limner.types import Features, Layout, Pixels

STAGES = ("read", "encode", "caption")
MEGA = 1e6


@dataclass(frozen=True)
class Profile:
    """Numbers of one run, for one medium at a time unless it says otherwise.

    parameters  how many, by "encoder" and "captioner"
    size        bytes of the run folder's weights and words, and of a pretrained encoder that lies elsewhere 0
    operations  multiplications and additions, by "encode" and "caption"
    latency     median milliseconds, by STAGES: from the file to the encoder's pixels, to cells, to the sentence
    rate        captions per second, `batch` media at a time, from pixels on (from cells on where there is no encoder)
    memory      megabytes: the most that a new process needs to load the run and caption one medium
    cider       of the folder's scores.json, if it has one
    """

    name: str
    parameters: dict[str, int]
    size: int
    operations: dict[str, int]
    latency: dict[str, float]
    rate: float
    batch: int
    memory: float | None
    cider: float | None
    about: dict[str, Any] = field(default_factory=dict)  # device, threads, decoding, medium

    @property
    def total(self) -> float:
        """Milliseconds from a file to its sentence."""
        return sum(self.latency.values())


def profile(
    run: Run,
    source: Source | None = None,
    decoding: Beam | None = None,
    *,
    repeats: int = 10,
    batch: int = 16,
    memory: bool = True,
    device: str = "cpu",
) -> Profile:
    """Measure a run on a picture or clip; by default a 640 x 480 JPEG in memory, whose content is noise.

    A run on features of an unknown encoder is measured from random cells on.  Times are those of this process and the
    threads that torch has in it; `repeats` of each follow one that does not count.
    """
    decoding = decoding or run.recipe.decoding
    source = jpeg() if source is None else source
    latency, operations = {}, {}
    if run.encoder is None:
        features = cells(run).map(lambda x: x.to(device))
        several: Callable[[], Any] = partial(beam, run.model.to(device), _times(features, batch), decoding)
    else:
        pipeline = Pipeline(run, device)
        read = partial(_pixels, pipeline, source)
        pixels = Pixels(read().frames.to(device))
        features = pipeline.encode(pixels)
        latency["read"] = 1000 * _median(read, repeats, device)
        latency["encode"] = 1000 * _median(partial(pipeline.encode, pixels), repeats, device)
        operations["encode"] = count(partial(pipeline.encode, pixels))
        together = Pixels(pixels.frames.expand(batch, *pixels.frames.shape[1:]).contiguous())
        several = partial(_caption, pipeline, together, decoding)
    one = partial(beam, run.model.to(device), features, decoding)
    latency["caption"] = 1000 * _median(one, repeats, device)
    operations["caption"] = count(one)
    return Profile(
        name=run.folder.resolve().name,
        parameters={
            "encoder": 0 if run.encoder is None else sum(p.numel() for p in run.encoder.parameters()),
            "captioner": sum(p.numel() for p in run.model.parameters()),
        },
        size=sum(path.stat().st_size for path in weights(run.folder)),
        operations=operations,
        latency={stage: latency[stage] for stage in STAGES if stage in latency},
        rate=batch / _median(several, max(1, repeats // 3), device),
        batch=batch,
        memory=peak_memory(run.folder, getattr(run.recipe.encoder, "source", "")) if memory else None,
        cider=cider_of(run.folder),
        about={
            "device": device,
            "threads": torch.get_num_threads(),
            "beam": decoding.size,
            "cells": features.layout.cells,
            "words": int((one().tokens != 0).sum()),
        },
    )


def count(work: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products and convolutions, a multiplication and an addition being two.

    oneDNN's recurrent layers, which the counter does not see, are taken apart for it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of GPUs of another kind when oneDNN is switched off
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            work()
    return int(counter.get_total_flops())


def peak_memory(folder: Path, encoder: str = "") -> float | None:
    """Megabytes that a new process needs at most to load a run and caption one medium; None where it cannot be told."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        try:
            return pool.apply(_peak, (str(folder), encoder))
        except (ValueError, OSError, RuntimeError):
            return None


def _peak(folder: str, encoder: str) -> float:
    torch.set_num_threads(1)
    run = load_run(folder, encoder)
    if run.encoder is None:
        beam(run.model, cells(run), run.recipe.decoding)
    else:
        Pipeline(run).caption(jpeg())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def jpeg(width: int = 640, height: int = 480) -> bytes:
    """A picture file of coarse noise, about as large as a photograph of this size."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def cells(run: Run) -> Features:
    """Random cells of one medium, as many as the recipe's frames: for runs without an encoder."""
    frames, dim = run.recipe.frames, run.info.feature_dim
    grid = torch.randn(1, frames, dim, generator=torch.Generator().manual_seed(0))
    return Features(grid, torch.ones(1, frames, dtype=torch.bool), Layout(frames, 1, 1))


def weights(folder: Path) -> list[Path]:
    """The files of a run that captioning needs."""
    names = ("model.safetensors", "vocabulary.json", "recipe.json", "run.json", "encoder")
    found = [path for name in names for path in (folder / name).rglob("*")]
    return [path for path in [*(folder / name for name in names), *found] if path.is_file()]


def cider_of(folder: Path) -> float | None:
    """CIDEr as `limner evaluate` left it in the folder."""
    path = folder / "scores.json"
    scores = read_json(path).get("scores", {}) if path.is_file() else {}
    return scores.get("CIDEr")


def _pixels(pipeline: Pipeline, source: Source) -> Pixels:
    frames = frames_of(source, pipeline.frames, pipeline.run.recipe.sampling)
    return Pixels(pipeline.encoder.preprocess(frames)[None])


def _caption(pipeline: Pipeline, pixels: Pixels, decoding: Beam) -> None:
    beam(pipeline.model, pipeline.encode(pixels), decoding)


def _times(features: Features, batch: int) -> Features:
    return features.map(lambda x: x.expand(batch, *x.shape[1:]).contiguous())


def _median(work: Callable[[], Any], repeats: int, device: str) -> float:
    """Seconds."""
    times: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def scored(profiles: Sequence[Profile]) -> list[tuple[Profile, float]]:
    """Those with a score, and it."""
    return [(p, p.cider) for p in profiles if p.cider is not None]


def pareto(profiles: Sequence[Profile]) -> list[tuple[Profile, float]]:
    """Of those with a score the ones that no other beats: no slower and no worse, and better in one of both."""
    known = scored(profiles)

    def beaten(p: Profile, cider: float) -> bool:
        return any(q.total <= p.total and c >= cider and (q.total, c) != (p.total, cider) for q, c in known)

    return [(p, cider) for p, cider in known if not beaten(p, cider)]
