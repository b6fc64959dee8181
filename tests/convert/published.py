"""What tests of converters share: where golden data lie, how far numbers are from them, and a published step that
limner does not take."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.models.spatiotemporal import FirstToken, Memory


def goldens(system: str) -> list[Path]:
    """Folders of golden data; LIMNER_GOLDENS names others, separated by colons."""
    default = Path(os.environ.get("LIMNER_SHARED", str(Path(__file__).parents[3] / "shared"))) / "goldens"
    folders = [Path(name) for name in os.environ.get("LIMNER_GOLDENS", str(default)).split(os.pathsep)]
    return [inner if (inner := folder / system).is_dir() else folder for folder in folders]


def start_logits(model: FirstToken, memory: Memory) -> Tensor:
    """(B, V): what VideoCaptioning's step 0 predicts from the clip alone; it is trained to be <start>.  limner begins
    with BOS and never computes it."""
    return model.head(model.hidden(model.init_state(memory)))


class Near:
    """Remembers the largest deviation of every kind of number."""

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}

    def __call__(self, name: str, ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
        ours, theirs = torch.as_tensor(ours), torch.as_tensor(theirs)
        assert ours.shape == theirs.shape, name
        self.worst[name] = max(self.worst.get(name, 0.0), (ours - theirs).abs().max().item() if ours.numel() else 0.0)
        assert self.worst[name] <= tolerance, name
