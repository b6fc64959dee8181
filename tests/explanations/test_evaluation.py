"""A split of a run's data, scored: which words count, where they belong, and what is left out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limner.core.types import Features, Layout
from limner.data.frames import SamplingConfig
from limner.data.shapes import generate_world, load_world, read_truth
from limner.decode.search import beam
from limner.encoders import SmallCNN
from limner.explanations import evaluation as report
from limner.explanations.evaluation import score_run
from limner.explanations.ground_truth import pointing_targets
from limner.explanations.maps import (
    METHODS,
    Explanation,
    TargetSentence,
    explain,
    sentence_from_text,
    sentence_from_tokens,
)
from limner.explanations.scores import deletion_insertion
from limner.models.captioner import Captioner
from limner.runs.run import Run, load_run
from tests.explanations.test_explanation_input import feature_run

LAYOUT = Layout(4, 4, 4)  # of the tiny run's features of 4 frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of the micro-world, half of them for testing."""
    root = tmp_path_factory.mktemp("clips")
    generate_world(root, 0, 12, size=32, splits=(0.25, 0.25, 0.5))
    return root


@pytest.fixture
def run(tiny: Path, clips: Path) -> Run:
    """The run of pictures, on clips."""
    found = load_run(tiny / "run")
    return replace(found, recipe=replace(found.recipe, data=replace(found.recipe.data, media=str(clips))))


def truthful(monkeypatch: pytest.MonkeyPatch, world: Path) -> dict[str, str]:
    """The captioner says the references of the test split, whatever the search finds.  -> sentence: id"""
    said = {medium.references[0]: medium.id for medium in load_world(world) if medium.split == "test"}
    waiting = iter(said)
    monkeypatch.setattr(
        report, "sentence_from_tokens", lambda vocabulary, tokens: sentence_from_text(vocabulary, next(waiting))
    )
    return said


def pointing_at(world: Path, said: dict[str, str], knows: bool) -> Any:
    """An `explain` whose maps are 1 in the cells of all places of a word, or in those of none."""
    scenes, boxes = read_truth(world), LAYOUT.boxes().numpy()

    def explain(model: Captioner, features: Features, sentence: TargetSentence, method: str) -> Explanation:
        assert features.layout == LAYOUT and method == "saliency"
        maps = np.ones((len(sentence.words), LAYOUT.cells), np.float32)
        for place in pointing_targets(sentence.text, scenes[said[sentence.text]], LAYOUT, boxes):
            maps[place.word] *= place.cells if knows else ~place.cells
        real = np.ones(LAYOUT.cells, dtype=bool)
        return Explanation(sentence.text, sentence.words, maps, LAYOUT, method, np.ones(len(maps)), real)

    return explain


def test_perfect_maps_always_hit_and_their_opposites_never(run: Run, clips: Path, monkeypatch: pytest.MonkeyPatch):
    for knows in (True, False):
        said = truthful(monkeypatch, clips)
        monkeypatch.setattr(report, "explain", pointing_at(clips, said, knows))
        scored = score_run(run, ["saliency"], decoding=replace(run.recipe.decoding, size=1))
        told = scored.by_method[0].means()
        assert scored.media == len(said) == 6 and scored.problems == ()
        assert [told[kind]["hit"] for kind in ("object", "colour")] == [float(knows)] * 2
        # what lasts from end to end leaves no other cells: such maps are flat, and have the chance level
        always = np.mean([row.chance == 1 for row in scored.by_method[0].pointing["time"]])
        assert told["event"]["hit"] == pytest.approx(float(knows), abs=always * told["event"]["chance"] * 2)
        assert told["time"]["hit"] == pytest.approx(1 if knows else always) and always < 0.5


def test_the_words_that_count_are_those_that_point(run: Run, clips: Path, monkeypatch: pytest.MonkeyPatch):
    """Every kind has a row for each of its places, and the curves one for each word that has a place."""
    said, scenes = truthful(monkeypatch, clips), read_truth(clips)
    truth = [pointing_targets(text, scenes[id], LAYOUT, LAYOUT.boxes().numpy()) for text, id in said.items()]
    scored = score_run(run, ["attention", "gradcam"], decoding=replace(run.recipe.decoding, size=1))
    assert [tally.method for tally in scored.by_method] == ["attention", "gradcam"]
    for tally in scored.by_method:
        for kind in ("object", "colour", "event", "time"):
            expected = [place.cells.mean() for found in truth for place in found if place.kind == kind]
            assert [row.chance for row in tally.pointing[kind]] == pytest.approx(expected)
        assert len(tally.curve_areas) == sum(len({place.word for place in found}) for found in truth)
        assert all(0 <= value <= 1 for row in tally.curve_areas for value in row)


def test_explanations_of_pictures_are_scored(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Things and colours only; the part that the encoder saw is what cells tile."""
    seen: list[np.ndarray] = []

    def recorded(caption: str, scene: Any, layout: Layout, boxes: np.ndarray) -> list:
        seen.append(boxes)
        return pointing_targets(caption, scene, layout, boxes)

    monkeypatch.setattr(report, "pointing_targets", recorded)
    monkeypatch.setattr(SmallCNN, "kept_region", lambda encoder, height, width: (0.25, 0.0, 0.75, 1.0))
    truthful(monkeypatch, tiny / "world")
    scored = score_run(load_run(tiny / "run"), ["gradcam++"], limit=2)
    assert scored.media == 2 == len(seen) and set(scored.by_method[0].pointing) == {"object", "colour"}
    assert seen[0].shape == (16, 4) and seen[0][0] == pytest.approx([0.25, 0, 0.375, 0.25])


def test_without_ground_truth_all_words_are_scored(tmp_path: Path):
    """Stored features of v1 alone, which is what the split names; there is nothing to point at."""
    run = load_run(feature_run(tmp_path))
    scored = score_run(run)
    rows = torch.from_numpy(np.load(tmp_path / "rows" / "v1.npy"))
    features = Features(rows[None], torch.ones(1, 5, dtype=torch.bool), Layout(5, 1, 1))
    sentence = sentence_from_tokens(run.vocabulary, beam(run.model, features, run.recipe.beam).tokens[0].tolist())
    assert scored.media == 1 and [tally.method for tally in scored.by_method] == list(METHODS)
    for tally in scored.by_method:
        maps = explain(run.model, features, sentence, tally.method).maps
        every = range(len(sentence.words))
        expected = deletion_insertion(run.model, features, sentence, maps, list(every))
        assert tally.pointing == {} and len(tally.curve_areas) == len(every) > 0
        np.testing.assert_allclose(tally.curve_areas, expected, atol=1e-5)


def test_damaged_media_are_left_out_and_named(tiny: Path, run: Run, tmp_path: Path):
    generate_world(tmp_path, 0, 4, size=32, splits=(0.0, 0.0, 1.0))
    (tmp_path / "videos" / "000001.mp4").write_bytes(b"")
    damaged = replace(run, recipe=replace(run.recipe, data=replace(run.recipe.data, media=str(tmp_path))))
    scored = score_run(damaged, ["attention"])
    assert scored.media == 3 and len(scored.problems) == 1 and "000001" in scored.problems[0]


def test_unknown_methods_splits_and_frame_policies_are_refused(run: Run):
    with pytest.raises(
        ValueError, match=r"unknown methods cam, x; known are attention, gradcam, gradcam\+\+, saliency"
    ):
        score_run(run, ["cam", "saliency", "x"])
    with pytest.raises(ValueError, match="no media in split 'fold'"):
        score_run(run, split="fold")
    head = replace(run, recipe=replace(run.recipe, sampling=SamplingConfig("head")))
    with pytest.raises(ValueError, match=r"with sampling\.policy head: it must be uniform"):
        score_run(head)
