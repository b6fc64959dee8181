"""The learning page: what its data say is what the model says, and no text in it becomes HTML."""

import base64
import json
import re
import shutil
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import pytest

from limner.apps.cli import main
from limner.explanations.page import document
from limner.explanations.page.content import PageContent
from limner.explanations.page.document import page_text
from limner.explanations.page.references import find_references
from limner.inference.pipeline import Pipeline
from limner.metrics.breakdown import caption as breakdown
from limner.metrics.meteor import MissingTablesError
from limner.models.show_attend_tell import ShowAttendTell
from limner.runs.run import load_run
from tests.apps.test_cli import one_line
from tests.browser import CHROMIUM, chromium
from tests.data.videos import moving, write


@pytest.fixture(autouse=True)
def without_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(line: str, references: object) -> None:
        raise MissingTablesError("METEOR needs tables")

    monkeypatch.setattr(breakdown, "break_down_meteor", missing)


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def words_of(data: dict[str, Any], number: int) -> list[str]:
    """The words of a sentence of the tree, as the page's script puts them together."""
    choice = data["choices"][number]
    before = words_of(data, choice["p"])[: choice["at"]] if choice["p"] >= 0 else []
    return before + [data["words"][token] for token in choice["t"]]


def test_the_page_of_a_photo(tiny: Path, tmp_path: Path, capsys) -> None:
    """Its sentence, its probability and the path through the beam are those of the caption; the maps have its cells."""
    photo, out = tiny / "world" / "images" / "000003.png", tmp_path / "page.html"
    assert main(["explain", str(tiny / "run"), str(photo), "--out", str(out), "--references", str(tiny / "world")]) == 0
    caption = Pipeline.load(tiny / "run").caption(photo, beam=2)
    assert capsys.readouterr().out == f"{caption.text}\nwrote {out}\n"
    data, text = data_of(out), out.read_text()
    words = words_of(data, 0)
    ended = words[-1] == "(end)"  # or cut off at the longest length
    assert " ".join(words).removesuffix(" (end)") == caption.text and (ended or len(words) == 10)
    assert sum(data["choices"][0]["l"]) == pytest.approx(caption.logprob, abs=0.01)
    path = [data["beam"]["nodes"][i] for i in data["beam"]["path"]]
    assert [data["words"][node[3]] for node in path] == words and path[-1][5] == ("ended" if ended else "kept")
    assert path[-1][4] == pytest.approx(caption.logprob, abs=0.01)
    assert list(data["maps"]) == ["attention", "gradcam", "gradcam++", "saliency"] and data["layout"] == [1, 4, 4]
    for maps in data["maps"].values():
        assert [len(base64.b64decode(each)) for each in maps] == [16] * (len(words) - ended)
    assert len(data["frames"]) == 1 and len(text) < 1_000_000
    assert all(len(base64.b64decode(it["m"])) == 16 * len(it["t"]) for it in data["choices"][1:])
    assert "default-src 'none'" in text and "script-src 'sha256-" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "of 40" in text  # the idf weights are those of 40 images


def test_choices_have_the_probabilities_of_the_model(tiny: Path, tmp_path: Path) -> None:
    photo, out = tiny / "world" / "images" / "000003.png", tmp_path / "page.html"
    assert main(["explain", str(tiny / "run"), str(photo), "--out", str(out), "--sentence", "a circle"]) == 0
    data, run = data_of(out), load_run(tiny / "run")
    assert words_of(data, 0) == ["a", "circle", "(end)"]
    first = data["choices"][0]["a"][0]
    assert len(first) == 10 and first[1::2] == sorted(first[1::2], reverse=True)
    for number in range(1, 6):
        text = " ".join(word for word in words_of(data, number) if word != "(end)")
        choice = data["choices"][number]
        alternatives = data["choices"][0]["a"][choice["at"]]
        assert choice["t"][0] in alternatives[::2] and choice["t"][0] != data["choices"][0]["t"][choice["at"]]
        assert text.split()[0] in run.vocabulary.ids


def test_the_page_of_a_clip(tiny: Path, tmp_path: Path, capsys) -> None:
    """An image captioner reads its frames one by one: the caption's probability is the mean of theirs."""
    clip, out = write(tmp_path / "clip.mp4", moving(5)), tmp_path / "page.html"
    for how in ("consensus", "middle", "mosaic"):
        assert main(["explain", str(tiny / "run"), str(clip), "--out", str(out), "--clip", how, "--overwrite"]) == 0
        data, caption = data_of(out), Pipeline.load(tiny / "run", clip=how).caption(clip)
        assert sum(data["choices"][0]["l"]) == pytest.approx(caption.logprob, abs=0.02), how
        assert data["layout"] == [4, 4, 4] and len(data["frames"]) == len(data["seconds"]) == 16
        assert all(len(base64.b64decode(each)) == 64 for each in data["maps"]["saliency"])
        assert data["beam"]["path"] and ("The tree is that of frame" in out.read_text()) == (how == "consensus")


def test_a_model_without_attention_says_so(tiny: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(ShowAttendTell, "attends", False)
    command = ["explain", str(tiny / "run"), str(tiny / "world" / "images" / "000001.png"), "--out"]
    assert main([*command, str(tmp_path / "page.html")]) == 0
    assert "This captioner has no attention maps" in capsys.readouterr().err
    data = data_of(tmp_path / "page.html")
    assert list(data["maps"]) == ["gradcam", "gradcam++", "saliency"] and "m" not in data["choices"][1]
    assert main([*command, str(tmp_path / "b.html"), "--method", "attention"]) == 1
    assert "this captioner has no attention: choose another --method" in one_line(capsys)


def test_other_searches(tiny: Path, tmp_path: Path, capsys) -> None:
    command = ["explain", str(tiny / "run"), str(tiny / "world" / "images" / "000001.png"), "--overwrite", "--out"]
    out = tmp_path / "page.html"
    assert main([*command, str(out), "--beam", "4", "--decoding.groups", "2"]) == 0
    assert data_of(out)["beam"] is None and "Diverse beams are several beams at once" in capsys.readouterr().err
    assert main([*command, str(out), "--beam", "1", "--method", "saliency"]) == 0
    data = data_of(out)
    assert {node[2] for node in data["beam"]["nodes"] if node[5] != "outside"} == {1}
    assert next(iter(data["maps"])) == "saliency" and "greedy search" in out.read_text()


def test_no_text_is_html(tiny: Path, tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    photo = tmp_path / "<b>&.png"
    shutil.copy(tiny / "world" / "images" / "000001.png", photo)
    command = ["explain", str(tiny / "run"), str(photo), "--out", str(tmp_path / "page.html"), "--sentence", f"a {bad}"]
    assert main([*command, "--reference", f"{bad} a"]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "<img" not in text and "<b>&" not in text and text.count("</script>") == 2
    assert "&lt;b&gt;&amp;.png" in text


def break_down_caption(
    source: str, text: str, given: Sequence[str], file: str = ""
) -> breakdown.CaptionBreakdown | None:
    known = find_references(source, given, file)
    return None if known is None else breakdown.break_down(*known, text)


def test_references_are_given_or_found(tmp_path: Path) -> None:
    file = tmp_path / "refs.json"
    file.write_text(json.dumps({"7": ["a cat"], "8": ["a dog runs", "dogs"], "cat_1": ["a bird"]}))
    found = break_down_caption("photos/000008.jpg", "a dog", (), str(file))
    assert found and found.id == "8" and found.cider.media == 3
    given = break_down_caption("photos/8.jpg", "a dog", ["the dog"], str(file))
    assert given and given.references == ("the dog",) and given.cider.media == 3
    unknown = break_down_caption("new.jpg", "a dog", ["the dog"], str(file))
    assert unknown and unknown.cider.media == 4
    assert unknown.cider.weights[0].idf == pytest.approx(log(4 / 3))  # "a" is in 7, 8 and cat_1, not in "the dog"
    assert break_down_caption("new.jpg", "a dog", ()) is None
    with pytest.raises(ValueError, match="no caption with the id 'cat_2'; near ones are 'cat_1'; or give references"):
        break_down_caption("cat_2.jpg", "a dog", (), str(file))
    with pytest.raises(ValueError, match="a reference is empty"):
        break_down_caption("7.jpg", "a dog", [" "])


def test_mistakes(tiny: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    run, photo, page = str(tiny / "run"), str(tiny / "world" / "images" / "000001.png"), str(tmp_path / "p.html")
    (tmp_path / "text.png").write_text("no picture")
    for arguments, message, status in [
        ([photo, "--out", str(tmp_path / "f.png"), "--reference", "a"], "references are for a page: give --out", 2),
        ([photo, "--out", page, "--unit", "frame"], "a page shows all cells, with the reader's fonts: leave out", 2),
        ([photo, "--out", page, "--reference", ""], "a reference is empty: give a sentence", 1),
        ([photo, "--out", page, "--references", str(tmp_path / "none.json")], "none.json", 1),
        ([str(tmp_path / "text.png"), "--out", page], "text.png", 1),
        ([photo, "--out", str(tmp_path / "p.htm")], "the ending chooses the format; known are", 2),
    ]:
        assert main(["explain", run, *arguments]) == status, arguments
        assert message in one_line(capsys), arguments
    assert [path.name for path in tmp_path.iterdir()] == ["text.png"]
    monkeypatch.setattr(document, "MAX_BYTES", 1000)
    assert main(["explain", run, photo, "--out", page]) == 1
    assert "and a page has at most 0: sample fewer frames with --frames N" in one_line(capsys)


def test_an_empty_caption_and_odd_characters() -> None:
    content = PageContent("", {"file": "\ud800\x00"}, {"maps": {}, "beam": None})
    assert "<i>(empty caption)</i>" in page_text(content) and "\ud800" not in page_text(content)
    assert "There are no references to score the caption against" in page_text(content)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on PATH")
def test_a_browser_steps_through_it(tiny: Path, tmp_path: Path) -> None:
    """By keyboard alone: words, a choice, back; on a phone nothing is wider than the screen; nothing is asked for."""
    photo, out = tiny / "world" / "images" / "000003.png", tmp_path / "page.html"
    command = ["explain", str(tiny / "run"), str(photo), "--out", str(out), "--sentence", "a red circle"]
    assert main([*command, "--reference", "a circle", "--reference", "<b>x"]) == 0

    def press(key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")

    def words() -> list[str]:
        return page.ask("[...document.querySelectorAll('#words button')].map((it) => it.textContent)")

    with chromium(tmp_path / "profile") as page:
        for width, height in ((1200, 900), (390, 844)):
            page.open(out, width, height, "dark" if width < 600 else "light")
            page.ask("new Promise((done) => setTimeout(done, 100))")
            assert words() == ["a", "red", "circle", "(end)"]
            assert "Word 1 of 4: \u201ca\u201d" in page.ask("document.getElementById('status').textContent")
            press("ArrowRight")
            assert "Word 2 of 4: \u201cred\u201d" in page.ask("document.getElementById('status').textContent")
            options = page.ask(
                "[...document.querySelectorAll('#alternatives li > :first-child')].map((it) => it.textContent)"
            )
            other = next(i for i, word in enumerate(options) if word != "red")
            press(str(other + 1))
            assert words()[:2] == ["a", options[other]]
            press("Escape")
            assert words() == ["a", "red", "circle", "(end)"]
            assert page.ask("document.documentElement.scrollWidth") <= width
            assert page.ask("document.querySelectorAll('#tree g').length") > 3
            assert page.ask("document.querySelectorAll('b').length") == 0
        assert page.complaints == [] and {it.split(":")[0] for it in page.requests} == {"file"}
