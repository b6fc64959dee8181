"""`limner explain` from end to end: clips, sentences, scores, films of PNG files, mistakes."""

import json
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from limner import shipped
from limner.apps.cli import main
from limner.core.types import Layout
from limner.decode.search import Beam
from limner.explanations.evaluation import score_run
from limner.explanations.maps import METHODS
from limner.inference.pipeline import Pipeline
from limner.runs.package import pack
from limner.runs.run import load_run
from tests.apps.test_cli import one_line
from tests.data.videos import animate, greys, moving, noise, write


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second, which is shown slowly: as 24 frames in 1.6 s."""
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", moving(5))


def frames_of(path: Path) -> int:
    if path.is_dir():
        return len(list(path.glob("*.png")))
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return image.n_frames
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize(
    ("method", "out", "frames"),
    [("attention", "f.mp4", 48), ("gradcam", "f.gif", 24), ("gradcam++", "f.png", 0), ("saliency", "folder", 48)],
)
def test_a_clip_is_explained(tiny: Path, clip: Path, tmp_path: Path, capsys, method: str, out: str, frames: int):
    """Two words; of a film each with 24 frames, in GIF every second one."""
    command = ["explain", str(tiny / "run"), str(clip), "--sentence", "a circle", "--method", method]
    assert main([*command, "--out", str(tmp_path / out)]) == 0
    assert capsys.readouterr() == (f"a circle\nwrote {tmp_path / out}\n", "")
    assert [path.name for path in tmp_path.iterdir()] == [out]
    if frames:
        assert frames_of(tmp_path / out) == frames
        return
    figure = Image.open(tmp_path / out).convert(
        "RGB"
    )  # two rows of four frames, 112 x 149 pixels, in 120 dots per inch
    assert figure.size[0] == pytest.approx((4 * 153 - 4) / 110 * 120 + (0.3 + 0.13 * 6 + 1.1) * 120, abs=2)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_an_animation_is_explained_by_a_film(tiny: Path, tmp_path: Path, monkeypatch, name: str):
    """Two words, each with 24 frames of film; .5 s are shown slowly."""
    animate(tmp_path / name, greys(5, 40))
    monkeypatch.chdir(tmp_path)
    assert main(["explain", str(tiny / "run"), name, "--sentence", "a circle"]) == 0
    assert frames_of(tmp_path / "a-explained.mp4") == 48


def test_a_given_sentence_is_explained(tiny: Path, clip: Path, tmp_path: Path, capsys):
    """Words that the captioner lacks are named; the maps are those of the sentence, not of its own caption."""
    command = ["explain", str(tiny / "run"), str(clip), "--out", str(tmp_path / "f.svg"), "--sentence"]
    assert main([*command, "A red zebra, a quagga and a zebra!"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "a red zebra a quagga and a zebra"
    assert shown.err == "not in the vocabulary, read as the unknown word: zebra, quagga\n"


def test_uniform_maps_are_reported(tiny: Path, clip: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(
        METHODS, "gradcam", lambda model, features, words: torch.zeros(len(words), features.layout.cells)
    )
    command = ["explain", str(tiny / "run"), str(clip), "--method", "gradcam", "--sentence", "a", "--out"]
    assert main([*command, str(tmp_path / "f.png")]) == 0
    assert capsys.readouterr().err == "gradcam is the same everywhere for every word; try another --method\n"


def test_more_frames_and_larger_parts(tiny: Path, clip: Path, tmp_path: Path, monkeypatch):
    """What the method is given: 6 frames together, and parts of them; by consensus, every frame alone."""
    asked = []

    def recorded(model, features, words, **options):
        asked.append((features.layout, options))
        return torch.rand(len(words), features.layout.cells)

    monkeypatch.setitem(METHODS, "saliency", recorded)
    command = ["explain", str(tiny / "run"), str(clip), "--method", "saliency", "--out", str(tmp_path / "f.png")]
    mosaic = ["--clip", "mosaic", "--sentence", "a"]
    assert main([*command, *mosaic, "--frames", "6", "--unit", "1,2,2"]) == 0
    assert main([*command, *mosaic, "--overwrite"]) == 0
    assert asked == [(Layout(6, 4, 4), {"block": Layout(1, 2, 2)}), (Layout(4, 4, 4), {})]
    asked.clear()
    assert main([*command, "--sentence", "a", "--overwrite"]) == 0
    assert asked == [(Layout(1, 4, 4), {})] * 4


def test_damaged_clips_are_explained_or_refused(tiny: Path, clip: Path, tmp_path: Path, capsys):
    """What can be read is explained, and what cannot is said."""
    whole = write(tmp_path / "whole.mkv", noise(40)).read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    command = ["explain", str(tiny / "run"), str(tmp_path / "half.mkv"), "--sentence", "a", "--out"]
    assert main([*command, str(tmp_path / "f.png")]) == 0
    assert "truncated: " in capsys.readouterr().err and (tmp_path / "f.png").is_file()
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert main(["explain", str(tiny / "run"), str(tmp_path / "empty.mp4"), "--out", str(tmp_path / "g.png")]) == 1
    assert "empty.mp4: the file is empty" in one_line(capsys) and not (tmp_path / "g.png").exists()


def test_explanations_are_scored_by_the_command(tiny: Path, tmp_path: Path, capsys):
    out = tmp_path / "s.json"
    command = ["explain", str(tiny / "run"), "--score", "--split", "train", "--beam", "1", "--limit", "3"]
    assert main([*command, "--method", "saliency,attention", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "explanations of 3 media" in shown and shown.index("saliency") < shown.index("attention")
    found = json.loads(out.read_text())
    assert (found["split"], found["media"], found["decoding"]["size"]) == ("train", 3, 1)
    expected = score_run(load_run(tiny / "run"), ["saliency", "attention"], "train", Beam(size=1), 3)
    assert [row["method"] for row in found["methods"]] == ["saliency", "attention"]
    assert found["methods"] == [tally.means() for tally in expected.by_method]


def test_frames_become_a_film(tiny: Path, clip: Path, tmp_path: Path, capsys):
    command = ["explain", str(tiny / "run"), str(clip), "--sentence", "a", "--out", str(tmp_path / "frames")]
    assert main(command) == 0
    assert main(["explain", "--join", str(tmp_path / "frames"), "--out", str(tmp_path / "f.mp4"), "--pace", "6"]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'f.mp4'}: 24 frames\n")
    with av.open(str(tmp_path / "f.mp4")) as film:
        assert film.streams.video[0].average_rate == 6 and len(list(film.decode(video=0))) == 24


def test_without_a_run_it_is_the_shipped_model(tiny: Path, clip: Path, tmp_path: Path, monkeypatch, capsys):
    """As `limner caption` does; with --model another one.  Without --out the explanation is named after the file."""
    pack(load_run(tiny / "run"), tmp_path / "shipped" / "limner-small.limner")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    photo, caption = tiny / "world" / "images" / "000001.png", Pipeline.load(tiny / "run").caption
    assert main(["explain", str(photo)]) == 0
    assert capsys.readouterr().out == f"{caption(photo).text}\nwrote 000001-explained.png\n"
    figure = (tmp_path / "000001-explained.png").read_bytes()
    assert main(["explain", str(photo)]) == 1 and "000001-explained.png exists" in one_line(capsys)
    for arguments in (["--model", str(tiny / "run"), str(photo)], [str(tiny / "run"), str(photo)]):
        assert main(["explain", *arguments, "--overwrite"]) == 0
        assert (tmp_path / "000001-explained.png").read_bytes() == figure
    capsys.readouterr()
    assert main(["explain", str(clip)]) == 0
    assert capsys.readouterr().out == f"{caption(clip).text}\nwrote clip-explained.mp4\n"
    assert frames_of(tmp_path / "clip-explained.mp4") == 24 * len(caption(clip).words)


def test_mistakes_in_explaining(tiny: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, photos = str(tiny / "run"), str(tiny / "world" / "images")
    photo = str(tiny / "world" / "images" / "000000.png")
    for arguments, message, status in [
        (["explain"], "limner explain: name an image or video, or give --score", 2),
        (["explain", run], f"{run}: name an image or video, or give --score", 2),
        (["explain", run, photo, photo, "--out", "f.png"], f"explain takes one file, got {photo} {photo}", 2),
        (["explain", run, photo, "--model", run], f"the model is given twice: {run} and --model {run}", 2),
        (["explain", "hf:" + run, photo], "is a model of transformers: only `limner caption` reads these", 1),
        (["explain", run, photo, "--out", "f.png", "--method", "cam"], "unknown method 'cam'; known are attention", 2),
        (["explain", run, photo, "--method", "attention,gradcam"], "several methods are for --score; give one", 2),
        (["explain", run, photo, "--n-best", "2"], "unknown arguments: --n-best (see --help", 2),
        (["explain", run, photo, "--decoding.n_best", "9"], "a beam of 2 cannot give the 9 best captions", 2),
        (["explain", run, photo, "--out", "f.png", "--sentence", " "], "the sentence ' ' has no word in it", 1),
        (["explain", run, photo, "--out", "f.png", "--unit", "frame"], "--unit is for saliency; attention has a", 2),
        (
            ["explain", run, photo, "--out", "f.png", "--method", "saliency", "--unit", "big"],
            "unit 'big': expected cell, frame, region, or cells",
            2,
        ),
        (
            ["explain", run, photo, "--out", photos],
            "already holds PNG files, which would be mixed with the new ones",
            1,
        ),
        (["explain", run, "--score", "--out", "s.csv"], "s.csv: scores are written as .json", 2),
        (["explain", run, photo, "--score"], "--score reads the run's data: leave out", 2),
        (["explain", "--score"], "--score reads a run's data: name the run", 2),
        (["explain", run, "--score", "--sentence", "a"], "--score explains the run's own captions", 2),
        (["explain", run, "--score", "--method", "cam,attention"], "unknown method 'cam'; known are attention", 2),
        (["explain", run, "--score", "--split", "fold"], "no media in split 'fold'", 1),
        (["explain", "--join", photos, "--out", "f.gif"], "--join needs --out film.mp4", 2),
        (["explain", "--join", photos], "--join needs --out film.mp4", 2),
        (["explain", run, "--join", photos, "--out", "f.mp4"], "--join makes a film of", 2),
        (["explain", "--join", "nowhere", "--out", "f.mp4"], "nowhere holds no .png files", 1),
    ]:
        assert main(arguments) == status, arguments
        assert message in one_line(capsys), arguments
    assert not list(tmp_path.iterdir())
