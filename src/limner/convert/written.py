"""A converted run on disk: never over another one, and with the scores of what was read."""

from pathlib import Path

import torch

from limner.core.types import BOS, UNK, Features, Layout
from limner.models.captioner import Captioner
from limner.runs.run import load_run

RUN_FILES = ("run.json", "model.safetensors", "last.safetensors")


def must_be_free(out: Path) -> None:
    """Raises FileExistsError when the folder holds a run."""
    for name in RUN_FILES:
        if (out / name).exists():
            raise FileExistsError(f"{out} already holds a run ({name}); choose another folder")


@torch.no_grad()
def verify(out: Path, model: Captioner, layout: Layout, boxes: bool = False) -> None:
    """The run on disk gives the scores of the mapped weights, bit for bit; `boxes`: on regions that have some.

    Raises OSError when it does not.
    """
    draw = torch.Generator().manual_seed(0)
    run = load_run(out)
    grid = torch.randn(2, layout.cells, run.info.feature_dim, generator=draw)
    regions = torch.rand(2, layout.cells, 4, generator=draw) if boxes else None
    features = Features(grid, torch.ones(2, layout.cells, dtype=torch.bool), layout, regions)
    words = len(run.vocabulary)
    tokens = torch.randint(UNK, max(UNK + 1, words), (2, 8), generator=draw).clamp(max=words - 1)
    tokens[:, 0] = BOS
    if not torch.equal(run.model(features, tokens), model(features, tokens)):
        raise OSError(f"{out} was written, but gives other scores than the checkpoint; is the disk sound?")
