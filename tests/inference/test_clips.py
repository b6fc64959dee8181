"""A captioner of images on clips: consensus of the frames, the middle frame, or all frames as one large image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import limner
from limner.core.types import BOS, EOS, Features, Layout, Pixels
from limner.data.datasets import DataConfig
from limner.data.media import read_image
from limner.decode.clip_options import clip_method
from limner.decode.options import Beam, Sample
from limner.decode.search import search
from limner.inference.load import CaptionPipeline
from limner.metrics.consensus import consensus
from limner.runs.clip_search import search_clips
from limner.runs.run import load_run, media_of_data
from limner.runs.trained_media import trained_media
from tests.export.worlds import random_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of images with random weights and peaked distributions."""
    from limner.models.show_attend_tell import ShowAttendTellConfig

    folder = random_run(tmp_path_factory.mktemp("clips") / "run", ShowAttendTellConfig(hidden=16, embed=8, attention=8))
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"media": ""', '"media": "images"'))
    return folder


@pytest.fixture(scope="module")
def clips(tiny: Path) -> list[np.ndarray]:
    """Clips of 3, 1, 4 and 3 frames: pictures of the micro-world."""
    files = sorted((tiny / "world" / "images").iterdir())
    pictures = np.concatenate([read_image(file) for file in files[:11]])
    return [pictures[:3], pictures[3:4], pictures[4:8], pictures[8:]]


def logprob(pipeline: limner.Pipeline, frame: np.ndarray, text: str, finished: bool) -> float:
    """Log-probability of a sentence about a picture, by teacher forcing."""
    ids = [pipeline.vocabulary.ids[word] for word in text.split()] + [EOS] * finished
    pixels = Pixels(pipeline.encoder.preprocess(frame[None])[None])
    with torch.no_grad():
        memory = pipeline.model.encode(pipeline.encode(pixels))
        forced = pipeline.model.forward_teacher_forced(memory, torch.tensor([[BOS, *ids[:-1]]]))
    return float(forced.logits[0].log_softmax(-1)[range(len(ids)), ids].sum())


def test_the_consensus_is_that_of_the_sentences_of_all_frames(model: Path, clips: list[np.ndarray]) -> None:
    """Slow twin: every frame captioned as a picture with its 8 best, then the choice among all of them."""
    pipeline = limner.Pipeline.load(model)
    assert pipeline.clip == "consensus"
    for clip in clips:
        candidates = []
        for frame in clip:
            best = pipeline.caption(frame, beam=8, n_best=8)
            candidates += [best, *best.others]
        words = [[pipeline.vocabulary.ids[word] for word in each.text.split()] for each in candidates]
        chosen = candidates[consensus(words, np.array([each.logprob for each in candidates]))[0]]
        found = pipeline.caption(clip)
        if len(clip) == 1:  # a clip of one frame is an image
            assert (found.text, found.logprob) == (pipeline.caption(clip[0]).text, pipeline.caption(clip[0]).logprob)
            continue
        assert found.text == chosen.text
        values = np.array([logprob(pipeline, frame, found.text, found.finished) for frame in clip])
        assert found.logprob == pytest.approx(np.log(np.exp(values).mean()), abs=1e-4)
        assert found.attention.shape == (len(found.words), len(clip), 4, 4)
        share = np.exp(values) / np.exp(values).sum()
        np.testing.assert_allclose(found.attention.sum((2, 3)), np.tile(share, (len(found.words), 1)), atol=1e-4)


def test_clips_of_different_lengths_are_captioned_as_one_by_one(model: Path, clips: list[np.ndarray]) -> None:
    for method in ("consensus", "mosaic", "middle"):
        pipeline = limner.load(model, clip=method)
        together = [caption.text for _, caption in pipeline.captions(clips, batch_size=16)]
        assert together == [pipeline.caption(clip).text for clip in clips]


def test_the_middle_frame_is_captioned_as_a_picture(model: Path, clips: list[np.ndarray]) -> None:
    pipeline = limner.load(model, clip="middle")
    found, alone = pipeline.caption(clips[2]), pipeline.caption(clips[2][2])
    assert (found.text, found.logprob) == (alone.text, pytest.approx(alone.logprob, abs=1e-5))
    np.testing.assert_allclose(found.attention[:, 2], alone.attention[:, 0], atol=1e-5)
    assert found.attention.sum() == pytest.approx(found.attention[:, 2].sum())


def test_a_mosaic_is_one_search_over_all_cells(model: Path, clips: list[np.ndarray]) -> None:
    pipeline = limner.Pipeline.load(model, clip="mosaic")
    features = pipeline.encode(Pixels(pipeline.encoder.preprocess(clips[0])[None]))
    output = search(pipeline.model, features, pipeline.decoding.bind(pipeline.vocabulary))
    expected = pipeline.to_captions(output, Layout(3, 4, 4))
    assert pipeline.caption(clips[0]).text == expected[0].text


def test_further_sentences_and_samples(model: Path, clips: list[np.ndarray]) -> None:
    pipeline = limner.load(model)
    best = pipeline.caption(clips[0], n_best=3, beam=3)
    texts = [best.text, *(other.text for other in best.others)]
    assert len(set(texts)) == 3 and texts[0] == pipeline.caption(clips[0]).text
    torch.manual_seed(0)
    drawn = pipeline.caption(clips[0], Sample(4))
    assert 1 <= 1 + len(drawn.others) <= 4 and np.isfinite(drawn.logprob)
    assert pipeline.caption(clips[0], must=("dog",)).text.split().count("dog") >= 1


def test_frames_that_only_fill_up_a_batch_say_nothing(model: Path) -> None:
    """Stored features of a clip of two frames, padded to three."""
    run = load_run(model)
    grid = 3 * torch.randn(1, 2, 4, 12, generator=torch.Generator().manual_seed(1))
    short = Features(grid.flatten(1, 2), torch.ones(1, 8, dtype=torch.bool), Layout(2, 2, 2))
    mask = torch.arange(12)[None] < 8
    padded = Features(torch.cat([short.grid, torch.zeros(1, 4, 12)], 1), mask, Layout(3, 2, 2))
    a, b = (search_clips(run.model, each, Beam(4), "consensus") for each in (short, padded))
    assert torch.equal(a.tokens, b.tokens)
    torch.testing.assert_close(a.attention, b.attention[..., :8])
    assert b.attention[..., 8:].sum() == 0


def test_the_exported_model_says_the_same(tiny: Path, exported: Path, clips: list[np.ndarray]) -> None:
    for method in (None, "middle", "mosaic"):
        torch_pipeline, onnx = limner.load(tiny / "run", clip=method), limner.load(exported, clip=method)
        assert torch_pipeline.clip == onnx.clip == (method or "consensus")
        for clip in clips[:3]:
            a, b = torch_pipeline.caption(clip, n_best=2), onnx.caption(clip, n_best=2)
            assert (a.text, [each.text for each in a.others]) == (b.text, [each.text for each in b.others])
            assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
            np.testing.assert_allclose(a.attention, b.attention, atol=1e-3)


def test_what_a_run_was_trained_on_decides(tiny: Path, model: Path) -> None:
    run = load_run(tiny / "run")
    assert (run.info.media, trained_media(run)) == ("images", "images")
    known = {name: media_of_data(replace(run.recipe, data=DataConfig(name))) for name in ("flickr8k", "msvd", "shapes")}
    assert known == {"flickr8k": "images", "msvd": "clips", "shapes": ""}  # a micro-world may hold both
    both = replace(run.recipe, data=(DataConfig("coco"), DataConfig("msvd")))
    assert media_of_data(both) == ""
    assert clip_method("", None, "m") == clip_method("clips", None, "m") == "mosaic"
    assert clip_method("", "middle", "m") == "middle"
    with pytest.raises(ValueError, match="m was trained on clips and reads all their frames together"):
        clip_method("clips", "consensus", "m")
    with pytest.raises(ValueError, match="expected one of consensus, mosaic, middle"):
        limner.load(model, clip="last")


def test_the_protocol_names_the_method(model: Path) -> None:
    assert isinstance(limner.load(model), CaptionPipeline)
