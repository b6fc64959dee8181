"""The page of the service without a browser: it loads nothing from elsewhere, and what it asks for is answered."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import limner
from limner.client import Client
from limner.explanations.overlay import above_mean
from limner.inference.pipeline import Pipeline
from limner.service import web_page
from limner.service.app import Settings
from limner.service.web_page import page_files
from tests.service.world import error_of, images, png, served, service

POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data: blob:",
    "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
    "frame-ancestors": "'none'",
}  # fmt: skip
MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc")


class Tags(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_every_file_has_the_policy_and_its_type(client: TestClient):
    kinds = {"/": "text/html", **{f"/page/{name}": web_page.TYPES[Path(name).suffix] for name in page_files()}}
    assert len(kinds) >= 12
    for path, kind in kinds.items():
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].partition(";")[0] == kind
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert client.head("/").status_code == 200  # programs ask so whether Ollama is there
    assert "/page/" not in client.get("/openapi.json").text
    for path in ("/page/", "/page/nothing.js", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/__init__.py"):
        assert client.get(path).status_code == 404


def test_the_page_uses_its_own_files_only_and_makes_no_markup_of_texts():
    """So captions and names are never HTML: all texts become text nodes."""
    content = {name: data.decode() for name, data in page_files().items()}
    tags = Tags(content["index.html"]).found
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    links = [str(value) for _, it in tags for name, value in it.items() if name in ("src", "href") and value != "#main"]
    assert links and {link.removeprefix("/page/") for link in links} <= content.keys()
    for name, text in content.items():
        assert re.findall(r"(?:https?:)?//[a-z0-9.]+\.[a-z]+", text.replace("http://www.w3.org/2000/svg", "")) == [], (
            name
        )
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= content.keys()
        assert [word for word in MARKUP if word in text] == [], name
    assert "url(" not in content["style.css"] and "@import" not in content["style.css"]


def test_labels_and_roles_point_to_what_is_there():
    tags = Tags(page_files()["index.html"].decode()).found
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {str(it[name]) for _, it in tags for name in ("for", "aria-controls", "aria-labelledby") if name in it}
    assert named <= set(ids)
    fields = {it["id"] for tag, it in tags if tag in ("input", "select", "progress") and it.get("type") != "checkbox"}
    assert fields <= {it["for"] for tag, it in tags if tag == "label" and "for" in it}


def test_the_page_is_there_without_the_token_and_its_examples_are_not(pipeline: Pipeline):
    with service(pipeline, Settings(token="s3cret")) as client:
        assert client.get("/").status_code == client.get("/page/main.js").status_code == 200
        assert client.get("/page/examples").status_code == 401 and client.get("/v1/models").status_code == 401


def test_examples_are_photographs_of_packages_or_drawn(client: TestClient, monkeypatch):
    for there in (True, False):
        if not there:
            monkeypatch.setattr(web_page, "find_photographs", lambda: ({}, []))
        for function in (web_page._examples, web_page._thumbnails):
            function.cache_clear()
        answer = client.get("/page/examples").json()
        assert answer["max_bytes"] == 32 << 20
        for example in answer["examples"]:
            content = client.get(f"/page/examples/{example['name']}").content
            if example["name"] == web_page.CLIP:
                assert content[4:8] == b"ftyp" and example["image"] == ""
            else:
                assert max(Image.open(io.BytesIO(content)).size) >= 128
                assert max(_image(example["image"]).size) <= web_page.THUMBNAIL
        assert len(answer["examples"]) >= 2 and answer["examples"][-1]["name"] == web_page.CLIP
    assert client.get("/page/examples/no.png").status_code == 404
    for function in (web_page._examples, web_page._thumbnails):
        function.cache_clear()


def test_captions_of_calibrated_models_have_a_confidence(pipeline: Pipeline, monkeypatch):
    real = Pipeline.decode
    monkeypatch.setattr(
        Pipeline, "decode",
        lambda self, *given: [replace(it, confidence=0.62518, unfamiliar=True) for it in real(self, *given)],
    )  # fmt: skip
    with served(pipeline) as address:
        caption = Client(address).caption(png())
    assert (caption.confidence, caption.unfamiliar) == (0.6252, True)


def test_an_explanation_as_data_is_that_of_limner_explain(client: TestClient, tiny: Path):
    (path,) = images(tiny, 1)
    files = {"file": path.read_bytes()}
    for method in ("attention", "gradcam"):
        data = client.post("/v1/explain", files=files, data={"method": method, "format": "json"}).json()
        expected = limner.explain(path, tiny / "run", method=method)
        assert (data["caption"], data["method"], data["regions"]) == (expected.text, method, None)
        assert [word["word"] for word in data["words"]] == list(expected.words)
        for number, word in enumerate(data["words"]):
            assert np.array(word["map"]) == pytest.approx(expected.grid[number], abs=1e-4)
            drawn = above_mean(expected.maps[number], expected.real).reshape(expected.layout)
            assert np.array(word["shown"]) == pytest.approx(drawn, abs=1e-3)
            assert word["probability"] == pytest.approx(expected.probabilities[number], abs=1e-3)
        assert _image(data["frames"][0]["image"]).size == Image.open(path).size
        assert data["frames"][0]["seconds"] is None and data["kept_region"] == [0, 0, 1, 1]


def test_a_part_of_a_clip_can_be_explained(client: TestClient, clip: bytes):
    """The clip is red for two seconds, then green; the frames of the second half are green."""
    asked = {"sentence": "a green circle", "format": "json", "start": "2", "end": "4"}
    data = client.post("/v1/explain", files={"file": clip}, data=asked).json()
    assert len(data["frames"]) == np.array(data["words"][0]["map"]).shape[0]
    for frame in data["frames"]:
        red, green, _ = np.array(_image(frame["image"])).reshape(-1, 3).mean(0)
        assert 2 <= frame["seconds"] < 4 and green > red
    status, message = error_of(client.post("/v1/explain", files={"file": clip}, data={**asked, "start": "9"}))
    assert status == 422 and "the interval from 9.0 to 4.0 s lies outside the clip of 4.00 s" in message


def test_lines_tell_the_progress_of_a_clip_then_the_answer(client: TestClient, clip: bytes):
    asked = {"every": "0.5"}
    answer = client.post("/v1/caption", files={"file": clip}, data={**asked, "format": "jsonl"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/jsonl"
    assert [line["progress"] for line in lines[:-1]] == [
        0.125,
        0.25,
        0.375,
        0.5,
    ]  # 4 of 8 parts wait for their captions
    assert lines[-1] == {"answer": client.post("/v1/caption", files={"file": clip}, data=asked).json()}
    bad = client.post("/v1/caption", files={"file": ("page.jpg", b"<!doctype html>")}, data={"format": "jsonl"})
    (line,) = map(json.loads, bad.text.splitlines())
    assert line["status"] == 422 and line["error"]["message"].startswith("page.jpg: it is a web page")
    wrong = client.post("/v1/caption", files={"file": clip}, data={"format": "jsonl", "sample": "2", "beam": "2"})
    assert error_of(wrong) == (400, "sample has no beam: leave out beam")
    assert client.engine._admitted == 0  # type: ignore[attr-defined]


def _image(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))
