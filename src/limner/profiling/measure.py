"""What a run costs: parameters, operations, memory, and the time of every stage from file to sentence."""

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
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from limner.core.files import read_json
from limner.core.types import Features, Layout, Pixels
from limner.data.shapes import write_video
from limner.decode.search import Beam, beam
from limner.encoders import ClipFrames, Pretrained, ResNet3D, SmallCNN3D
from limner.inference.pipeline import Pipeline, Source, frames_of
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import load_recipe
from limner.runs.run import Run, load_run

STAGES = ("read", "encode", "caption")
CLIPS = ("msrvtt", "msvd", "sftcap")  # data sets that have no pictures


@dataclass(frozen=True)
class Profile:
    """Numbers of one run, for one medium at a time unless it says otherwise.

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
    encoder: str = "",
) -> Profile:
    """Measure a run on a picture or clip; by default one of noise, `clip` for a run that is plainly of clips
    (`of_clips`) and `jpeg` for the others.

    A run on features of an unknown encoder is measured from random cells on; ValueError when it is given a medium.
    Times are those of this process and the threads that torch has in it; `repeats` of each follow one that does not
    count.  `encoder` is where the run's pretrained encoder lies now, if it was loaded from there.
    """
    if run.encoder is None and source is not None:
        raise ValueError(
            f"{run.folder} captions stored features and has no encoder, so that it cannot be measured on a picture or "
            "clip: leave out --media, and it is measured from random cells on"
        )
    with _medium(run, source) as (medium, called):
        found = _measured(run, medium, decoding or run.recipe.beam, repeats, batch, device)
        most = peak_memory(run, medium, decoding, encoder) if memory else None
    return replace(found, memory=most, about={**found.about, "medium": called})


def _measured(run: Run, source: Source, decoding: Beam, repeats: int, batch: int, device: str) -> Profile:
    """All but the memory."""
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
            "captioner": sum(p.numel() for p in _used(run)),
        },
        size=sum(path.stat().st_size for path in weights(run.folder)),
        operations=operations,
        latency={stage: latency[stage] for stage in STAGES if stage in latency},
        rate=batch / _median(several, max(1, repeats // 3), device),
        batch=batch,
        memory=None,
        cider=cider_of(run),
        about={
            "device": device,
            "threads": torch.get_num_threads(),
            "beam": decoding.size,
            "cells": features.layout.cells,
            "words": int((one().tokens != 0).sum()),
        },
    )


def _used(run: Run) -> list[nn.Parameter]:
    return run.model.caption_parameters()


def count(work: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions, attention and recurrent layers (on a GPU without
    cuDNN's recurrent layers), a multiplication and an addition being two."""
    with torch.no_grad(), _Counter() as counter:
        work()
    return counter.total


class _Counter(TorchDispatchMode):
    """What torch's FlopCounterMode does, without following modules: that asks autograd for the history of what goes
    into them, and fails at a view of a parameter, which has none here."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.formulas = {**flop_registry, **{name: shape_wrapper(f) for name, f in _formulas().items()}}

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


def _formulas() -> dict[Any, Callable[..., int]]:
    """By operator, what torch's own counter leaves out: kernels of the CPU.  They are given the shapes of arguments."""

    def linear(x: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:  # the weight is in another order
        return 2 * prod(out_shape) * x[-1]

    def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
        """(B, heads, Q, c) with (B, heads, K, c): the scores, and the sum of the values; what is masked counts too."""
        return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

    def recurrent(x: Shape, of_input: Shape, of_state: Shape, *_: Any, **__: Any) -> int:
        """(L, B, D) through one layer in one direction, (gates * H, D) and (gates * H, H)."""
        return 2 * prod(x[:-1]) * (prod(of_input) + prod(of_state))

    known = {
        (torch.ops.mkldnn, "_linear_pointwise"): linear,  # of limner.models.packed_linear
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"): attention,
        (torch.ops.aten, "mkldnn_rnn_layer"): recurrent,
    }
    return {getattr(of, name): formula for (of, name), formula in known.items() if hasattr(of, name)}


def peak_memory(run: Run, source: Source, decoding: Beam | None = None, encoder: str = "") -> float:
    """Megabytes that a new process needs at most to load a run on the CPU and caption one medium.  `encoder` as in
    `profile`; raises what the process raises."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (str(run.folder), encoder, run.recipe, source, decoding))


def _peak(folder: str, encoder: str, recipe: Recipe, source: Source, decoding: Beam | None) -> float:
    torch.set_num_threads(1)
    run = replace(load_run(folder, encoder), recipe=recipe)
    if run.model.sides:
        run.model.select_side(recipe.model.side)  # type: ignore[attr-defined]
    if run.encoder is None:
        beam(run.model, cells(run), decoding or recipe.beam)
    else:
        Pipeline(run).caption(source, decoding)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextmanager
def _medium(run: Run, source: Source | None) -> Iterator[tuple[Source, str]]:
    """What a run is measured on, while it is there, and what it is called."""
    if run.encoder is None:
        yield b"", f"{run.recipe.frames} random cells"  # nobody reads a file
    elif source is not None:
        yield source, Path(source).name if isinstance(source, str | Path) else type(source).__name__
    elif of_clips(run):
        with TemporaryDirectory() as folder:
            yield str(clip(Path(folder) / "clip.mp4")), f"clip, {run.recipe.frames} frames"
    else:
        yield jpeg(), "640 x 480 JPEG"


def of_clips(run: Run) -> bool:
    """Whether the encoder sees several frames together, or the data set has clips alone.  Others may be of both."""
    together = isinstance(run.encoder, ClipFrames | ResNet3D | SmallCNN3D)
    video = isinstance(run.encoder, Pretrained) and run.encoder.family.reads_clips
    return together or video or run.recipe.data.name in CLIPS


def jpeg(width: int = 640, height: int = 480) -> bytes:
    """A picture file of coarse noise, about as large as a photograph of this size."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def clip(path: Path, frames: int = 100, width: int = 320, height: int = 240) -> Path:
    """Write a clip of 25 frames a second, by default as large as MSR-VTT's and 4 seconds long: a view that moves over
    coarse noise."""
    size = width + 2 * frames, height + frames
    coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    noise = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    write_video(path, np.stack([noise[k : k + height, 2 * k : 2 * k + width] for k in range(frames)]), 25)
    return path


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


def cider_of(run: Run) -> float | None:
    """CIDEr as `limner evaluate` left it in the folder; None when another side or other frames are asked for here."""
    saved, path = load_recipe(run.folder / "recipe.json"), run.folder / "scores.json"
    if (saved.model, saved.frames, saved.sampling) != (run.recipe.model, run.recipe.frames, run.recipe.sampling):
        return None
    scores = read_json(path).get("scores", {}) if path.is_file() else {}
    return scores.get("CIDEr")


def _pixels(pipeline: Pipeline, source: Source) -> Pixels:
    frames = frames_of(source, pipeline.sampling)
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
