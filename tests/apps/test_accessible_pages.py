"""axe-core finds no fault of accessibility in the pages that commands write, wide and light, narrow and dark."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.data.shapes import generate_world
from limner.watching.preview import PAGE
from tests.apps.test_distill import RECIPE, mixed
from tests.browser import AXE, CHROMIUM, chromium, faults
from tests.comparison.world import BAD, GOOD, data_set, run
from tests.inference.loopback import serving

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


def comparison_of_seeds(tiny: Path, folder: Path) -> Path:
    """The page of `limner compare` for two groups of runs."""
    data, out = data_set(folder / "data"), folder / "seeds.html"
    ours, theirs = [
        [str(run(folder / f"{name}{k}", data, said)) for k, said in enumerate((first, second))]
        for name, first, second in (("a", GOOD, GOOD), ("b", BAD, {**BAD, "y": "two cats"}))
    ]
    arguments = [*ours, "--", *theirs]
    options = ["--tokenizer", "simple", "--bootstrap", "50", "--out", str(out)]
    assert main(["compare", *options, *arguments]) == 0
    return out


def checked(tiny: Path, folder: Path) -> Path:
    """The page of `limner check`: two pictures alike, one that cannot be read, a file without a caption."""
    data = folder / "data"
    data_set(data)
    (data / "copy.png").write_bytes((data / "x.png").read_bytes())
    (data / "bad.png").write_bytes(b"<html>")
    rows = [{"file": f"{name}.png", "id": name, "split": split, "captions": ["a red dog runs", "dog"]}
            for name, split in (("copy", "train"), ("bad", "train"), ("absent", "val"))]  # fmt: skip
    with open(data / "captions.jsonl", "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "check.html"
    assert main(["check", str(data / "captions.jsonl"), "--html", str(out)]) in (0, 3)
    return out


def distilled(tiny: Path, folder: Path) -> Path:
    """The page of `limner distill`: captions of a teacher that are kept and rejected, a student, people's captions."""
    generate_world(folder / "world", 40, seed=1, size=32)
    (folder / "student.yaml").write_text(RECIPE.replace("media: world", f"media: {folder / 'world'}"))
    with serving(mixed) as server:
        arguments = [str(folder / "student.yaml"), "--teacher", f"{server.url}#tiny", "--out", str(folder / "run")]
        assert main(["distill", *arguments]) == 0
    return folder / "run" / "distill.html"


def learning(tiny: Path, folder: Path) -> Path:
    """The page of `limner explain` for a picture, with scores."""
    generate_world(folder / "world", images=1, seed=1, size=32)
    (picture,) = (folder / "world" / "images").iterdir()
    out = folder / "learning.html"
    references = ["--reference", "a red square", "--reference", "a small red square on a table"]
    assert main(["explain", str(tiny / "run"), str(picture), "--out", str(out), *references]) == 0
    return out


def learning_of_a_clip(tiny: Path, folder: Path) -> Path:
    """The page of `limner explain` for a clip."""
    generate_world(folder / "world", images=1, videos=1, seed=1, size=32)
    (clip,) = (folder / "world" / "videos").iterdir()
    out = folder / "learning.html"
    assert main(["explain", str(tiny / "run"), str(clip), "--out", str(out)]) == 0
    return out


def preview(tiny: Path, folder: Path) -> Path:
    """The page of `limner watch --camera 0 --preview http`, without its pictures, which never end."""
    (folder / "preview.html").write_text(PAGE.format(name="camera"))
    return folder / "preview.html"


PAGES = [
    captions,
    evaluation,
    comparison,
    comparison_of_seeds,
    checked,
    distilled,
    learning,
    learning_of_a_clip,
    preview,
]


@pytest.mark.parametrize("make", PAGES)
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
