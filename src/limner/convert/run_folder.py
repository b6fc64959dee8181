"""Checks of a converted run folder: it replaces no other run, and it computes the same logits as the checkpoint."""

from pathlib import Path

import torch

from limner.core.types import BOS, UNK, Features, Layout
from limner.models.captioner import Captioner
from limner.runs.run import load_run

RUN_FILES = ("run.json", "model.safetensors", "last.safetensors")


def check_no_run(out: Path) -> None:
    """Raise FileExistsError when the folder already holds a run."""
    for name in RUN_FILES:
        if (out / name).exists():
            raise FileExistsError(f"{out} already holds a run ({name}); choose another folder")


@torch.no_grad()
def verify_run(out: Path, model: Captioner, layout: Layout, boxes: bool = False) -> None:
    """Check on random cells that the written run and `model` give the same logits, bit for bit.

    `boxes` True adds random boxes to the cells.  Raises OSError when the logits differ.
    """
    generator = torch.Generator().manual_seed(0)
    run = load_run(out)
    grid = torch.randn(2, layout.cells, run.info.feature_dim, generator=generator)
    regions = torch.rand(2, layout.cells, 4, generator=generator) if boxes else None
    features = Features(grid, torch.ones(2, layout.cells, dtype=torch.bool), layout, regions)
    words = len(run.vocabulary)
    tokens = torch.randint(UNK, max(UNK + 1, words), (2, 8), generator=generator).clamp(max=words - 1)
    tokens[:, 0] = BOS
    if not torch.equal(run.model(features, tokens), model(features, tokens)):
        raise OSError(f"{out} was written, but its logits differ from those of the checkpoint: check the disk")
