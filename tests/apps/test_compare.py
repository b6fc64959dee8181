"""limner compare from end to end, in a real browser, and on the real results where their data set is at hand."""

import json
import os
from pathlib import Path

import pytest

from limner.apps.cli import main
from tests.browser import CHROMIUM, chromium
from tests.comparison.world import BAD, GOOD, data_set, run

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("LIMNER_SHARED", ROOT.parent / "shared"))
ATTACK = "<img src=http://127.0.0.1:9/x.png><script>document.title = 'taken'</script>"


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    data = data_set(tmp_path / "data")
    return [
        str(run(tmp_path / "beam", data, GOOD, beam=3)),
        str(run(tmp_path / "greedy", data, {**BAD, "y": ATTACK})),
    ]


def test_page_json_and_latex(runs: list[str], tmp_path: Path, capsys):
    out = [str(tmp_path / "out" / name) for name in ("c.html", "c.json", "c.tex")]
    options = ["--out", out[0], "--json", out[1], "--latex", out[2], "--tokenizer", "simple"]
    assert main(["compare", *runs, *options, "--bootstrap", "200", "--seed", "3", "--items", "2"]) == 0
    saved = json.loads(Path(out[1]).read_text())
    stored = json.loads((Path(runs[0]) / "scores.json").read_text())
    for name, score in saved["runs"][0]["scores"].items():
        assert score["value"] == pytest.approx(stored["scores"][name])
    assert saved["protocol"]["bootstrap draws"] == 200 and saved["protocol"]["bootstrap seed"] == 3
    page = Path(out[0]).read_text()
    assert page.count("<li class=") == 2 and "data:image/jpeg" in page  # y, z and w differ; two are shown
    assert "beam" in Path(out[2]).read_text()
    shown = capsys.readouterr()
    assert "B − A" in shown.out and "100.0" in shown.out and f"wrote {out[0]}, {out[1]}, {out[2]}" in shown.out
    assert "note: the tokenizer is 'simple' and not PTB" in shown.err
    before = page
    again = ["compare", *runs, *options, "--bootstrap", "200", "--seed", "3", "--items", "2"]
    assert main([*again, "--overwrite"]) == 0
    assert Path(out[0]).read_text() == before  # the same bytes
    for path in map(Path, out):
        assert main(again) == 1
        assert f"{path} exists: give --overwrite to replace it" in capsys.readouterr().err
        path.unlink()


def test_captions_files_with_references(runs: list[str], tmp_path: Path, capsys):
    files = [str(Path(folder) / "captions.json") for folder in runs]
    command = ["compare", *files, "--out", str(tmp_path / "c.html")]
    assert main(command) == 1
    assert "none of the runs has a recipe.json that names a dataset; give --references FILE" in capsys.readouterr().err
    references = ["--references", str(tmp_path / "data" / "captions.jsonl")]
    assert main([*command, *references]) == 0
    assert "3 of 3 items are shown without their image" in capsys.readouterr().err
    assert main([*command, *references, "--media", str(tmp_path / "data"), "--overwrite"]) == 0
    assert "without their image" not in capsys.readouterr().err
    assert (tmp_path / "c.html").read_text().count("data:image/jpeg") == 3


def test_items_that_are_left_out_end_in_status_3(runs: list[str], tmp_path: Path, capsys):
    rows = json.loads((Path(runs[1]) / "captions.json").read_text())
    (Path(runs[1]) / "captions.json").write_text(json.dumps(rows[1:]))
    assert main(["compare", *runs, "--out", str(tmp_path / "c.html")]) == 3
    assert "A: captions that not every run has were left out, 1 id ('x')" in capsys.readouterr().err


def test_mistakes_are_one_line(runs: list[str], tmp_path: Path, capsys):
    out = ["--out", str(tmp_path / "c.html")]
    for arguments, message in (
        ([runs[0]], "a comparison takes 2 to 26 runs, got 1"),
        ([runs[0], runs[0]], "is given twice"),
        ([runs[0], str(tmp_path)], "has no captions.json"),
        ([*runs, "--media", "nowhere"], "--media nowhere is not a folder"),
        ([*runs, "--beam", "3"], "unknown arguments: --beam 3"),
    ):
        assert main(["compare", *arguments, *out]) == (1 if "has no" in message or "folder" in message else 2)
        error = capsys.readouterr().err
        assert error.startswith("limner: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "c.html").exists()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_shows_the_page_and_asks_for_nothing(runs: list[str], tmp_path: Path):
    out = tmp_path / "c.html"
    assert main(["compare", *runs, "--out", str(out)]) == 0
    with chromium(tmp_path / "profile") as tab:
        for width, scheme in ((1200, "light"), (390, "light"), (390, "dark")):
            tab.open(out, width=width, scheme=scheme)
            assert tab.ask("document.title") == "beam and greedy"
            assert tab.ask("document.documentElement.scrollWidth") == width  # nothing sticks out sideways
            heads = tab.ask(
                "[...document.querySelectorAll('#scores tbody th')].map(e => e.firstChild.textContent.trim())"
            )
            assert "CIDEr" in heads and "BLEU\u20114" in heads
            right = "[...document.querySelectorAll('#scores td')].every(e => getComputedStyle(e).textAlign == 'right')"
            assert tab.ask(right)
            assert tab.ask("document.querySelectorAll('.charts svg').length") == 2 * len(tab.ask(FIGURES))
            assert tab.ask("[...document.querySelectorAll('#human thead th')].map(e => e.textContent)") == [
                "one human",
                "A",
                "B",
            ]
            assert tab.ask(DECODED) == [30, 30, 30]
            assert ATTACK in tab.ask("[...document.querySelectorAll('.items p')].map(e => e.textContent).join()")
            assert tab.ask("document.scripts.length") == 0
            dark = tab.ask("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 26)"
            assert dark == (scheme == "dark")
            assert tab.ask(CONTRAST) >= 4.5  # WCAG 2.1 AA
        assert tab.requests == [out.as_uri()] * 3 and tab.complaints == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_the_browser_would_notice(tmp_path: Path):
    """A page that does ask, and complains, is caught by the means of the test above."""
    (tmp_path / "bad.html").write_text("<img src=http://127.0.0.1:9/x.png><script>console.error('no')</script>")
    with chromium(tmp_path / "profile") as tab:
        tab.open(tmp_path / "bad.html")
        assert tab.requests[1:] == ["http://127.0.0.1:9/x.png"] and len(tab.complaints) == 2


FIGURES = "[...document.querySelectorAll('.charts figure')].map(e => 1)"
DECODED = """Promise.all([...document.images].map(e => (e.loading = 'eager', e.decode().then(() => e.naturalWidth))))"""
CONTRAST = """(() => {
  const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const ground = e => { const c = getComputedStyle(e).backgroundColor;
    return c == 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : c; };
  const ink = e => getComputedStyle(e)[e.tagName == 'text' ? 'fill' : 'color'];
  const ratio = e => { const [a, b] = [ink(e), ground(e)].map(light);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); };
  return Math.min(...[...document.querySelectorAll('p, td, th, small, b, li, h1, h2, h3, h4, text')].map(ratio));
})()"""


@pytest.mark.data
@pytest.mark.skipif(not (SHARED / "data" / "flickr8k").is_dir(), reason="no Flickr8k beside the project")
def test_beam_search_against_greedy_on_flickr8k(tmp_path: Path, capsys):
    data = SHARED / "data" / "flickr8k"
    beam = ROOT / "results" / "flickr8k_show_attend_tell"
    command = ["compare", str(beam), str(beam / "greedy"), "--references", str(data / "dataset_flickr8k.json")]
    command += ["--media", str(data / "images")]
    assert main([*command, "--out", str(tmp_path / "c.html"), "--json", str(tmp_path / "c.json")]) == 0
    saved = json.loads((tmp_path / "c.json").read_text())
    assert saved["protocol"]["images"] == 1000 and saved["left_out"] == 0
    for row, folder in zip(saved["runs"], (beam, beam / "greedy"), strict=True):
        stored = json.loads((folder / "scores.json").read_text())["scores"]
        assert {name: stored[name] for name in row["scores"] if name in stored} == pytest.approx(
            {name: score["value"] for name, score in row["scores"].items() if name in stored}
        )
    cider = saved["differences"][0]["scores"]["CIDEr"]
    assert -0.08 < cider["low"] < cider["value"] < cider["high"] < -0.01 and cider["p"] == 1 / 1001
    assert saved["human"]["scores"]["CIDEr"] == pytest.approx(0.789, abs=0.001)
    assert 200_000 < (tmp_path / "c.html").stat().st_size < 10_000_000
    assert "without their image" not in capsys.readouterr().err
