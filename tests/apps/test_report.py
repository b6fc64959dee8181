"""The viewer: pictures, captions, n-best and scores; text stays text, and a reader can search and sort."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import main
from limner.apps.shared import html_report
from limner.apps.shared.html_report import report_of_files, scores
from limner.apps.shared.journal import Journal
from limner.data.captions_file import CaptionsFile, read_captions
from limner.inference.pieces import Problems
from limner.inference.pipeline import Pipeline
from limner.metrics.references import References
from limner.metrics.report import evaluate
from tests.browser import CHROMIUM, chromium
from tests.comparison.test_page import HOSTILE, Reader
from tests.comparison.world import REFERENCES, data_set
from tests.data.videos import write
from tests.training.world import clip

ABOUT = {"captions of": "runs/dog", "decoding": {"size": 3}}


def row(file: str, caption: str, logprob: float = -1.5, **more: object) -> dict:
    return {"file": file, "caption": caption, "logprob": logprob, "finished": True, **more}


ROWS = [
    row("d/x.png", "a red dog runs", -2.5, others=[["a dog is running on grass", -3.25]]),
    row("d/y.png", "a car", -9.0, others=[["two cats sleep", -9.5]]),
    row("d/z.png", "the bird", -1.0),
    row("d/new.png", "a bird in a tree", -4.0),
]


def references(**captions: tuple[str, ...]) -> CaptionsFile:
    return CaptionsFile("refs.json", "JSON", captions or dict(REFERENCES))


def cards(text: str) -> dict[str, dict[str, str | None]]:
    """The attributes of every card by its caption."""
    return {str(m["data-caption"]): m for m in Reader(text).named("li") if "data-order" in m}


def test_every_caption_has_the_scores_that_limner_score_gives():
    """And so has every further one: as if it were the caption, against the same references."""
    text, notes = report_of_files(ROWS, ABOUT, references=references())
    known = References({id: REFERENCES[id] for id in "xyz"})
    first = evaluate({"x": "a red dog runs", "y": "a car", "z": "the bird"}, known).segments
    other = evaluate({"x": "a dog is running on grass", "y": "two cats sleep", "z": ""}, known).segments
    found = scores(ROWS, references())
    assert [found.ranks[0]["CIDEr"][k] for k in range(3)] == [line["CIDEr"] for line in first]
    assert found.ranks[1]["CIDEr"] == {0: other[0]["CIDEr"], 1: other[1]["CIDEr"]}  # z has no second caption
    assert cards(text)["a car"]["data-score0"] == str(first[1]["CIDEr"])
    assert "data-score0" not in cards(text)["a bird in a tree"]
    assert "1 of 4 captions have no references and no scores" in notes
    assert found.report is not None and found.report.protocol["images"] == 3
    texts = Reader(text).texts
    assert "log p \u22122.50" in texts and "log p \u22123.25" in texts and "two cats sleep" in " ".join(texts)
    assert "a pair of cats" in texts


def test_pieces_of_clips_find_their_references():
    """They are called as in MSVD: the clip's name, begin and end."""
    rows = [row("a/Xy_0.avi", "a dog", start=0.0, end=2.5), row("a/Xy_0.avi", "a cat", start=2.5, end=7.0)]
    found = scores(rows, references(**{"Xy_0_2.5_7": ("a cat sleeps",)}))
    assert list(found.texts) == [1] and found.texts[1] == ("a cat sleeps",)


def test_whatever_the_model_says_is_text():
    rows = [row(f"{HOSTILE}.png", HOSTILE, others=[[HOSTILE, -2.0]]), row("b.png", "</script><b>")]
    refs = references(**{HOSTILE: (HOSTILE,), "b": ("a",)})
    text, _ = report_of_files(
        rows, {"captions of": HOSTILE, HOSTILE: HOSTILE}, references=refs, problems=Problems([HOSTILE], [HOSTILE])
    )
    read = Reader(text)
    assert [m.get("type") for m in read.named("script")] == ["application/json", None]
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on") or name == "href"]
    (policy,) = (m["content"] for m in read.named("meta") if m.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert len([seen for seen in read.texts if "alert(1)" in seen and "\ufffd" in seen]) >= 5
    assert "http" not in text.replace("http-equiv", "")


def test_pictures_lie_inside_and_the_page_stays_small(tmp_path: Path, monkeypatch):
    folder = data_set(tmp_path / "d")
    clip(folder / "v.mp4")
    rows = [row(str(folder / "x.png"), "a"), row(str(folder / "v.mp4"), "b", start=0.0, end=1.0), row("gone.png", "c")]
    text, notes = report_of_files(rows, ABOUT)
    pictures = Reader(text).named("img")
    assert [m["width"] for m in pictures] == ["30", str(3 * 16 + 2 * 4)]
    assert "v.mp4 00:00:00.0 \u2013 00:00:01.0" in " ".join(Reader(text).texts)
    assert len(notes) == 1 and "1 of 3 items are shown without their image" in notes[0] and "gone.png" in notes[0]
    monkeypatch.setattr(html_report, "IMAGE_BYTES", 1)
    text, notes = report_of_files(rows, ABOUT)
    assert Reader(text).named("img") == [] and notes[1].startswith("2 images were left out to keep the page small")
    assert "No captions." in Reader(report_of_files([], ABOUT)[0]).texts


def test_a_picture_s_alternative_text_is_its_caption(tmp_path: Path):
    """For those who do not see it; where the caption is empty it says what there is."""
    folder = data_set(tmp_path / "d")
    rows = [row(str(folder / "x.png"), 'a "red" dog'), row(str(folder / "y.png"), "")]
    assert [m["alt"] for m in Reader(report_of_files(rows, ABOUT)[0]).named("img")] == [
        'a "red" dog',
        "image of y.png",
    ]


def test_how_captions_were_made_names_no_folder_of_this_machine(tmp_path: Path):
    about = {"captions of": "/home/me/runs/dog", "decoding": {"size": 3}, "members": ["/home/me/runs/cat", "runs/cat"]}
    rows = [row(f"{tmp_path}/x.png", "a"), row(f"{tmp_path}/y.png", "b")]
    text = report_of_files(rows, about)[0]
    facts = text[text.index("<h2>How they were made") :].partition("<script")[0]
    assert "/home" not in text.partition("<script")[0] and str(tmp_path) not in facts
    texts = Reader(facts).texts
    assert texts[texts.index("captions of") + 1] == "dog" and texts[texts.index("files") + 1] == tmp_path.name
    assert texts[texts.index("decoding.size") + 1] == "3" and texts[texts.index("members") + 1] == "['cat', 'runs/cat']"


def test_a_piece_of_a_clip_has_its_own_frames(tmp_path: Path):
    path = str(
        write(
            tmp_path / "v.mp4", [*[np.zeros((16, 16, 3), np.uint8)] * 10, *[np.full((16, 16, 3), 200, np.uint8)] * 10]
        )
    )
    rows = [row(path, "dark", start=0.0, end=1.0), row(path, "light", start=1.0, end=2.0)]
    strips = [str(m["src"]) for m in Reader(report_of_files(rows, ABOUT)[0]).named("img")]
    bytes_of = [base64.b64decode(strip.removeprefix("data:image/jpeg;base64,")) for strip in strips]
    dark, light = (np.asarray(Image.open(io.BytesIO(data)))[:, :16].mean() for data in bytes_of)
    assert dark < 10 and light > 190


def test_from_the_command_line(tiny: Path, tmp_path: Path, capsys):
    world, out = tiny / "world", tmp_path / "r.html"
    (tmp_path / "bad.png").write_text("no picture")
    pictures = [str(world / "images" / f"00000{n}.png") for n in (1, 2)]
    refs = tmp_path / "refs.json"
    refs.write_text(json.dumps({"000001": ["a red circle"], "000002": ["a blue square", "a square"]}))
    command = ["caption", *pictures, str(tmp_path / "bad.png"), "--model", str(tiny / "run"), "--n-best", "2"]
    assert main([*command, "--out", str(out), "--references", str(refs)]) == 3
    assert f"{out}: 2 captions" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    best = Pipeline.load(tiny / "run").caption(pictures[0]).text
    assert best in cards(text) and len(Reader(text).named("img")) == 2
    assert any("bad.png: not an image" in line for line in Reader(text).texts)
    assert "a red circle" in Reader(text).texts and "Captions of run" in Reader(text).texts
    assert list(Journal(out, True, {}).rows) == pictures  # a report can be continued as any other output
    (tmp_path / "r.html.partial").unlink()
    before = text
    assert main([*command, "--out", str(out), "--references", str(refs), "--resume"]) == 3
    assert out.read_text(encoding="utf-8") == before
    out.write_text("<html>")
    assert main([*command, "--out", str(out), "--resume"]) == 1
    assert "is no report of this command" in capsys.readouterr().err


def test_references_that_do_not_belong(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    refs, picture = tmp_path / "refs.json", str(tiny / "world" / "images" / "000001.png")
    refs.write_text('{"other": ["a dog"]}')
    monkeypatch.setattr(Pipeline, "load", lambda *_: pytest.fail("too late"))
    command = ["caption", picture, "--model", str(tiny / "run"), "--references", str(refs)]
    assert main([*command, "--out", str(tmp_path / "r.html")]) == 1
    assert "They have no id in common: are they of the same dataset?" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "r.csv")]) == 2
    assert "--references are for a report: give --out report.html" in capsys.readouterr().err
    rows = [row("v.mp4", "a dog", start=0.0, end=1.0)]
    assert scores(rows, read_captions(refs)).notes[0].startswith("there are no scores: the ids of the captions and")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_reader_searches_and_sorts(tmp_path: Path):
    folder = data_set(tmp_path / "d")
    rows = [{**line, "file": str(folder / Path(line["file"]).name)} for line in ROWS]
    (tmp_path / "r.html").write_text(report_of_files(rows, ABOUT, references=references())[0], encoding="utf-8")
    with chromium(tmp_path / "profile") as tab:
        tab.open(tmp_path / "r.html", width=390)
        assert tab.ask("document.documentElement.scrollWidth") <= 390

        def shown() -> list[str]:
            script = "[...document.querySelectorAll('#cards > li:not([hidden])')].map(li => li.dataset.caption)"
            return tab.ask(script)

        def put(name: str, value: str) -> None:
            field = "checked" if name == "down" else "value"
            tab.ask(f"{name}.{field} = {value}; {name}.dispatchEvent(new Event('input'))")

        given = [line["caption"] for line in rows]
        assert shown() == given and tab.ask("count.textContent") == "4 shown"
        put("key", "'logprob'")
        assert shown() == ["a car", "a bird in a tree", "a red dog runs", "the bird"]
        put("down", "true")
        assert shown() == ["the bird", "a red dog runs", "a bird in a tree", "a car"]
        put("key", "'score0'")
        assert shown()[0] == "a red dog runs" and shown()[-1] == "a bird in a tree"  # without a score it comes last
        put("words", "'BIRD  tree'")  # in the caption, or among the references
        assert sorted(shown()) == ["a bird in a tree", "the bird"]
        assert tab.ask("count.textContent") == "2 of 4 shown"
        put("words", "'nothing'")
        assert shown() == [] and tab.ask("document.getElementById('cards').offsetHeight") < 40
        assert tab.requests == [(tmp_path / "r.html").resolve().as_uri()] and tab.complaints == []
