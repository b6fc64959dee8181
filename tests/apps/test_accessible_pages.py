"""axe-core finds no fault of accessibility in the pages that commands write, wide and light, narrow and dark."""

from collections.abc import Callable
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.data.shapes import generate_world
from tests.browser import AXE, CHROMIUM, chromium, faults
from tests.comparison.world import BAD, GOOD, data_set, run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium"),
    pytest.mark.skipif(not AXE.is_file(), reason="no axe-core; make browser installs it from npm"),
]


def captions(tiny: Path, folder: Path) -> Path:
    """The page of `limner caption`, which is that of `limner demo` too: images, a clip, a bad file."""
    generate_world(folder / "world", images=2, videos=1, seed=1)
    bad = folder / "bad.jpg"
    bad.write_text("<html>")
    arguments = [str(folder / "world" / "images"), str(folder / "world" / "videos"), str(bad)]
    out = folder / "captions.html"
    assert main(["caption", *arguments, "--model", str(tiny / "run"), "--n-best", "2", "--out", str(out)]) == 3
    return out


def evaluation(tiny: Path, folder: Path) -> Path:
    """The page of `limner evaluate`, with scores and references."""
    out = folder / "evaluation.html"
    assert (
        main(["evaluate", str(tiny / "run"), "--split", "val", "--report", str(out), "--out", str(folder / "e")]) == 0
    )
    return out


def comparison(tiny: Path, folder: Path) -> Path:
    """The page of `limner compare`."""
    data, out = data_set(folder / "data"), folder / "comparison.html"
    runs = [str(run(folder / "beam", data, GOOD, beam=3)), str(run(folder / "greedy", data, BAD))]
    assert main(["compare", *runs, "--tokenizer", "simple", "--bootstrap", "50", "--out", str(out)]) == 0
    return out


def learning(tiny: Path, folder: Path) -> Path:
    """The page of `limner explain`."""
    generate_world(folder / "world", images=1, seed=1, size=32)
    (picture,) = (folder / "world" / "images").iterdir()
    out = folder / "learning.html"
    assert main(["explain", str(tiny / "run"), str(picture), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("make", [captions, evaluation, comparison, learning])
def test_axe_finds_no_fault(make: Callable[[Path, Path], Path], tiny: Path, tmp_path: Path):
    page = make(tiny, tmp_path)
    with chromium(tmp_path / "profile") as tab:
        for width, scheme in ((1200, "light"), (360, "dark")):
            tab.open(page, width=width, scheme=scheme)
            assert faults(tab) == []


def test_axe_would_find_faults(tmp_path: Path):
    """A page with an unlabelled field and pale text has both named."""
    (tmp_path / "bad.html").write_text("<title>x</title><input><p style='color: #ddd; background: #fff'>pale</p>")
    with chromium(tmp_path / "profile") as tab:
        tab.open(tmp_path / "bad.html")
        found = " ".join(faults(tab))
    assert "critical label" in found and "serious color-contrast" in found
