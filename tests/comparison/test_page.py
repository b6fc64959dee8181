"""The page as a parser reads it: whole, with nothing but text from captions, pictures in it and none missing unsaid."""

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.comparison import gallery
from limner.comparison.compare import compare
from limner.comparison.gallery import largest_differences
from limner.comparison.html import escape_html
from limner.comparison.page import comparison_page
from limner.comparison.thumbnails import make_thumbnail
from limner.core.types import Medium
from tests.comparison.world import BAD, GOOD, REFERENCES, compared_run, data_set, media
from tests.training.world import clip

EMPTY = ("meta", "img", "input", "line", "rect", "path")  # written without an end


class Reader(HTMLParser):
    """Tags in order, texts, and that every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


HOSTILE = "<script>alert(1)</script><img src=x onerror=2>&amp; \"'\x00\x1b"


def test_captions_names_ids_and_references_are_text():
    id = f"{HOSTILE}.png"
    references = {**REFERENCES, id: (HOSTILE, "a cat")}
    sides = [
        compared_run(HOSTILE, {**GOOD, id: HOSTILE}, evaluation={"protocol": {HOSTILE: HOSTILE}}),
        compared_run("b", {**BAD, id: ""}, recipe={HOSTILE: HOSTILE}),
    ]
    text, _ = comparison_page(compare(sides, media(references), "split", 10))
    read = Reader(text)
    allowed = "html head meta title style body main h1 h2 h3 h4 span b p div ul li table thead tbody tr th td small "
    allowed += "figure svg"
    assert {tag for tag, _ in read.tags} <= {
        *allowed.split(),
        "path",
        "line",
        "rect",
        "text",
        "i",
        "details",
        "summary",
    }
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on") or name == "href"]
    seen = [text for text in read.texts if "alert(1)" in text]
    assert len(seen) >= 6 and all("\ufffd\ufffd" in text and "&amp; \"'" in text for text in seen)
    assert "\x00" not in text and "(empty)" in read.texts


def test_the_page_asks_for_nothing():
    text, _ = comparison_page(compare([compared_run("a", GOOD), compared_run("b", BAD)], media(), "split", 10))
    policy = {m["content"] for m in Reader(text).named("meta") if m.get("http-equiv") == "Content-Security-Policy"}
    assert policy == {"default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text


def test_long_and_unprintable_text_is_cut_and_replaced():
    assert escape_html("a\ud800\x85b") == "a\ufffd\ufffdb"
    assert escape_html("x" * 600) == "x" * 500 + "… (600 characters)"


def test_the_items_that_differ_most_come_first():
    """By CIDEr the good captions lead in y, z and w; x has the same caption twice and stands nowhere."""
    found = compare([compared_run("a", BAD), compared_run("b", GOOD)], media(), "split", 10)
    gain = found.runs[1].segments["CIDEr"] - found.runs[0].segments["CIDEr"]
    up, down = largest_differences(found, 1, 12)
    assert [found.ids[i] for i in sorted(up)] == ["y", "z", "w"] and down == []
    assert list(gain[up]) == sorted(gain[up], reverse=True)
    back = compare([compared_run("b", GOOD), compared_run("a", BAD)], media(), "split", 10)
    assert largest_differences(back, 1, 2) == ([], up[:2])


def test_pictures_are_in_the_page_and_those_missing_are_counted(tmp_path: Path, monkeypatch):
    folder = data_set(tmp_path / "data")
    known = {id: replace(medium, path=str(folder / f"{id}.png")) for id, medium in media().items()}
    clip(tmp_path / "z.mp4")
    known["z"] = replace(known["z"], path=str(tmp_path / "z.mp4"))
    known["w"] = replace(known["w"], path=str(folder / "nowhere.png"))
    found = compare([compared_run("a", BAD), compared_run("b", GOOD)], known, "split", 10)
    text, problems = comparison_page(found)
    pictures = {m["alt"]: m for m in Reader(text).named("img")}
    assert set(pictures) == {"image of y", "3 frames of z"}
    data = base64.b64decode(str(pictures["image of y"]["src"]).removeprefix("data:image/jpeg;base64,"))
    assert np.asarray(Image.open(io.BytesIO(data))).mean() == pytest.approx(60, abs=1)
    assert (pictures["image of y"]["width"], pictures["image of y"]["height"]) == ("30", "20")
    assert pictures["3 frames of z"]["width"] == str(3 * 16 + 2 * 4)
    assert len(problems) == 1 and problems[0].startswith("1 of 3 items are shown without their image")
    assert "nowhere.png" in problems[0] and "nowhere.png" in text
    monkeypatch.setattr(gallery, "MAX_THUMBNAIL_BYTES", 0)
    _, problems = comparison_page(found)
    assert problems[1] == "2 images were left out to keep the page small; show fewer items with --items N"


def test_a_large_picture_becomes_small(tmp_path: Path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    found = make_thumbnail(Medium("p", str(tmp_path / "p.png")))
    assert (found.width, found.height, found.frames) == (360, 270, 1) and len(found.uri) < 120_000


def test_what_a_reader_needs_to_know_is_there():
    about = {"decoding": {"size": 5}, "protocol": {"tokenizer": "simple"}}
    sides = [
        compared_run("a", GOOD, evaluation=about),
        compared_run("b", BAD, evaluation={**about, "decoding": {"size": 1}}),
    ]
    single = media({id: texts[:1] for id, texts in REFERENCES.items()})
    text, _ = comparison_page(compare(sides, single, "split", 10))
    texts = Reader(text).texts
    assert "decoding.size" in texts and any("4 items are few" in line for line in texts)
    assert "Not shown: 4 of 4 items have a single reference." in texts


def test_many_references_are_folded():
    many = media({id: texts * 3 for id, texts in REFERENCES.items()})
    text, _ = comparison_page(compare([compared_run("a", GOOD), compared_run("b", BAD)], many, "split", 10))
    assert Reader(text).texts.count("4 more") == 3
