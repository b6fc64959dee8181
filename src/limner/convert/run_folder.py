"""Writing of a converted run: complete and checked, or not at all."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from limner.convert.checkpoint import check_finite
from limner.core.locks import lock_output
from limner.core.temporaries import temporary_folder
from limner.core.tensors import save_tensors
from limner.core.types import BOS, UNK, Features, Layout
from limner.models.captioner import Captioner
from limner.objectives.reconstruction import Reconstruction
from limner.runs.recipe import Recipe
from limner.runs.run import RunInfo, create_run, load_run, save_objective
from limner.text.vocabulary import Vocabulary

RUN_FILES = ("run.json", "model.safetensors", "last.safetensors")


@dataclass(frozen=True)
class ConvertedRun:
    """The contents of a run folder before it is written."""

    recipe: Recipe
    vocabulary: Vocabulary
    info: RunInfo
    model: Captioner
    layout: Layout  # of the random cells on which the written run is checked
    boxes: bool = False  # True: these cells get random boxes
    encoder: nn.Module | None = None  # an encoder whose weights the run holds
    objective: Reconstruction | None = None  # an objective with weights of its own


def check_no_run(out: Path) -> None:
    """Raise FileExistsError when the folder already holds a run, or is a file."""
    if out.is_file():
        raise FileExistsError(f"{out} is a file; give the name of a new folder")
    for name in RUN_FILES:
        if (out / name).exists():
            raise FileExistsError(f"{out} already holds a run ({name}); choose another folder")


def write_run(out: Path, run: ConvertedRun, source: str) -> None:
    """Write the run folder `out`; nothing is there when this fails.

    The run is written and checked in a temporary folder beside `out`, and then moved.  Raises ValueError when weights
    of `source`, the checkpoint, or the scores that they give are NaN or infinite, LockedError when another process is
    writing `out`; OSError.
    """
    tensors = run.model.state_dict()
    if run.encoder is not None:
        tensors |= {f"encoder.{key}": value for key, value in run.encoder.state_dict().items()}
    check_finite(tensors, source)
    with lock_output(out), temporary_folder(out.parent, out.name) as temporary:
        folder = temporary / "run"
        save_tensors(folder / "model.safetensors", tensors)
        if run.objective is not None:
            check_finite(run.objective.state_dict(), source)
            save_objective(run.objective, folder, run.objective.config.name)
        create_run(folder, run.recipe, run.vocabulary, run.info)
        verify_run(folder, run.model.eval(), run.layout, run.boxes, source)
        _move(folder, out)


def _move(folder: Path, out: Path) -> None:
    """Move the files of a folder to `out`, run.json last; on an error, `out` gets none of them."""
    if not out.exists():
        folder.rename(out)
        return
    moved: list[Path] = []
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
            os.replace(path, out / path.name)
            moved.append(out / path.name)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


@torch.no_grad()
def verify_run(folder: Path, model: Captioner, layout: Layout, boxes: bool, source: str) -> None:
    """Check on random cells that the written run and `model` give the same logits, bit for bit.

    `boxes` True adds random boxes to the cells.  Raises ValueError when the logits are not numbers, OSError when they
    differ.
    """
    generator = torch.Generator().manual_seed(0)
    run = load_run(folder)
    grid = torch.randn(2, layout.cells, run.info.feature_dim, generator=generator)
    regions = torch.rand(2, layout.cells, 4, generator=generator) if boxes else None
    features = Features(grid, torch.ones(2, layout.cells, dtype=torch.bool), layout, regions)
    words = len(run.vocabulary)
    tokens = torch.randint(UNK, max(UNK + 1, words), (2, 8), generator=generator).clamp(max=words - 1)
    tokens[:, 0] = BOS
    expected = model(features, tokens)
    if expected.isnan().any():
        raise ValueError(
            f"{source}: its weights are finite, but the scores that they give are not numbers (NaN): a weight is far "
            "too large, or a variance below 0; take an earlier checkpoint"
        )
    if not torch.equal(run.model(features, tokens), expected):
        raise OSError(
            f"{folder.parent} was written, but its logits differ from those of the checkpoint: check the disk"
        )
