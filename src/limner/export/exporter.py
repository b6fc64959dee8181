"""Write a run as an exported model, after both have captioned the same media.

export_onnx(load_run("runs/x"), Path("x.onnx"))
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from limner.core.torch_free import Source
from limner.export.check import Comparison, compare, drawn
from limner.export.graphs import Graphs, graphs_of, write_graphs
from limner.export.int8 import quantise_step, shrink_weights
from limner.export.preprocessing import preprocessing_of
from limner.inference.onnx.model import EXPORT_MANIFEST, ExportManifest, OnnxModel, file_hashes
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline
from limner.runs.run import Run

IDENTICAL = 0.99  # of the captions; below it nothing is written
INT8_LOSS = 0.05  # int8 rounds, so that near ties fall otherwise: its captions may be so much less likely, not more
CLOSE = 1e-3  # what both graphs and PyTorch may differ by, relative to the largest number


@dataclass(frozen=True)
class Exported:
    """What was written and how it compares."""

    folder: Path
    floats: Comparison
    int8: Comparison | None
    bytes: dict[str, int]  # of the files
    float_bytes: dict[str, int]  # of the graphs before their weights became int8
    pictures: bool
    clips: bool


def export_onnx(run: Run, out: Path, int8: bool = False, media: Sequence[Source] = ()) -> Exported:
    """`media` are what captions are compared on; without them, pictures (or clips) of the micro-world.

    Raises ValueError, and writes nothing, when the model cannot be traced, when fewer than 99 % of the captions are
    PyTorch's, when int8 says much less likely ones, or when there is no encoder; FileExistsError when `out` is there
    and is no exported model.
    """
    if run.encoder is None:
        raise ValueError(f"{run.folder} has no encoder and could not caption a file; give one with --encoder")
    if out.exists() and not (out / EXPORT_MANIFEST).is_file():
        raise FileExistsError(f"{out} is there and is no exported model: choose another name")
    pipeline = Pipeline(run)
    plan, scale, shift = preprocessing_of(run.encoder)
    decoding = replace(run.recipe.beam.bind(run.vocabulary), groups=1, must=(), n_best=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        new = work / "new"
        new.mkdir()
        graphs = _traced(run, plan.side, scale, shift, new)
        run.vocabulary.save(new / "vocabulary.json")
        card = ExportManifest(
            files=file_hashes(new), preprocess=plan, frames=run.recipe.frames, sampling=run.recipe.sampling,
            decoding=decoding, layout=(graphs.layout.h, graphs.layout.w), pictures=True, clips=True,
            memory=graphs.memory_names, state=graphs.state_names,
            source={
                "run": run.folder.resolve().name, "model": run.recipe.model.name,
                "encoder": run.encoder.provenance()["architecture"], "torch": torch.__version__,
            },
        )  # fmt: skip
        card.save(new)
        pictures, clips = _lengths(graphs, new, run.recipe.frames)
        card = replace(card, pictures=pictures, clips=clips)
        card.save(new)
        media = media or drawn(card.pictures, card.clips and not card.pictures)
        floats = compare(pipeline, OnnxPipeline.load(new), media, decoding)
        _insist(floats, IDENTICAL, "the exported graphs")
        sizes = {name: told["bytes"] for name, told in card.files.items()}
        rounded = None
        if int8:
            _round(new)
            card = replace(card, files=file_hashes(new), int8=True)
            card.save(new)
            rounded = compare(pipeline, OnnxPipeline.load(new), media, decoding)
            _insist(rounded, 0.0, "the int8 graphs")
        checks = {"float": floats.facts(), **({"int8": rounded.facts()} if rounded else {})}
        card = replace(card, source={**card.source, "captions compared with PyTorch": checks})
        card.save(new)
        new.chmod(0o755)
        if out.exists():
            os.replace(out, work / "old")
        os.replace(new, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    told = {name: facts["bytes"] for name, facts in card.files.items()}
    return Exported(out, floats, rounded, told, sizes, card.pictures, card.clips)


def _traced(run: Run, side: tuple[int, int], scale: Sequence[float], shift: Sequence[float], folder: Path) -> Graphs:
    assert run.encoder is not None
    try:
        graphs = graphs_of(run.encoder.eval(), run.model.eval(), side, scale, shift)
        write_graphs(graphs, str(folder / "encoder.onnx"), str(folder / "step.onnx"))
    except ImportError as error:
        raise ImportError(f"exporting needs onnx and onnxscript ({error}): pip install limner[onnx]") from error
    except Exception as error:  # torch.export has many kinds, and wraps the cause
        raise ValueError(
            f"{run.recipe.model.name} on {run.encoder.provenance()['architecture']} cannot be exported: torch.export "
            f"cannot trace it ({_cause(error)})"
        ) from error
    return graphs


def _cause(error: BaseException) -> str:
    """The innermost reason, on a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2]):.300}"


def _lengths(graphs: Graphs, folder: Path, frames: int) -> tuple[bool, bool]:
    """Does it read single pictures, and clips of so many frames, as PyTorch does?"""
    model = OnnxModel.load(folder)
    found = _agrees(graphs, model, 1), _agrees(graphs, model, max(2, frames))
    if not any(found):
        raise ValueError(
            f"the exported graphs compute other numbers than PyTorch, for pictures and for clips of {frames} frames: "
            "nothing was written (torch.export fixed a length that must be free, as it does for encoders of clips)"
        )
    return found


def _agrees(graphs: Graphs, model: OnnxModel, frames: int) -> bool:
    """Encoder and a step of three hypotheses, on noise."""
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, *graphs.pixels.shape[2:]), np.uint8)
    try:
        with torch.enable_grad():  # the form that was traced
            given = torch.from_numpy(pixels)[None]
            memory, state, _ = graphs.encoder.see(given)
            theirs = [*graphs.step.memory.split(memory), *graphs.step.state.split(state)]
            three = [x.repeat_interleave(3, 0) for x in graphs.step.state.split(state)]
            tokens = torch.tensor([1, 2, 3])
            theirs += [*graphs.step(tokens, three, graphs.step.memory.split(memory))]
        known, start = model.encode(pixels)
        said = model.step(known, tokens.numpy(), [np.repeat(x, 3, 0) for x in start])
    except Exception:  # of PyTorch (a length the encoder does not read) or of onnxruntime
        return False
    ours = [*known.values(), *start, said[0], said[1], *said[2]]
    return all(_close(a.numpy(), b) for a, b in zip(theirs, ours, strict=True))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    size = max(1.0, float(np.abs(a[finite]).max(initial=0)))
    return bool(np.allclose(a[finite], b[finite], rtol=0, atol=CLOSE * size))


def _insist(found: Comparison, least: float, what: str) -> None:
    if found.share < least:
        theirs, ours = found.examples[0]
        raise ValueError(
            f"{what} say PyTorch's caption for {found.identical} of {found.media} media, fewer than {least:.0%}: "
            f"nothing was written ('{theirs}' became '{ours}')"
        )
    if found.loss > INT8_LOSS:
        raise ValueError(
            f"{what} say captions whose log-probability is {found.logprob - found.regret:.2f} in the mean, PyTorch's "
            f"have {found.logprob:.2f}, and it may be {INT8_LOSS:.0%} worse: nothing was written"
        )


def _round(folder: Path) -> None:
    """The same graphs with weights of one byte."""
    for name, change in (("step.onnx", quantise_step), ("encoder.onnx", shrink_weights)):
        change(folder / name, folder / f"int8_{name}")
        os.replace(folder / f"int8_{name}", folder / name)
