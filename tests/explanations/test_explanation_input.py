"""What is shown under the maps, and when: files, stored features, features without pictures."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.tensors import save_tensors
from limner.core.types import Layout, Medium
from limner.data.frames import FrameSampling
from limner.data.images import MediaError
from limner.encoders import SmallCNN
from limner.explanations.explanation_input import display_frames, load_explanation_input
from limner.explanations.maps import explain, sentence_from_text
from limner.models import build_model
from limner.models.sa_lstm import SaLstmConfig
from limner.runs.recipe_file import build_recipe
from limner.runs.run import RunInfo, create_run, load_run
from limner.text.vocabulary import SPECIALS, Vocabulary
from tests.data.videos import greys, shown, write

VOCABULARY = Vocabulary((*SPECIALS, "a", "dog", "runs"))


def feature_run(root: Path, media: str = "") -> Path:
    """SA-LSTM on others' features: 5 rows of 4 channels for v1, 9 for v2; the encoder is not known."""
    (root / "rows").mkdir(parents=True)
    for id, rows in (("v1", 5), ("v2", 9)):
        np.save(root / "rows" / f"{id}.npy", np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32))
    (root / "captions.jsonl").write_text(
        json.dumps({"file": "v1.mp4", "id": "v1", "split": "test", "caption": "a dog"})
    )
    data = {"name": "jsonl", "annotations": str(root / "captions.jsonl"), "media": media}
    model = {"name": "sa_lstm", "hidden": 6, "embed": 5, "attention": 4}
    tree = {"data": data, "features": str(root / "rows"), "frames": 6, "model": model, "stages": [{}]}
    torch.manual_seed(0)
    net = build_model(SaLstmConfig(hidden=6, embed=5, attention=4), len(VOCABULARY), 4)
    save_tensors(root / "run" / "model.safetensors", net.state_dict())
    create_run(root / "run", build_recipe(tree), VOCABULARY, RunInfo(4, {}))
    return root / "run"


def test_a_picture_is_shown_as_it_is(tiny: Path):
    file = tiny / "world" / "images" / "000000.png"
    found = load_explanation_input(load_run(tiny / "run"), str(file))
    assert found.features.layout == Layout(1, 4, 4) and found.notes == ()
    assert np.array_equal(found.display.frames[0], np.asarray(Image.open(file))) and found.display.seconds is None


@pytest.mark.parametrize(("seconds", "count"), [(1, 24), (3, 45), (12, 60)])
def test_a_clip_is_shown_at_its_own_pace_unless_it_is_short_or_long(tmp_path: Path, seconds: int, count: int):
    """At 15 frames per second: not under 1.6 and not over 4 seconds."""
    clip = write(tmp_path / "c.mp4", greys(10 * seconds, 8))
    found = display_frames(Medium("c", str(clip)), None, FrameSampling(8))
    assert len(found.frames) == count and found.frames.shape[1:] == (32, 64, 3)
    assert found.moments == pytest.approx((np.arange(count) + 0.5) / count)
    assert found.seconds == pytest.approx(found.moments * seconds, abs=0.01)
    with av.open(str(clip)) as container:
        whole = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    expected = [whole[int(second * 10 + 1e-6)] for second in found.seconds]
    assert found.frames.mean((1, 2, 3)) == pytest.approx(expected, abs=1)


def test_the_cells_of_the_head_of_a_clip_lie_in_its_head(tmp_path: Path):
    """Of 3 seconds at 10 frames the captioner sees the first ten: frame k at k/10 s is share (k + .5)/10 of its cells'
    time, and what comes later is after their end."""
    clip = write(tmp_path / "c.mp4", greys(30, 5))
    found = display_frames(Medium("c", str(clip)), None, FrameSampling(10, "head"))
    assert found.seconds is not None and found.seconds[-1] == pytest.approx(2.97, abs=0.01)
    early = found.seconds < 0.9
    assert found.moments[early] == pytest.approx(found.seconds[early] + 0.05, abs=0.001)
    assert found.moments[~early] == pytest.approx(0.95)


def test_only_the_given_part_of_a_clip_is_shown(tmp_path: Path):
    clip = write(tmp_path / "c.mp4", greys(40, 5))
    found = display_frames(Medium("c", str(clip), start=1.0, end=3.0), None, FrameSampling(4))
    assert len(found.frames) == 30 and found.seconds is not None
    assert (found.seconds[0], found.seconds[-1]) == pytest.approx((1.03, 2.97), abs=0.01)
    assert shown(found.frames, 5)[0] == 10 and shown(found.frames, 5)[-1] == 29


@pytest.mark.parametrize("policy", ["uniform", "head", "tail", "every"])
def test_a_clip_of_one_frame_is_shown(tiny: Path, tmp_path: Path, policy: str):
    clip = write(tmp_path / "c.mp4", greys(1))
    found = display_frames(Medium("c", str(clip)), None, FrameSampling(4, policy))  # type: ignore[arg-type]
    assert len(found.frames) == 24 and np.isfinite(found.moments).all()
    assert ((found.moments >= 0) & (found.moments <= 1)).all()
    loaded = load_explanation_input(load_run(tiny / "run"), str(clip))
    assert loaded.features.layout == Layout(4, 4, 4)
    assert (
        explain(
            load_run(tiny / "run").model, loaded.features, sentence_from_text(VOCABULARY, "a"), "saliency"
        ).maps.shape[1]
        == 64
    )


def test_the_encoder_says_what_it_saw(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        SmallCNN, "kept_region", lambda encoder, height, width: (height / width, 0, 2 * height / width, 1)
    )
    Image.new("RGB", (30, 10)).save(tmp_path / "x.png")
    assert load_explanation_input(load_run(tiny / "run"), str(tmp_path / "x.png")).display.kept_region == (
        1 / 3,
        0,
        2 / 3,
        1,
    )


def test_features_without_pictures_are_shown_on_plain_frames(tmp_path: Path):
    run = load_run(feature_run(tmp_path))
    found = load_explanation_input(run, "v2")
    assert found.features.layout == Layout(6, 1, 1) and len(found.display.frames) == 24 and found.notes == ()
    assert np.ptp(found.display.frames) == 0 and found.display.seconds is None
    assert load_explanation_input(run, "v1").features.layout == Layout(5, 1, 1)


def test_features_are_shown_on_their_clip(tmp_path: Path):
    """The data set says where the clip lies; one that is not there is no error."""
    (tmp_path / "clips").mkdir()
    write(tmp_path / "clips" / "v1.mp4", greys(20))
    run = load_run(feature_run(tmp_path, str(tmp_path / "clips")))
    found = load_explanation_input(run, "v1")
    assert len(found.display.frames) == 30 and found.display.seconds is not None and found.notes == ()
    assert len(load_explanation_input(run, "v2").display.frames) == 24
    (tmp_path / "captions.jsonl").unlink()
    found = load_explanation_input(run, "v1")
    assert len(found.display.frames) == 24 and "no image of v1" in found.notes[0]


def test_unknown_ids_and_unsuitable_files_are_refused(tiny: Path, tmp_path: Path):
    run = load_run(feature_run(tmp_path))
    with pytest.raises(
        ValueError, match=r"v3: not in .*rows, which has 2 ids.*; give a file, or an id of the features"
    ):
        load_explanation_input(run, "v3")
    clip = write(tmp_path / "c.mp4", greys(3))
    with pytest.raises(
        ValueError, match="reads features of an unknown encoder: give the id of stored features instead of"
    ):
        load_explanation_input(run, str(clip))
    with pytest.raises(ValueError, match="leave out --frames"):
        load_explanation_input(run, "v1", frames=3)
    with pytest.raises(MediaError, match="there is no such file"):
        load_explanation_input(load_run(tiny / "run"), "nowhere.png")
