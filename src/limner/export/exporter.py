"""Export of a run to a folder of ONNX files, after a check that both generate the same captions.

export_onnx(load_run("runs/x"), Path("x.onnx"))
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from limner.core.files import atomic_folder
from limner.core.torch_free import Source
from limner.decode.confidence import load_calibration
from limner.export.check import ExportCheck, check_export, microworld_media
from limner.export.graphs import Graphs, build_graphs, write_graphs
from limner.export.int8 import quantise_step, shrink_weights
from limner.export.preprocessing import PerChannel, split_preprocessing
from limner.inference.onnx.model import EXPORT_MANIFEST, ExportManifest, OnnxModel, file_hashes
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.onnx.pixels import Preprocess
from limner.inference.pipeline import Pipeline
from limner.runs.run import Run
from limner.runs.trained_media import trained_media

MIN_IDENTICAL_SHARE = 0.99  # of the float32 captions; below it nothing is written
# int8 captions may differ, because rounding changes near ties, but their log-probability may be at most this much worse
MAX_INT8_LOSS = 0.05
TOLERANCE = 1e-3  # largest difference between the graphs and PyTorch, relative to the largest number


@dataclass(frozen=True)
class ExportResult:
    """What `export_onnx` wrote, and the results of its checks."""

    folder: Path
    float_check: ExportCheck
    int8_check: ExportCheck | None
    file_bytes: dict[str, int]  # size of every file
    float_bytes: dict[str, int]  # size of every file before its weights became int8
    images: bool  # True: the model captions images
    clips: bool  # True: the model captions clips


def export_onnx(run: Run, out: Path, int8: bool = False, media: Sequence[Source] = ()) -> ExportResult:
    """Export a run to the folder `out`, with float32 or int8 weights.

    The captions of `media` are compared with PyTorch's; without `media`, images (or clips) of the micro-world are
    used.  Raises ValueError, and writes nothing, when the model cannot be traced, when fewer than 99 % of the float32
    captions are PyTorch's, when the int8 captions are much less probable, or when the run has no encoder.  Raises
    FileExistsError when `out` exists and is not an exported model, LockedError when another process is writing it.
    An exported model at `out` is replaced in one step when the new one is complete.
    """
    if run.encoder is None:
        raise ValueError(f"{run.folder} has no encoder and could not caption a file; give one with --encoder")
    if out.exists() and not (out / EXPORT_MANIFEST).is_file():
        raise FileExistsError(f"{out} exists and is not an exported model: choose another name")
    pipeline = Pipeline(run)
    resize, scale, shift = split_preprocessing(run.encoder)
    with atomic_folder(out) as new:
        manifest = _trace(run, resize, scale, shift, new)
        manifest.save(new)
        media = media or microworld_media(manifest.images, manifest.clips and not manifest.images)
        float_check = check_export(pipeline, OnnxPipeline.load(new), media, manifest.decoding)
        _require(float_check, MIN_IDENTICAL_SHARE, "the exported graphs")
        float_bytes = {name: facts["bytes"] for name, facts in manifest.files.items()}
        int8_check = None
        if int8:
            _quantise(new)
            manifest = replace(manifest, files=file_hashes(new), int8=True)
            manifest.save(new)
            int8_check = check_export(pipeline, OnnxPipeline.load(new), media, manifest.decoding)
            _require(int8_check, 0.0, "the int8 graphs")
        checks = {"float": float_check.to_json(), **({"int8": int8_check.to_json()} if int8_check else {})}
        manifest = replace(manifest, source={**manifest.source, "captions compared with PyTorch": checks})
        manifest.save(new)
    file_bytes = {name: facts["bytes"] for name, facts in manifest.files.items()}
    return ExportResult(out, float_check, int8_check, file_bytes, float_bytes, manifest.images, manifest.clips)


def _trace(run: Run, resize: Preprocess, scale: PerChannel, shift: PerChannel, folder: Path) -> ExportManifest:
    """Trace encoder and decoding step and write them to a folder, with a manifest.

    The step is traced for several media, or for one where that is not possible.  Raises ValueError when nothing is.
    """
    assert run.encoder is not None
    run.vocabulary.save(folder / "vocabulary.json")
    if calibration := load_calibration(run.folder):
        calibration.save(folder)
    for batched in (True, False):
        try:
            graphs = build_graphs(run.encoder.eval(), run.model.eval(), resize.side, scale, shift, batched)
            write_graphs(graphs, str(folder / "encoder.onnx"), str(folder / "step.onnx"))
            manifest = _manifest(run, resize, graphs, folder)
            manifest.save(folder)
            images, clips = _supported_media(graphs, folder, run.recipe.frames)
        except ImportError as error:
            raise ImportError(f"exporting needs onnx and onnxscript ({error}): pip install limner[onnx]") from error
        except Exception as error:  # torch.export raises many kinds of exceptions and wraps the cause
            if batched:
                continue
            raise ValueError(
                f"{run.recipe.model.name} on {run.encoder.provenance()['architecture']} cannot be exported: "
                f"torch.export cannot trace it ({_cause(error)})"
            ) from error
        if images or clips:
            return replace(manifest, images=images, clips=clips)
    raise ValueError(
        f"the exported graphs compute other numbers than PyTorch, for images and for clips of {run.recipe.frames} "
        "frames: nothing was written (torch.export fixed a length that must be dynamic, as it does for video encoders)"
    )


def _manifest(run: Run, resize: Preprocess, graphs: Graphs, folder: Path) -> ExportManifest:
    """The manifest of the float graphs in a folder, before it is known which media they read."""
    assert run.encoder is not None
    return ExportManifest(
        files=file_hashes(folder), preprocess=resize, frames=run.recipe.frames, sampling=run.recipe.sampling,
        decoding=replace(run.recipe.beam.bind(run.vocabulary), groups=1, must=(), n_best=1),
        layout=(graphs.layout.h, graphs.layout.w), images=True, clips=True,
        memory=graphs.memory_names, state=graphs.state_names, batched=graphs.step.batched,
        media=trained_media(run), attends=run.model.attends,
        source={
            "run": run.folder.resolve().name, "model": run.recipe.model.name,
            "encoder": run.encoder.provenance()["architecture"], "torch": torch.__version__,
        },
    )  # fmt: skip


def _cause(error: BaseException) -> str:
    """The innermost cause of an exception, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2]):.300}"


def _supported_media(graphs: Graphs, folder: Path, frames: int) -> tuple[bool, bool]:
    """Whether the graphs compute PyTorch's numbers for images, and for clips of `frames` frames."""
    model = OnnxModel.load(folder)
    return _matches_pytorch(graphs, model, 1), _matches_pytorch(graphs, model, max(2, frames))


def _matches_pytorch(graphs: Graphs, model: OnnxModel, frames: int) -> bool:
    """Compare the encoder and one decoding step of three hypotheses with PyTorch, on noise: three media or one."""
    media, step = 3 if graphs.step.batched else 1, graphs.step
    shape = (media, frames, *graphs.pixels.shape[2:])
    pixels = np.random.default_rng(frames).integers(0, 256, shape, np.uint8)
    token = np.array([[1, 2, 3]] * media)
    try:
        with torch.enable_grad():  # the code path that was traced, see `build_graphs`
            parts = [graphs.encoder.encode(torch.from_numpy(each)[None])[:2] for each in pixels]
            memory = [torch.cat(each) for each in zip(*(step.memory.flatten(part) for part, _ in parts), strict=True)]
            state = [torch.cat(each) for each in zip(*(step.state.flatten(part) for _, part in parts), strict=True)]
            rows = [x.repeat_interleave(3, 0) for x in state]
            tokens = torch.from_numpy(token)
            if step.batched:
                expected = step(tokens, [x.unflatten(0, (media, 3)) for x in rows], memory)
            else:
                expected = tuple(x[None] for x in step(tokens[0], rows, memory))
        encoded = [model.encode(each) for each in pixels]
        onnx_memory, onnx_state = (
            [np.concatenate(each) for each in zip(*trees, strict=True)] for trees in zip(*encoded, strict=True)
        )
        logits, attention, new = model.step(onnx_memory, token, [np.repeat(x, 3, 1) for x in onnx_state])
    except Exception:  # from PyTorch (a length that the encoder cannot read) or from onnxruntime
        return False
    actual = [*onnx_memory, *(x[:, 0] for x in onnx_state), logits, attention, *new]
    return all(_close(a.numpy(), b) for a, b in zip([*memory, *state, *expected], actual, strict=True))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal shapes, equal positions of inf and nan, and all other values equal within `TOLERANCE`."""
    if a.shape != b.shape:
        return False
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    size = max(1.0, float(np.abs(a[finite]).max(initial=0)))
    return bool(np.allclose(a[finite], b[finite], rtol=0, atol=TOLERANCE * size))


def _require(check: ExportCheck, min_share: float, graphs: str) -> None:
    """Raise ValueError when too few captions are identical, or when they are much less probable."""
    if check.identical_share < min_share:
        expected, actual = check.examples[0]
        raise ValueError(
            f"{graphs} generate PyTorch's caption for {check.identical} of {check.media} media, fewer than "
            f"{min_share:.0%}: nothing was written ('{expected}' became '{actual}')"
        )
    if check.relative_loss > MAX_INT8_LOSS:
        raise ValueError(
            f"{graphs} generate captions with a mean log-probability of "
            f"{check.mean_logprob - check.mean_logprob_loss:.2f} instead of {check.mean_logprob:.2f}, and it may be "
            f"at most {MAX_INT8_LOSS:.0%} worse: nothing was written"
        )


def _quantise(folder: Path) -> None:
    """Replace both graphs by graphs with int8 weights."""
    for name, change in (("step.onnx", quantise_step), ("encoder.onnx", shrink_weights)):
        change(folder / name, folder / f"int8_{name}")
        os.replace(folder / f"int8_{name}", folder / name)
