"""Scores of a run's explanations on a split of its data: pointing game, deletion and insertion, for several methods."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from rich.table import Table

from limner.core.types import Features, Medium
from limner.data.archives import medium_exists
from limner.data.datasets import read_dataset, read_scenes
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from limner.data.shapes_words import Scene
from limner.decode.search import Beam, beam
from limner.explanations.ground_truth import Kind, pointing_targets
from limner.explanations.maps import METHODS, TargetSentence, explain, sentence_from_tokens
from limner.explanations.overlay import WHOLE_IMAGE, Box
from limner.explanations.scores import CurveAreas, PointingScore, deletion_insertion, pointing_game
from limner.models.captioner import Captioner
from limner.runs.inputs import RecipeInputs, open_inputs
from limner.runs.run import Run


@dataclass
class MethodScores:
    """Scores of all words for one explanation method: pointing game by kind of word, and curve areas."""

    method: str
    pointing: dict[str, list[PointingScore]] = field(default_factory=dict)
    curve_areas: list[CurveAreas] = field(default_factory=list)

    def means(self) -> dict[str, Any]:
        """Means as JSON values: number of words, hit and chance per kind of word; deletion, insertion and random."""
        means: dict[str, Any] = {
            kind: {"words": len(rows), **dict(zip(PointingScore._fields, np.mean(rows, 0).tolist(), strict=True))}
            for kind, rows in self.pointing.items()
        }
        if self.curve_areas:
            means |= dict(zip(CurveAreas._fields, np.mean(self.curve_areas, 0).tolist(), strict=True))
        return {"method": self.method, **means}


@dataclass(frozen=True)
class ExplanationScores:
    """Scores of several methods on the same media."""

    by_method: tuple[MethodScores, ...]
    media: int  # number of media that were explained
    problems: tuple[str, ...]  # one line for each medium that was left out


def score_run(
    run: Run,
    methods: Sequence[str] = tuple(METHODS),
    split: str = "test",
    decoding: Beam | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> ExplanationScores:
    """Explain the captions that a run generates for a split, and score the maps.

    On the micro-world, only the words that are true of the scene count, and the pointing game is played with them.  On
    other data there is no ground truth: all words count, for deletion and insertion only.  Raises ValueError for
    unknown methods or splits.
    """
    recipe = run.recipe
    if unknown := [method for method in methods if method not in METHODS]:
        raise ValueError(f"unknown methods {', '.join(unknown)}; known are {', '.join(METHODS)}")
    scenes = read_scenes(recipe.data)
    if scenes and recipe.sampling.policy not in ("uniform", "random"):
        raise ValueError(
            f"the times of cells are unknown with sampling.policy {recipe.sampling.policy}: it must be uniform"
        )
    inputs = open_inputs(recipe, run.encoder)
    media, problems = inputs.split_readable(read_dataset(recipe.data).split(split)[:limit])
    scores = tuple(MethodScores(method) for method in methods)
    for medium in media:
        features = _features(inputs, medium, device)
        tokens = beam(run.model, features, decoding or recipe.beam).tokens[0].tolist()
        sentence, scene = sentence_from_tokens(run.vocabulary, tokens), scenes.get(medium.id)
        kept_region = _kept_region(inputs, medium) if scene else WHOLE_IMAGE
        for method_scores in scores:
            score_medium(method_scores, run.model, features, sentence, scene, kept_region)
    return ExplanationScores(scores, len(media), tuple(problems))


def score_medium(
    scores: MethodScores,
    model: Captioner,
    features: Features,
    sentence: TargetSentence,
    scene: Scene | None = None,
    kept_region: Box = WHOLE_IMAGE,
    levels: int = 10,
) -> None:
    """Explain one medium and add the scores of its words to `scores`.  `scene` is the ground truth, if there is one."""
    explanation = explain(model, features, sentence, scores.method)
    chosen = list(range(len(explanation.words)))
    if scene is not None:
        boxes = explanation.boxes(kept_region)
        targets = pointing_targets(" ".join(explanation.words), scene, explanation.layout, boxes)
        for target in targets:
            score = pointing_game(explanation.maps[target.word], target.cells, explanation.real)
            scores.pointing.setdefault(target.kind, []).append(score)
        chosen = sorted({target.word for target in targets})
    scores.curve_areas += deletion_insertion(model, features, sentence, explanation.maps, chosen, levels)


@torch.no_grad()
def _features(inputs: RecipeInputs, medium: Medium, device: str) -> Features:
    """The cells of one medium, from the store or the encoder."""
    loaded = inputs.reader([(medium, "full")]).map(lambda x: x.to(device))
    if isinstance(loaded, Features):
        return loaded
    assert inputs.encoder is not None
    return inputs.encoder(loaded)


def _kept_region(inputs: RecipeInputs, medium: Medium) -> Box:
    """The part of the image that the encoder saw, relative xyxy."""
    if inputs.encoder is None or not medium_exists(medium.path):
        return WHOLE_IMAGE
    return inputs.encoder.kept_region(*read_medium(medium, FrameSampling(1)).shape[1:3])


def scores_table(scored: ExplanationScores) -> Table:
    """Table with a column per method and a row per kind of word (pointing game hits) and per curve (areas).

    The column "chance" is the chance level of the pointing game, or the area of a random order.
    """
    result = Table(title=f"explanations of {scored.media} media")
    for head in ("", "words", "chance", *(scores.method for scores in scored.by_method)):
        result.add_column(head, justify="right" if head else "left")
    means, first = [scores.means() for scores in scored.by_method], scored.by_method[0]
    for kind in (kind for kind in get_args(Kind) if kind in first.pointing):
        hits = [f"{row[kind]['hit']:.2f}" for row in means]
        result.add_row(kind, str(len(first.pointing[kind])), f"{means[0][kind]['chance']:.2f}", *hits)
    if first.curve_areas:
        for name in ("deletion", "insertion"):
            areas = [f"{row[name]:.2f}" for row in means]
            result.add_row(name, str(len(first.curve_areas)), f"{means[0]['random']:.2f}", *areas)
    result.caption = "share of words whose maximum is on target; probability of words: low deletion, high insertion"
    return result
