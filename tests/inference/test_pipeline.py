"""A run in use: whatever a picture is given as, the sentence is the same."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner
from limner.core.types import EOS, Captions, Layout, Medium, Pixels
from limner.data.media import MediaError
from limner.decode.options import with_beam
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.inference.pipeline import Caption, Failure, Pipeline
from limner.runs.run import load_run


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> Pipeline:
    return limner.Pipeline.load(tiny / "run")


@pytest.fixture(scope="module")
def files(tiny: Path) -> list[Path]:
    return sorted((tiny / "world" / "images").iterdir())[:7]


def test_a_picture_is_a_path_pil_array_bytes_or_medium(pipeline: Pipeline, files: list[Path]):
    path = files[0]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    expected = pipeline.caption(path)
    assert expected.text and expected.words == tuple(expected.text.split()[: len(expected.words)])
    for source in (str(path), Image.open(path), pixels, pixels[None], buffer.getvalue(), Medium("x", str(path))):
        found = pipeline.caption(source)
        assert (found.text, found.logprob) == (expected.text, expected.logprob)
        assert np.array_equal(found.attention, expected.attention)


def test_the_caption_equals_encoding_and_searching_by_hand(pipeline: Pipeline, files: list[Path]):
    """Teacher forcing of the words of the caption gives its log-probability and its attention."""
    found = pipeline.caption(files[1], Beam(2, rules=Rules(max_length=30)))
    ids = [pipeline.vocabulary.ids[word] for word in found.words]
    features = pipeline.encode(
        Pixels(pipeline.encoder.preprocess(np.asarray(Image.open(files[1]).convert("RGB"))[None])[None])
    )
    tokens = torch.tensor([[1, *ids]])
    with torch.no_grad():
        forced = pipeline.model.forward_teacher_forced(pipeline.model.encode(features), tokens)
    logp = forced.logits[0].log_softmax(-1)
    says = [*ids, EOS] if found.finished else ids
    assert found.logprob == pytest.approx(sum(logp[t, word].item() for t, word in enumerate(says)), abs=1e-4)
    np.testing.assert_allclose(
        found.attention, forced.attention[0, : len(ids)].reshape(-1, 1, 4, 4).numpy(), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(found.attention.sum((1, 2, 3)), 1, rtol=1e-5)


def test_a_clip_is_an_array_of_frames(pipeline: Pipeline, files: list[Path]):
    frames = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files[:3]])
    found = pipeline.caption(frames)
    assert found.attention.shape == (len(found.words), 3, 4, 4)
    np.testing.assert_allclose(found.attention.sum((1, 2, 3)), 1, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_captions_keep_their_order_and_a_failure_does_not_stop_the_others(
    pipeline: Pipeline, files: list[Path], tmp_path: Path, batch_size
):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    sources = [*files[:3], tmp_path / "bad.png", "nowhere.jpg", *files[3:], b"", np.zeros((2, 4, 4, 3), np.uint8)]
    results = list(pipeline.captions(sources, batch_size=batch_size))
    assert [source for source, _ in results][:10] == sources[:10]
    failed = {place: result for place, (_, result) in enumerate(results) if isinstance(result, Failure)}
    assert list(failed) == [3, 4, 9]
    assert "bad.png" in failed[3].reason and "nowhere.jpg" in failed[4].reason and failed[9].source == "<bytes>"
    for path, (_, result) in zip(files[:3], results, strict=False):
        assert isinstance(result, Caption) and result.text == pipeline.caption(path).text
    assert isinstance(results[-1][1], Caption) and results[-1][1].attention.shape[1] == 2  # among stills, a clip


def test_unreadable_sources_are_errors(pipeline: Pipeline):
    for source, message in (("nowhere.jpg", "nowhere.jpg: there is no such file"), (b"x", "<bytes>: not an image")):
        with pytest.raises(MediaError, match=message):
            pipeline.caption(source)
    assert list(pipeline.captions([])) == []


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 4), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_a_clip_of_another_kind_is_refused(pipeline: Pipeline, frames: np.ndarray):
    message = (
        rf"the array of a clip must be uint8 RGB \(T,H,W,3\) in \[0, 255\], got {frames.dtype} \({frames.shape[0]}, 8"
    )
    with pytest.raises(MediaError, match=message):
        pipeline.caption(frames)
    assert isinstance(next(pipeline.captions([frames]))[1], Failure)


def test_reading_tokens_by_hand(pipeline: Pipeline):
    words = pipeline.vocabulary.words
    found = Captions(
        torch.tensor([[4, 5, EOS, 0], [6, 7, 8, 4]]), torch.tensor([-1.0, -2.0]), torch.arange(16.0).reshape(2, 4, 2)
    )
    ended, cut = pipeline.to_captions(found, Layout(1, 1, 2))
    assert ended.words == (words[4], words[5]) and ended.text == f"{words[4]} {words[5]}" and ended.finished
    assert ended.attention.tolist() == [[[[0, 1]]], [[[2, 3]]]] and ended.logprob == -1
    assert cut.words == (words[6], words[7], words[8], words[4]) and not cut.finished and len(cut.attention) == 4


def test_options_replace_those_of_the_recipe(pipeline: Pipeline, files: list[Path]):
    default = pipeline.run.recipe.decoding
    assert default == Beam(2, rules=Rules(max_length=10)) and with_beam(default) == default
    changed = with_beam(default, 4, 0.5, min_length=3, max_length=None)
    assert changed == Beam(4, 0.5, Rules(min_length=3, max_length=10))
    found = pipeline.caption(files[0], with_beam(default, min_length=6, max_length=7))
    assert len(found.words) in (6, 7)


def test_a_run_without_encoder_cannot_read_pictures(tiny: Path):
    from dataclasses import replace

    with pytest.raises(ValueError, match="was trained on features without a known encoder"):
        Pipeline(replace(load_run(tiny / "run"), encoder=None))


def test_a_clip_counts_for_all_its_frames(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    encoded = []
    encode = Pipeline.encode
    monkeypatch.setattr(
        Pipeline, "encode", lambda self, pixels: encoded.append(tuple(pixels.frames.shape[:2])) or encode(self, pixels)
    )
    clips = [np.full((4, 8, 8, 3), 20 * k, np.uint8) for k in range(5)]
    results = [result for _, result in pipeline.captions(clips, batch_size=8)]
    assert encoded == [(2, 4), (2, 4), (1, 4)]
    assert [result.text for result in results] == [pipeline.caption(clip).text for clip in clips]
