"""Data sets and recipes small enough to train in a second."""

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe

CAPTIONS = ("a red dog", "a blue cat runs", "the bird", "a green fish swims away", "two cows stand here")


def pictures(folder: Path, train: int, val: int = 3, side: int = 16, captions: tuple[str, ...] = CAPTIONS) -> Path:
    """`train` + `val` images of random pixels, one caption each in turn; those for validation are copies."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for k in range(train):
        pixels = np.random.default_rng(k).integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(folder / f"p{k}.png")
        rows.append({"file": f"p{k}.png", "id": f"p{k}", "split": "train", "caption": captions[k % len(captions)]})
    for k, row in enumerate(rows[:val]):
        shutil.copy(folder / f"p{k}.png", folder / f"v{k}.png")
        rows.append({**row, "file": f"v{k}.png", "id": f"v{k}", "split": "val"})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def clip(path: Path, frames: int = 6, side: int = 16) -> None:
    """A second of changing grey."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=frames)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for k in range(frames):
            pixels = np.full((side, side, 3), 20 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def recipe(folder: Path, *overrides: tuple[str, Any], **stage: Any) -> Recipe:
    """A small CNN and a small captioner, trained on `folder` in one stage."""
    tree = {
        "data": {"name": "jsonl", "annotations": str(folder / "captions.jsonl"), "media": str(folder)},
        "encoder": {"name": "small_cnn", "size": 16, "width": 8, "dim": 8},
        "vocabulary": {"min_count": 1},
        "model": {"name": "show_attend_tell", "hidden": 16, "embed": 8, "attention": 8, "dropout": 0.0},
        "stages": [{"epochs": 1, "batch_size": 4, "lr": 0.003, "encoder_lr": 0.003, "optimizer": "adam", **stage}],
        "decoding": {"size": 3, "rules": {"max_length": 8}},
        "validation": {"beam": 1},
    }
    return build_recipe(tree, [(name, json.dumps(value)) for name, value in overrides])


def log_of(folder: Path) -> list[dict[str, Any]]:
    """log.jsonl without wall times, the one thing that differs between equal runs."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class Watched(list[tuple[str, dict[str, Any]]]):
    """Collects what training tells; raises KeyboardInterrupt at the n-th event of a kind."""

    def __init__(self, stop: tuple[str, int] | None = None):
        self.stop = stop

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        self.append((event, facts))
        if self.stop and self.stop == (event, sum(kind == event for kind, _ in self)):
            raise KeyboardInterrupt

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for kind, facts in self if kind == event]
