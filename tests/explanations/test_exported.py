"""The attention of an exported captioner is that of the run from which it was exported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("onnxruntime")

from limner.core.types import Medium, Pixels
from limner.data.frames import FrameSampling
from limner.explanations.clip_sentence import captioned
from limner.explanations.explanation_input import display_frames
from limner.explanations.exported import explain_exported
from limner.explanations.maps import Explanation, explain, sentence_from_text
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.onnx.pixels import Preprocess
from limner.inference.pipeline import Pipeline
from tests.data.videos import moving, write


def of_the_run(tiny: Path, medium: Medium, clip: str | None, text: str | None) -> Explanation:
    """The same by PyTorch."""
    pipeline = Pipeline.load(tiny / "run", clip=clip)
    with torch.no_grad():
        features = pipeline.encode(Pixels(pipeline.read(medium, [])[0][None]))
    given = None if text is None else sentence_from_text(pipeline.vocabulary, text)
    decoding = pipeline.decoding.bind(pipeline.vocabulary)
    sentence, weights = captioned(pipeline.run, features, decoding, pipeline.clip, given)
    return explain(pipeline.model, features, sentence, "attention", weights)


@pytest.mark.parametrize("text", [None, "a red circle and a zebra"])
@pytest.mark.parametrize(("kind", "clip"), [("image", None), ("clip", None), ("clip", "middle"), ("clip", "mosaic")])
def test_it_is_that_of_pytorch(
    tiny: Path, exported: Path, tmp_path: Path, kind: str, clip: str | None, text: str | None
):
    path = sorted((tiny / "world" / "images").iterdir())[0]
    medium = Medium("", str(path if kind == "image" else write(tmp_path / "a.mp4", moving(12))))
    pipeline = OnnxPipeline.load(exported, clip=clip)
    given = None if text is None else sentence_from_text(pipeline.vocabulary, text)
    found = explain_exported(pipeline, pipeline.read(medium, [])[0], None, given)
    expected = of_the_run(tiny, medium, clip, text)
    assert (found.text, found.words, found.layout) == (expected.text, expected.words, expected.layout)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert found.method == "attention" and found.regions is None


def test_a_model_without_attention_is_refused(exported: Path):
    pipeline = OnnxPipeline.load(exported)
    pipeline.model.manifest = replace(pipeline.model.manifest, attends=False)
    with pytest.raises(ValueError, match="has no attention: it looks at all cells alike at every word"):
        explain_exported(pipeline, np.zeros((1, 32, 32, 3), np.uint8))


def test_the_service_draws_the_same_maps(tiny: Path, exported: Path):
    pytest.importorskip("fastapi")
    from tests.service.world import error_of, service

    answers: list[dict[str, Any]] = []
    content = sorted((tiny / "world" / "images").iterdir())[0].read_bytes()
    for pipeline in (Pipeline.load(tiny / "run"), OnnxPipeline.load(exported)):
        with service(pipeline) as client:
            asked = {"files": {"file": content}, "data": {"format": "json", "method": "attention"}}
            answers.append(json.loads(client.post("/v1/explain", **asked).content))
            methods = client.get("/v1/models").json()["data"][0]["methods"]
            refused = client.post("/v1/explain", files={"file": content}, data={"method": "magic"})
            assert error_of(refused) == (400, f"method 'magic': this model has {', '.join(methods)}")
    assert methods == ["attention"]
    ours, theirs = answers
    assert ours["frames"] == theirs["frames"] and ours["kept_region"] == theirs["kept_region"]
    for one, other in zip(ours["words"], theirs["words"], strict=True):
        assert one["word"] == other["word"]
        np.testing.assert_allclose(one["map"], other["map"], atol=2e-5)


def test_the_map_lies_where_the_crop_was(tmp_path: Path):
    """Of an image of 200 x 100 the shorter side becomes 50, and of 50 x 100 the central 40 x 40 is kept."""
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    resize = Preprocess(edge=50, crop=(40, 40))
    shown = display_frames(Medium("", str(tmp_path / "a.png")), resize, FrameSampling(1))
    assert shown.kept_region == pytest.approx((0.3, 0.1, 0.7, 0.9))
    assert Preprocess(size=(40, 40)).kept_region(100, 200) == (0, 0, 1, 1)
