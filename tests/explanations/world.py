"""The micro-world in cells: what an encoder could say of every cell of a clip is written down from the truth, so that
captioners learn within seconds to say what happens, and where they must have looked is known."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from limner.core.types import PAD, Features, Layout
from limner.data.shapes import make_clip
from limner.data.shapes_words import COLOURS, MOTIONS, SHAPES, Scene
from limner.models import CAPTIONERS, build_model
from limner.models.captioner import Captioner
from limner.text.vocabulary import Vocabulary

LAYOUT = Layout(4, 5, 5)
D = 32
FACTS = [*SHAPES, *COLOURS, *MOTIONS, "something"]
SIZES: dict[str, dict[str, Any]] = {
    "show_attend_tell": {"hidden": 64, "embed": 32, "attention": 32, "activation": "tanh", "initial": "max"},
    "spatio_temporal": {"hidden": 64, "embed": 32, "attention": 32, "initial": "max"},
    "sa_lstm": {"hidden": 64, "embed": 32, "attention": 32, "position_embedding": True},
    "first_token": {"hidden": 64, "embed": 64, "pool": "max"},
    "sft": {"hidden": 64, "embed": 32, "width": 32, "heads": 4, "layers": 1, "ham": False},
    "spatial_transformer": {"dim": 64, "hidden": 128, "heads": 4, "positions": "none", "position_embedding": True},
    "xlan": {"dim": 64, "heads": 4, "position_embedding": True},
    "up_down": {"hidden": 64, "embed": 32, "attention": 32, "position_embedding": True},
}


@dataclass(frozen=True)
class World:
    scenes: list[Scene]
    sentences: list[str]
    grids: torch.Tensor  # (clips, N, D)

    def features(self, rows: Any) -> Features:
        grid = self.grids[rows]
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool), LAYOUT)


@cache
def world(count: int, seed: int) -> World:
    """Clips with one event: something moves, grows or shrinks, and sometimes something else stays still."""
    drawn = np.random.default_rng(seed)
    scenes: list[Scene] = []
    number = 0
    while len(scenes) < count:
        scene = make_clip(seed, number, 8)[0]
        number += 1
        if len(scene.events) == 1:
            scenes.append(scene)
    mixing = np.random.default_rng(9).normal(size=(len(FACTS), D)) * 0.7
    facts = np.stack([facts_of(scene) for scene in scenes])
    grids = np.maximum(facts @ mixing + 0.1 * drawn.normal(size=(count, LAYOUT.cells, D)), 0)
    return World(scenes, [sentence(scene) for scene in scenes], torch.tensor(grids, dtype=torch.float32))


def sentence(scene: Scene) -> str:
    names = [f"a {thing.colour} {thing.shape}" for thing in scene.objects]
    (event,) = scene.events
    moved = f"{names[event.object]} {event.motion}"
    others = [name for k, name in enumerate(names) if k != event.object]
    return f"{moved} while {others[0]} stays still" if others else moved


def facts_of(scene: Scene) -> np.ndarray:
    """(N, facts): how much of every cell an object covers, for each fact about it; motions only while they last."""
    t, h, w = LAYOUT
    y, x = np.mgrid[:h, :w]
    found = np.zeros((t, h, w, len(FACTS)))
    (event,) = scene.events
    for k, thing in enumerate(scene.objects):
        for frame, box in enumerate(thing.boxes):
            wide = np.clip(np.minimum(box[2] * w, x + 1) - np.maximum(box[0] * w, x), 0, None)
            high = np.clip(np.minimum(box[3] * h, y + 1) - np.maximum(box[1] * h, y), 0, None)
            said = {thing.shape, thing.colour, "something"}
            if event.object == k and event.start <= frame / scene.fps <= event.end:
                said.add(event.motion)
            known = np.array([fact in said for fact in FACTS])
            found[frame * t // scene.frames] += (wide * high)[..., None] * known * t / scene.frames * 3
    return found.reshape(LAYOUT.cells, len(FACTS))


@cache
def trained(name: str, steps: int = 160, seed: int = 0) -> tuple[Captioner, Vocabulary]:
    """A captioner of this world, by about 5 seconds of training."""
    torch.manual_seed(seed)
    clips = world(500, 0)
    vocabulary = Vocabulary.build(clips.sentences, 1)
    tokens = pad_sequence([torch.tensor(vocabulary.encode(text)) for text in clips.sentences], batch_first=True)
    options = SIZES[name] | ({} if name == "first_token" else {"dropout": 0.0})
    model = build_model(CAPTIONERS[name].config(name=name, **options), len(vocabulary), D)
    optimizer = torch.optim.Adam(model.parameters(), 6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps, pct_start=0.1)
    for _ in range(steps):
        rows = torch.randperm(len(tokens))[:32]
        logits = model(clips.features(rows), tokens[rows])[:, :-1]
        spoken = tokens[rows, 1:] != PAD
        loss = F.cross_entropy(logits[spoken], tokens[rows, 1:][spoken])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return model.eval(), vocabulary
