"""An address (URL) in place of a file is refused as one, wherever a file may stand."""

import json
from pathlib import Path

import pytest

import limner
from limner.apps.cli import main
from limner.core.addresses import address_error
from limner.data.media import MediaError, read_medium
from limner.runs.recipe_file import save_recipe
from tests.training.world import pictures, recipe

ADDRESS = "https://example.com/photo.jpg"
REFUSED = f"{ADDRESS} is an address (URL), not a file: download it first, and give the path of the file"


@pytest.mark.parametrize(
    ("given", "begin"),
    [
        (ADDRESS, REFUSED),
        (Path(ADDRESS), REFUSED),  # Path() leaves one slash
        (Path("media") / ADDRESS, REFUSED),  # an address in a caption file, below the folder of the media
        (f"{ADDRESS}?w=640&h=3", f"{ADDRESS}?w=640&h=3 is an address"),
        ("s3://bucket/clip.mp4", "s3://bucket/clip.mp4 is an address (URL), not a file"),
        ("HTTP://A.B/x", "HTTP://A.B/x is an address (URL), not a file"),
        ("file:///a%20dog.jpg", "file:///a%20dog.jpg is an address (URL): give the path itself, /a dog.jpg"),
        (Path("file:///me/dog.jpg"), "file:///me/dog.jpg is an address (URL): give the path itself, /me/dog.jpg"),
        ("data:image/png;base64,iVBORw0KG", "data:image/png;base64,iVBORw0KG... is the data of a file (a data URL)"),
        *((path, "") for path in ("dog.jpg", "C:/dog.jpg", "C:\\dog.jpg", "10:30 party.mp4", "a: b/c", "/x/y:z", "")),
    ],
)
def test_what_is_an_address(given: str | Path, begin: str):
    found = address_error(given)
    assert found.startswith(begin) and bool(found) is bool(begin)


def test_a_file_that_is_there_is_no_address(tmp_path: Path):
    folder = tmp_path / "https:" / "example.com"
    folder.mkdir(parents=True)
    assert address_error(folder) == "" and address_error(folder / "x").startswith("https://example.com/x is an address")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["caption", ADDRESS], 3),
        (["explain", ADDRESS], 1),
        (["score", "--candidates", ADDRESS, "--references", "r.json"], 1),
        (["score", "--candidates", "c.json", "--references", ADDRESS], 1),
    ],
)
def test_commands(command: list[str], status: int, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps({"1": "a dog"}))
    assert main(command) == status
    assert REFUSED in capsys.readouterr().err


@pytest.mark.parametrize("field", ["data.media", "data.annotations", "data.splits"])
def test_training_data(field: str, tmp_path: Path, capsys):
    save_recipe(recipe(pictures(tmp_path / "data", 4), (field, ADDRESS)), tmp_path / "r.json")
    assert main(["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]) == 1
    assert REFUSED in capsys.readouterr().err
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_a_row_of_a_caption_file(tmp_path: Path, capsys):
    folder = pictures(tmp_path / "data", 4)
    lines = (
        (folder / "captions.jsonl")
        .read_text()
        .replace('"file": "v0.png", "id": "v0"', f'"file": "{ADDRESS}", "id": "v0"')
    )
    (folder / "captions.jsonl").write_text(lines)
    save_recipe(recipe(folder), tmp_path / "r.json")
    main(["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")])
    assert f"problem in the data: v0: {REFUSED}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["caption", "x.jpg", "--model", ADDRESS],
        ["caption", "x.jpg", "--model", ADDRESS, "--engine", "onnx"],
        ["explain", "x.jpg", "--model", ADDRESS],
        ["evaluate", ADDRESS],
        ["export", ADDRESS, "--out", "e"],
        ["pack", ADDRESS, "--out", "e"],
        ["profile", ADDRESS],
        ["compare", ADDRESS, "b"],
        ["train", ADDRESS],
        ["extract", ADDRESS],
        ["convert", ADDRESS, "--from", "xlan", "--word-map", "w.json", "--out", "e"],
    ],
)
def test_models_recipes_and_checkpoints(command: list[str], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.json").write_text("{}")
    assert main(command) == 1
    assert REFUSED in capsys.readouterr().err


def test_python():
    with pytest.raises(MediaError, match="is an address"):
        read_medium("https://example.com/clip.mp4")
    with pytest.raises(ValueError, match="is an address"):
        limner.score(ADDRESS, {"1": ["a dog"]})
