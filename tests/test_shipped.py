"""Without --model: the model inside the package, or one line that says there is none; packed models where runs are."""

import io
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from limner import shipped
from limner.apps.cli import main
from limner.data.datasets import data_parts
from limner.inference.pipeline import Pipeline
from limner.runs.package import pack
from limner.runs.resolve import open_package
from limner.runs.run import load_run


@pytest.fixture
def inside(tiny: Path, tmp_path: Path, monkeypatch) -> Path:
    """A small model in the place of the one that is shipped."""
    folder = pack(load_run(tiny / "run"), tmp_path / "inside" / "limner-small.limner")
    monkeypatch.setattr(shipped, "FOLDER", folder.parent)
    return folder


def test_a_picture_and_nothing_else(tiny: Path, inside: Path, capsys):
    picture = str(tiny / "world" / "images" / "000001.png")
    expected = Pipeline.load(tiny / "run").caption(picture)
    assert main(["caption", picture]) == 0
    assert capsys.readouterr().out.strip() == expected.text
    found = Pipeline.load().caption(picture)
    assert (found.text, found.logprob) == (expected.text, expected.logprob)


def test_the_prompt_without_a_model(tiny: Path, inside: Path, monkeypatch, capsys):
    picture = str(tiny / "world" / "images" / "000001.png")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{picture}\n"))
    assert main(["caption"]) == 0
    assert capsys.readouterr().out.strip() == Pipeline.load(tiny / "run").caption(picture).text


def test_a_build_without_one_says_how_to_make_it(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert main(["caption", "photo.jpg"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("limner: no model is inside this build") and error.count("\n") == 1
    assert "--model RUN" in error and "recipes/limner_small.yaml" in error and str(tmp_path) in error


def test_a_changed_file_is_named_wherever_a_model_is(tiny: Path, inside: Path, tmp_path: Path, capsys):
    picture = str(tiny / "world" / "images" / "000001.png")
    weights = inside / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    out = str(tmp_path / "out")
    for command in (
        ["caption", picture],
        ["caption", picture, "--model", str(inside)],
        ["caption", picture, "--model", str(tiny / "run"), "--with", str(inside)],
        ["explain", str(inside), picture, "--out", f"{out}.png"],
        ["evaluate", str(inside), "--out", out],
    ):
        assert main(command) == 1, command
        assert "model.safetensors is not the file that was packed: its hash differs" in capsys.readouterr().err


def test_a_packed_model_is_taken_where_a_run_is_and_stays_as_it_is(tiny: Path, inside: Path, tmp_path: Path, capsys):
    picture = str(tiny / "world" / "images" / "000001.png")
    before = {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()}
    assert main(["explain", str(inside), picture, "--out", str(tmp_path / "why.png")]) == 0
    given = ["--split", "val", "--limit", "2", "--metrics", "CIDEr", "--data.media", str(tiny / "world")]
    assert main(["evaluate", str(inside), *given]) == 2
    assert "is a packed model, which stays unchanged: give --out DIR for its scores" in capsys.readouterr().err
    assert main(["evaluate", str(inside), *given, "--out", str(tmp_path / "scores")]) == 0
    assert main(["evaluate", str(tiny / "run"), *given, "--out", str(tmp_path / "of the run")]) == 0
    packed, unpacked = (json.loads((tmp_path / it / "captions.json").read_text()) for it in ("scores", "of the run"))
    assert packed == unpacked and len(packed) == 2
    assert {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()} == before
    shutil.copytree(tiny / "run", tmp_path / "run")
    capsys.readouterr()
    assert main(["caption", picture, "--model", str(tmp_path / "run"), "--with", str(inside)]) == 0
    assert capsys.readouterr().out == f"{Pipeline.load(tiny / 'run').caption(picture).text}\n"  # a mean of two equals


def test_no_hub_and_no_folder(tiny: Path, monkeypatch, capsys):
    import huggingface_hub

    def offline(id: str, **_: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    picture = str(tiny / "world" / "images" / "000001.png")
    assert main(["caption", picture, "--model", "owner/name"]) == 1
    error = capsys.readouterr().err
    assert "owner/name is no folder here and could not be fetched from the hub" in error and "offline, give a" in error
    assert main(["caption", picture, "--model", "nowhere"]) == 1
    assert "nowhere is not a run folder" in capsys.readouterr().err


def test_the_model_inside_the_package():
    """limner-small itself: small, whole, with a card that says what it may be used for."""
    folder = open_package(shipped.model())
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 25_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == (Path(__file__).parents[1] / "docs" / "limner-small.md").read_text(encoding="utf-8")
    for said in ("Flickr8k", "licence", "research", "CIDEr", "wrong"):
        assert said in card, said
    photograph = Path(str(find_spec("matplotlib").origin)).parent / "mpl-data/sample_data/grace_hopper.jpg"
    caption = Pipeline.load().caption(photograph)
    assert caption.finished and caption.text.split()[0] == "a"
    parts = data_parts(Pipeline.load().run.recipe.data)
    assert list(parts) == ["flickr8k", "coco5000"]
    assert not any(part.media or part.annotations for part in parts.values())  # nothing of the machine of its training
