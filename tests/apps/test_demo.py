"""The demo from end to end, with a small model in the shipped one's place: photographs, clips, page, figure, film."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner import shipped
from limner.apps.cli import main
from limner.apps.demo import copy_photographs
from limner.apps.shared.journal import finished_rows
from limner.data import photographs
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from limner.data.photographs import slide_show
from limner.inference.pipeline import Pipeline
from limner.runs.package import pack
from limner.runs.run import load_run


@pytest.fixture
def inside(tiny: Path, tmp_path: Path, monkeypatch) -> Path:
    folder = pack(load_run(tiny / "run"), tmp_path / "inside" / "limner-small.limner")
    monkeypatch.setattr(shipped, "FOLDER", folder.parent)
    monkeypatch.setattr(photographs, "FPS", 2)
    return folder


def picture(path: Path, grey: int, size: tuple[int, int] = (40, 24)) -> str:
    Image.fromarray(np.full((size[1], size[0], 3), grey, np.uint8)).save(path)
    return str(path)


def test_photographs_of_packages(tiny: Path, inside: Path, tmp_path: Path, capsys):
    """In a folder where an earlier demo was interrupted."""
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    assert len(photographs.PHOTOGRAPHS) >= 12
    out = tmp_path / "demo"
    out.mkdir()
    (out / "report.html.partial").write_text('{"model": "", "decoding": {}}\n{"file": "x"}\n')
    assert main(["demo", "--out", str(out), "--beam", "2"]) == 0
    said = capsys.readouterr().out
    rows = finished_rows(out / "report.html")
    names = [Path(row["file"]).name for row in rows]
    assert set(photographs.PHOTOGRAPHS) < set(names) and "photographs.mp4" in names and "000000.mp4" in names
    assert Image.open(out / "pictures" / "cat.png").size == (451, 300)  # scikit-image's Chelsea
    assert rows[names.index("cat.png")]["caption"] in said and len(rows[names.index("cat.png")]["others"]) == 1
    assert (out / "explained.png").read_bytes()[:4] == b"\x89PNG"
    assert read_medium(out / "explained.mp4", FrameSampling(2)).shape[0] == 2
    assert f"$ limner caption {out}/pictures/officer.jpg" in said and f"look at {out / 'report.html'}" in said


def test_any_path(tiny: Path, inside: Path, tmp_path: Path, capsys):
    folder, out = tmp_path / "mine", tmp_path / "demo"
    folder.mkdir()
    mine = [picture(folder / "b.png", 10), picture(folder / "c.png", 200)]
    (folder / "a.png").write_text("x")  # is not the one that is explained
    assert main(["demo", str(folder), "--out", str(out), "--beam", "1", "--model", str(tiny / "run")]) == 3
    assert (out / "explained.mp4").is_file() and "a.png: not an image" in capsys.readouterr().err
    rows = {row["file"]: row for row in finished_rows(out / "report.html")}
    expected = Pipeline.load(tiny / "run")
    beam = expected.decoding.__class__(1, expected.decoding.length_penalty, expected.decoding.rules)
    assert [rows[file]["caption"] for file in mine] == [expected.caption(file, beam).text for file in mine]
    assert not (out / "pictures").exists()
    assert main(["demo", str(tmp_path / "*.nothing"), "--out", str(out)]) == 1
    assert "no file matches this pattern" in capsys.readouterr().err


def test_a_clip_shows_each_picture_as_long(tmp_path: Path):
    files = [picture(tmp_path / f"{k}.png", 100 * k, size) for k, size in enumerate(((400, 100), (90, 300), (1, 1)))]
    (tmp_path / "bad.png").write_text("x")
    frames = slide_show([files[0], str(tmp_path / "bad.png"), *files[1:]])
    assert len(frames) == 3 * photographs.FPS * photographs.SECONDS and {frame.shape for frame in frames} == {
        (240, 320, 3)
    }
    assert [int(frame.mean()) for frame in frames[:: photographs.FPS * photographs.SECONDS]] == [0, 100, 200]


def test_a_package_that_is_not_there(tmp_path: Path, monkeypatch, capsys):
    real = photographs.find_spec
    monkeypatch.setattr(photographs, "find_spec", lambda name: None if name in ("skimage", "sklearn") else real(name))
    assert [Path(file).name for file in copy_photographs(tmp_path)] == ["officer.jpg"]
    error = capsys.readouterr().err
    assert error == "the photographs of scikit-image and scikit-learn are missing: pip install 'limner[demo]'\n"
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="there is no photograph to caption"):
        copy_photographs(tmp_path)
