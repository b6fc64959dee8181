"""Profiling: parameters, operations, memory, and the time of each stage from a file to its caption."""

import io
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from limner.core.files import read_json
from limner.core.temporaries import temporary_folder
from limner.core.types import Features, Layout, Pixels
from limner.data.shapes import write_video
from limner.decode.search import Beam, beam
from limner.inference.pipeline import Pipeline, Source, frames_of
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe
from limner.runs.run import Run, load_run
from limner.runs.trained_media import trained_media

STAGES = ("read", "encode", "caption")


@dataclass(frozen=True)
class Profile:
    """Costs of one run.  All numbers but `rate` are for one medium at a time.

    parameters  number of parameters, by "encoder" and "captioner"; for SFT, those of the side that captions
    size        bytes of weights and vocabulary in the run folder, without a pretrained encoder elsewhere
    operations  multiplications plus additions, by "encode" and "caption"
    latency     median milliseconds, by stage: "read" (file to pixels), "encode" (to cells), "caption" (to the caption)
    rate        captions per second in batches of `batch` media, from pixels on, or from cells where there is no encoder
    memory      peak megabytes of a new process that loads the run on the CPU and captions; None: not measured
    cider       CIDEr in the folder's scores.json (not x100), or None where there is none for this recipe
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
        """Milliseconds from a file to its caption."""
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
    encoder: str = "",
) -> Profile:
    """Measure a run on the image or clip `source`.

    Without a source, noise is used: `noise_clip` where the run certainly captions clips (`trained_media`), else
    `noise_jpeg`.  A run on features of an unknown encoder is measured on random cells; it raises ValueError when a
    source is given.  Times are measured in this process with torch's current number of threads; the median of `repeats`
    calls is taken, after one call that does not count.  `memory` False skips the peak memory.  `encoder` is the current
    folder of the run's pretrained encoder, if it was loaded from there.
    """
    if run.encoder is None and source is not None:
        raise ValueError(
            f"{run.folder} captions stored features and has no encoder, so it cannot be measured on an image or clip: "
            "leave out --media to measure it on random cells"
        )
    with _open_medium(run, source) as (medium, description):
        result = _measure(run, medium, decoding or run.recipe.beam, repeats, batch, device)
        peak = peak_memory(run, medium, decoding, encoder) if memory else None
    return replace(result, memory=peak, about={**result.about, "medium": description})


def _measure(run: Run, source: Source, decoding: Beam, repeats: int, batch: int, device: str) -> Profile:
    """Measure everything but the peak memory."""
    latency, operations = {}, {}
    if run.encoder is None:
        features = random_cells(run).map(lambda x: x.to(device))
        caption_batch: Callable[[], Any] = partial(beam, run.model.to(device), _repeat_rows(features, batch), decoding)
    else:
        pipeline = Pipeline(run, device)
        read = partial(_read_pixels, pipeline, source)
        pixels = Pixels(read().frames.to(device))
        features = pipeline.encode(pixels)
        latency["read"] = 1000 * _median_seconds(read, repeats, device)
        latency["encode"] = 1000 * _median_seconds(partial(pipeline.encode, pixels), repeats, device)
        operations["encode"] = count_flops(partial(pipeline.encoder, pixels))
        batch_pixels = Pixels(pixels.frames.expand(batch, *pixels.frames.shape[1:]).contiguous())
        caption_batch = partial(_caption, pipeline, batch_pixels, decoding)
    caption_one = partial(beam, run.model.to(device), features, decoding)
    latency["caption"] = 1000 * _median_seconds(caption_one, repeats, device)
    operations["caption"] = count_flops(caption_one)
    return Profile(
        name=run.folder.resolve().name,
        parameters={
            "encoder": 0 if run.encoder is None else sum(p.numel() for p in run.encoder.parameters()),
            "captioner": sum(p.numel() for p in _used_parameters(run)),
        },
        size=sum(path.stat().st_size for path in run_files(run.folder)),
        operations=operations,
        latency={stage: latency[stage] for stage in STAGES if stage in latency},
        rate=batch / _median_seconds(caption_batch, max(1, repeats // 3), device),
        batch=batch,
        memory=None,
        cider=saved_cider(run),
        about={
            "device": device,
            "threads": torch.get_num_threads(),
            "beam": decoding.size,
            "cells": features.layout.cells,
            "words": int((caption_one().tokens != 0).sum()),
        },
    )


def _used_parameters(run: Run) -> list[nn.Parameter]:
    """The parameters on which captions depend."""
    return run.model.caption_parameters()


def count_flops(work: Callable[[], Any]) -> int:
    """Count the floating-point operations of a call; a multiplication and an addition are two operations.

    Counted are matrix products, convolutions, attention and recurrent layers (on a GPU without those of cuDNN).  For
    example, a linear layer from 3 to 4 channels on 2 rows has 2 * 2 * 3 * 4 = 48 operations.
    """
    with torch.no_grad(), FlopCounter() as counter:
        work()
    return counter.total


class FlopCounter(TorchDispatchMode):
    """Counts operations as torch's FlopCounterMode does, but not per module.

    FlopCounterMode follows modules with autograd hooks, which fail for views of parameters without gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.formulas = {**flop_registry, **{name: shape_wrapper(f) for name, f in _cpu_formulas().items()}}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self.total += 0 if formula is None else formula(*args, **kwargs, out_val=out)
        return out


Shape = Sequence[int]


def _cpu_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas for CPU kernels that torch's own counter does not know: operator -> function of the argument shapes."""

    def linear(x: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:  # the weight is in another order
        return 2 * prod(out_shape) * x[-1]

    def convolution(x: Shape, *others: Any, out_shape: Shape, **__: Any) -> int:
        """Weight (O, I / groups, h, w) and bias, or maps to add, weight and bias.  Zeros that pad a kernel count."""
        weight = others[1] if others[1] is not None and len(others[1]) > 1 else others[0]
        return 2 * prod(weight) * prod(out_shape) // out_shape[1]

    def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
        """Query (B, heads, Q, c), key (B, heads, K, c): scores and weighted sum of values.  Masked cells count too."""
        return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

    def recurrent(x: Shape, input_weight: Shape, state_weight: Shape, *_: Any, **__: Any) -> int:
        """Input (L, B, D) through one layer in one direction with weights (gates * H, D) and (gates * H, H)."""
        return 2 * prod(x[:-1]) * (prod(input_weight) + prod(state_weight))

    formulas = {
        (torch.ops.mkldnn, "_linear_pointwise"): linear,  # used by limner.models.packed_linear
        (torch.ops.mkldnn, "_convolution_pointwise"): convolution,  # used by limner.encoders.folded
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"): attention,
        (torch.ops.aten, "mkldnn_rnn_layer"): recurrent,
    }
    return {getattr(ops, name): formula for (ops, name), formula in formulas.items() if hasattr(ops, name)}


def peak_memory(run: Run, source: Source, decoding: Beam | None = None, encoder: str = "") -> float:
    """Peak megabytes of a new process that loads a run on the CPU and captions one medium.

    `encoder` is as in `profile`.  Raises what the process raises.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_of_process, (str(run.folder), encoder, run.recipe, source, decoding))


def _peak_of_process(folder: str, encoder: str, recipe: Recipe, source: Source, decoding: Beam | None) -> float:
    """Load, caption and return the peak megabytes of this process."""
    torch.set_num_threads(1)
    run = replace(load_run(folder, encoder), recipe=recipe)
    if run.model.sides:
        run.model.select_side(recipe.model.side)  # type: ignore[attr-defined]
    if run.encoder is None:
        beam(run.model, random_cells(run), decoding or recipe.beam)
    else:
        Pipeline(run).caption(source, decoding)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextmanager
def _open_medium(run: Run, source: Source | None) -> Iterator[tuple[Source, str]]:
    """The medium that a run is measured on, and its description.  A temporary file is removed afterwards."""
    if run.encoder is None:
        yield b"", f"{run.recipe.frames} random cells"  # the run reads no file
    elif source is not None:
        yield source, Path(source).name if isinstance(source, str | Path) else type(source).__name__
    elif trained_media(run) == "clips":
        with temporary_folder(gettempdir(), "limner-profile") as folder:
            yield str(noise_clip(folder / "clip.mp4")), f"clip, {run.recipe.frames} frames"
    else:
        yield noise_jpeg(), "640 x 480 JPEG"


def noise_jpeg(width: int = 640, height: int = 480) -> bytes:
    """The bytes of a JPEG of coarse noise, about as large as a photograph of this size."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def noise_clip(path: Path, frames: int = 100, width: int = 320, height: int = 240) -> Path:
    """Write a clip of 25 frames per second in which the camera moves over coarse noise.

    The default is 4 seconds long and has the image size of MSR-VTT.
    """
    size = width + 2 * frames, height + frames
    coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    noise = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    write_video(path, np.stack([noise[k : k + height, 2 * k : 2 * k + width] for k in range(frames)]), 25)
    return path


def random_cells(run: Run) -> Features:
    """Random cells of one medium, one per frame of the recipe, for runs without an encoder."""
    frames, dim = run.recipe.frames, run.info.feature_dim
    grid = torch.randn(1, frames, dim, generator=torch.Generator().manual_seed(0))
    return Features(grid, torch.ones(1, frames, dtype=torch.bool), Layout(frames, 1, 1))


def run_files(folder: Path) -> list[Path]:
    """The files in a run folder that captioning needs."""
    names = ("model.safetensors", "vocabulary.json", "recipe.json", "run.json", "encoder")
    nested = [path for name in names for path in (folder / name).rglob("*")]
    return [path for path in [*(folder / name for name in names), *nested] if path.is_file()]


def saved_cider(run: Run) -> float | None:
    """CIDEr that `limner evaluate` wrote to the folder; None when it is for another side or other frames."""
    saved, path = load_recipe(run.folder / "recipe.json"), run.folder / "scores.json"
    if (saved.model, saved.frames, saved.sampling) != (run.recipe.model, run.recipe.frames, run.recipe.sampling):
        return None
    scores = read_json(path).get("scores", {}) if path.is_file() else {}
    return scores.get("CIDEr")


def _read_pixels(pipeline: Pipeline, source: Source) -> Pixels:
    """Read and preprocess one medium."""
    frames = frames_of(source, pipeline.sampling, side=pipeline.encoder.reading_side())
    return Pixels(pipeline.encoder.preprocess(frames)[None])


def _caption(pipeline: Pipeline, pixels: Pixels, decoding: Beam) -> None:
    """Encode and caption pixels."""
    beam(pipeline.model, pipeline.encode(pixels), decoding)


def _repeat_rows(features: Features, batch: int) -> Features:
    """The same medium `batch` times."""
    return features.map(lambda x: x.expand(batch, *x.shape[1:]).contiguous())


def _median_seconds(work: Callable[[], Any], repeats: int, device: str) -> float:
    """Median seconds of `repeats` calls, after one call that does not count."""
    times: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def with_cider(profiles: Sequence[Profile]) -> list[tuple[Profile, float]]:
    """The profiles that have a CIDEr, with it."""
    return [(p, p.cider) for p in profiles if p.cider is not None]


def pareto(profiles: Sequence[Profile]) -> list[tuple[Profile, float]]:
    """The Pareto front of the profiles that have a CIDEr.

    A profile is on it when no other one is at least as fast and at least as good, and better in one of both.
    """
    candidates = with_cider(profiles)

    def dominated(p: Profile, cider: float) -> bool:
        return any(q.total <= p.total and c >= cider and (q.total, c) != (p.total, cider) for q, c in candidates)

    return [(p, cider) for p, cider in candidates if not dominated(p, cider)]
