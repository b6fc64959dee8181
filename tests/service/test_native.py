"""limner's own interface: its answers are those of the pipeline, whatever the form of the request."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from limner.inference.pipeline import Pipeline
from limner.text.alt_text import alt_text
from tests.service.world import error_of, images, png, service, text_of


def test_the_three_forms_of_a_request_give_the_captions_of_the_pipeline(
    client: TestClient, pipeline: Pipeline, tiny: Path
):
    for path in images(tiny, 3):
        content, expected = path.read_bytes(), pipeline.caption(path)
        answers = [
            client.post("/v1/caption", files={"file": ("a/../dog.png", content)}),
            client.post("/v1/caption", json={"image": text_of(content), "name": "a/../dog.png"}),
            client.post("/v1/caption", json={"image": f"data:image/jpeg;base64,{text_of(content)}"}),
            client.post("/v1/caption", content=content, headers={"content-type": "image/png"}),
        ]
        for answer in answers:
            assert answer.status_code == 200
            assert answer.json()["caption"] == expected.text
            assert answer.json()["logprob"] == pytest.approx(expected.logprob, abs=1e-4)
        assert answers[1].json() == {
            "caption": expected.text, "logprob": answers[1].json()["logprob"], "finished": expected.finished,
            "others": [], "file": "a/../dog.png", "model": "tiny", "notes": [],
        }  # fmt: skip
        assert answers[0].headers["x-content-type-options"] == "nosniff"


def test_options_are_those_of_the_command(client: TestClient, pipeline: Pipeline, tiny: Path):
    (path,) = images(tiny, 1)
    files = {"file": path.read_bytes()}
    best = pipeline.caption(path, beam=4, n_best=3)
    answer = client.post("/v1/caption", files=files, data={"beam": "4", "n_best": "3"}).json()
    assert [answer["caption"], *(other["caption"] for other in answer["others"])] == [
        caption.text for caption in (best, *best.others)
    ]
    short = client.post("/v1/caption", files=files, data={"max_length": "3"}).json()
    assert short["caption"] == pipeline.caption(path, max_length=3).text
    word = best.words[-1]
    assert word not in client.post("/v1/caption", files=files, data={"never": f"{word}, a"}).json()["caption"].split()
    required = client.post("/v1/caption", files=files, data={"must": "green", "beam": "3"}).json()["caption"]
    assert "green" in required.split()
    styled = client.post("/v1/caption", files=files, data={"style": "alt-text"}).json()["caption"]
    assert styled == alt_text(pipeline.caption(path).text)


def test_words_with_attention(client: TestClient, pipeline: Pipeline, tiny: Path):
    (path,) = images(tiny, 1)
    answer = client.post("/v1/caption", files={"file": path.read_bytes()}, data={"attention": "true"}).json()
    expected = pipeline.caption(path)
    assert [word["word"] for word in answer["words"]] == list(expected.words)
    for word, weights in zip(answer["words"], expected.attention, strict=True):
        assert np.array(word["attention"]) == pytest.approx(weights, abs=1e-5)
        assert np.sum(word["attention"]) == pytest.approx(1, abs=1e-3)


def test_a_seed_draws_the_same_captions_again(client: TestClient):
    files = {"file": png()}
    drawn = [
        client.post("/v1/caption", files=files, data={"sample": "5", "seed": seed, "top_k": "20"}).json()
        for seed in ("1", "2", "1")
    ]
    assert len(drawn[0]["others"]) == 4
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beem": "3"}, "there is no option 'beem'; known are model, beam, max_length, n_best, must, never"),
        ({"beam": "many"}, "beam: input should be a valid integer"),
        ({"beam": "1000000"}, "beam: input should be less than or equal to 20"),
        ({"n_best": "9", "beam": "3"}, "a beam of 3 cannot give the 9 best captions"),
        ({"must": "zzz"}, "the vocabulary has no 'zzz', which must appear"),
        ({"must": "a,b,c,d"}, "must: value should have at most 3 items"),
        ({"temperature": "2"}, "temperature: only for drawn captions; give sample too"),
        ({"sample": "2", "beam": "2"}, "sample has no beam: leave out beam"),
        ({"shots": "1", "whole": "1"}, "every, shots and whole are three ways to cut a clip"),
        ({"model": "gpt"}, "there is no model 'gpt'; this service has tiny"),
        ({"format": "srt"}, "format srt: subtitles are of a clip, and this is an image"),
        ({"style": "haiku"}, "style: input should be 'plain' or 'alt-text'"),
    ],
)
def test_wrong_options_name_themselves(client: TestClient, fields: dict[str, str], message: str):
    status, found = error_of(client.post("/v1/caption", files={"file": png()}, data=fields))
    assert found.startswith(message) and status == (404 if "model" in fields else 400)


def test_a_clip_is_cut_and_has_subtitles(client: TestClient, clip: bytes):
    files = {"file": ("clip.mp4", clip)}
    whole = client.post("/v1/caption", files=files).json()
    assert (whole["start"], whole["end"]) == (0, 4) and len(whole["pieces"]) == 1
    shots = client.post("/v1/caption", files=files, data={"shots": "true"}).json()
    assert [(piece["start"], piece["end"]) for piece in shots["pieces"]] == [(0, 2), (2, 4)]
    assert shots["caption"] == shots["pieces"][0]["caption"] and shots["file"] == "clip.mp4"
    srt = client.post("/v1/caption", files=files, data={"shots": "true", "format": "srt"})
    texts = [piece["caption"] for piece in shots["pieces"]]
    assert srt.headers["content-type"].startswith("application/x-subrip")
    assert srt.text == (
        f"1\n00:00:00,000 --> 00:00:02,000\n{texts[0]}\n\n2\n00:00:02,000 --> 00:00:04,000\n{texts[1]}\n\n"
    )
    vtt = client.post("/v1/caption", files=files, data={"every": "1", "format": "vtt"})
    assert vtt.text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n") and vtt.text.count("-->") == 4


def test_a_batch_answers_in_order_and_names_what_cannot_be_read(client: TestClient, pipeline: Pipeline, tiny: Path):
    paths = images(tiny, 3)
    files = [("file", (path.name, path.read_bytes())) for path in paths]
    files.insert(1, ("file", ("page.jpg", b"<!doctype html><p>not found</p>")))
    results = client.post("/v1/caption/batch", files=files).json()["results"]
    assert [row.get("caption") for row in results] == [
        pipeline.caption(paths[0]).text, None, *(pipeline.caption(path).text for path in paths[1:])
    ]  # fmt: skip
    assert results[1] == {
        "file": "page.jpg",
        "error": "page.jpg: it is a web page, not what it shows; download the file itself",
    }
    assert [row["file"] for row in results] == [paths[0].name, "page.jpg", paths[1].name, paths[2].name]
    texts = [text_of(path.read_bytes()) for path in paths]
    by_json = client.post("/v1/caption/batch", json={"images": texts, "beam": 1}).json()["results"]
    expected = [pipeline.caption(path, beam=1) for path in paths]
    assert [row["caption"] for row in by_json] == [caption.text for caption in expected]
    assert [row["logprob"] for row in by_json] == pytest.approx([it.logprob for it in expected], abs=1e-4)


def test_explanations_are_figures_and_films(client: TestClient, clip: bytes):
    figure = client.post("/v1/explain", files={"file": png()}, data={"sentence": "a red circle"})
    assert figure.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(figure.content)).size[0] > 500
    film = client.post("/v1/explain", files={"file": clip}, data={"sentence": "red"})
    assert film.headers["content-type"] == "video/mp4" and film.content[4:8] == b"ftyp"
    status, message = error_of(client.post("/v1/explain", files={"file": png()}, data={"method": "magic"}))
    assert (status, message) == (400, "method 'magic': this model has attention, gradcam, gradcam++, saliency")
    status, message = error_of(client.post("/v1/explain", files={"file": png()}, data={"sentence": " "}))
    assert status == 422 and "has no word in it" in message


def test_models_and_health(client: TestClient, pipeline: Pipeline):
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "tiny" and model["fingerprint"] == pipeline.fingerprint()
    assert model["frames"] == 4 and model["decoding"]["size"] == 2 and model["methods"][0] == "attention"
    assert client.get("/v1/models/tiny").json() == model
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/healthz").text == client.get("/readyz").text == "ok\n"


def test_metrics_count_what_was_done(pipeline: Pipeline):
    with service(pipeline) as running:
        for _ in range(3):
            running.post("/v1/caption", files={"file": png()})
        running.post("/v1/caption", files={"file": b"no image"})
        running.get("/secret/path")
        text = running.get("/metrics").text
    assert 'limner_requests_total{route="/v1/caption",status="200"} 3.0' in text
    assert 'limner_requests_total{route="/v1/caption",status="422"} 1.0' in text
    assert 'limner_requests_total{route="other",status="404"} 1.0' in text and "secret" not in text
    assert "limner_captions_total 3.0" in text and "limner_waiting_media 0.0" in text
    assert "limner_buffered_bytes 0.0" in text and 'limner_refused_total{code="unreadable"} 1.0' in text


def test_a_service_that_stops_is_not_ready(pipeline: Pipeline):
    with service(pipeline) as running:
        running.engine.batcher.close()
        assert running.get("/readyz").status_code == 503 and running.get("/healthz").status_code == 200
