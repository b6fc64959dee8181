"""A run's explanations of a split of its data, scored: pointing game, deletion and insertion, for several methods."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from rich.table import Table

from limner.core.types import Features, Medium
from limner.data.datasets import read_dataset, read_scenes
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from limner.data.shapes_words import Scene
from limner.decode.search import Beam, beam
from limner.explanations.maps import METHODS, Sentence, explain, spoken
from limner.explanations.overlay import WHOLE, Box
from limner.explanations.scores import Curves, Pointing, curves, point
from limner.explanations.truth import Kind, places
from limner.models.captioner import Captioner
from limner.runs.inputs import RecipeInputs, open_inputs
from limner.runs.run import Run


@dataclass
class Tally:
    """Words of one method: pointing by kind, and the areas under their curves."""

    method: str
    pointing: dict[str, list[Pointing]] = field(default_factory=dict)
    curves: list[Curves] = field(default_factory=list)

    def means(self) -> dict[str, Any]:
        """Plain numbers: of every kind of word how many, hit and chance; deletion, insertion and random."""
        told: dict[str, Any] = {
            kind: {"words": len(rows), **dict(zip(Pointing._fields, np.mean(rows, 0).tolist(), strict=True))}
            for kind, rows in self.pointing.items()
        }
        if self.curves:
            told |= dict(zip(Curves._fields, np.mean(self.curves, 0).tolist(), strict=True))
        return {"method": self.method, **told}


@dataclass(frozen=True)
class Scored:
    tallies: tuple[Tally, ...]
    media: int
    problems: tuple[str, ...]


def score_run(
    run: Run,
    methods: Sequence[str] = tuple(METHODS),
    split: str = "test",
    decoding: Beam | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> Scored:
    """Explain the run's own captions of a split, and score the maps.

    On the micro-world the words that count are those that say something true, and they are pointed with; elsewhere
    there is no truth, and all words count for deletion and insertion.  Raises ValueError for unknown methods or splits.
    """
    recipe = run.recipe
    if unknown := [method for method in methods if method not in METHODS]:
        raise ValueError(f"unknown methods {', '.join(unknown)}; known are {', '.join(METHODS)}")
    scenes = read_scenes(recipe.data)
    if scenes and recipe.sampling.policy not in ("uniform", "random"):
        raise ValueError(
            f"the times of cells are not known with sampling.policy {recipe.sampling.policy}; it must be uniform"
        )
    inputs = open_inputs(recipe, run.encoder)
    media, problems = inputs.split_readable(read_dataset(recipe.data).split(split)[:limit])
    tallies = tuple(Tally(method) for method in methods)
    for medium in media:
        features = _features(inputs, medium, device)
        found = beam(run.model, features, decoding or recipe.beam).tokens[0].tolist()
        sentence, scene = spoken(run.vocabulary, found), scenes.get(medium.id)
        kept_region = _view(inputs, medium) if scene else WHOLE
        for tally in tallies:
            score(tally, run.model, features, sentence, scene, kept_region)
    return Scored(tallies, len(media), tuple(problems))


def score(
    tally: Tally,
    model: Captioner,
    features: Features,
    sentence: Sentence,
    scene: Scene | None = None,
    kept_region: Box = WHOLE,
    levels: int = 10,
) -> None:
    """Add the words of one medium; a scene says what is in it."""
    explanation = explain(model, features, sentence, tally.method)
    chosen = list(range(len(explanation.words)))
    if scene is not None:
        found = places(" ".join(explanation.words), scene, explanation.layout, explanation.boxes(kept_region))
        for place in found:
            pointed = point(explanation.maps[place.word], place.cells, explanation.real)
            tally.pointing.setdefault(place.kind, []).append(pointed)
        chosen = sorted({place.word for place in found})
    tally.curves += curves(model, features, sentence, explanation.maps, chosen, levels)


@torch.no_grad()
def _features(inputs: RecipeInputs, medium: Medium, device: str) -> Features:
    found = inputs.reader([(medium, "full")]).map(lambda x: x.to(device))
    if isinstance(found, Features):
        return found
    assert inputs.encoder is not None
    return inputs.encoder(found)


def _view(inputs: RecipeInputs, medium: Medium) -> Box:
    """The part of the picture that the encoder saw."""
    if inputs.encoder is None or not Path(medium.path).is_file():
        return WHOLE
    return inputs.encoder.kept_region(*read_medium(medium, FrameSampling(1)).shape[1:3])


def table(scored: Scored) -> Table:
    """A row per kind of word, with its hits in the pointing game, and one per curve, with the area under it; a column
    per method.  Chance is what a blind pick hits, and what an order by chance has."""
    made = Table(title=f"explanations of {scored.media} media")
    for head in ("", "words", "chance", *(tally.method for tally in scored.tallies)):
        made.add_column(head, justify="right" if head else "left")
    told, first = [tally.means() for tally in scored.tallies], scored.tallies[0]
    for kind in (kind for kind in get_args(Kind) if kind in first.pointing):
        hits = [f"{means[kind]['hit']:.2f}" for means in told]
        made.add_row(kind, str(len(first.pointing[kind])), f"{told[0][kind]['chance']:.2f}", *hits)
    if first.curves:
        for name in ("deletion", "insertion"):
            areas = [f"{means[name]:.2f}" for means in told]
            made.add_row(name, str(len(first.curves)), f"{told[0]['random']:.2f}", *areas)
    made.caption = "shares of words that point where they should; probability of words: low deletion, high insertion"
    return made
