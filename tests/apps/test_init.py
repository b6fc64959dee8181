"""`limner init`: what it prints, and a recipe that trains as it is."""

import csv
from pathlib import Path

import pytest
from PIL import Image

import limner
from limner.apps.cli import main
from limner.data.datasets import read_dataset
from limner.runs.recipe_file import load_recipe

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


def photos(folder: Path, count: int = 12, sides: str = "", split: str = "") -> Path:
    """Pictures of one colour in `photos`, and photos.csv with two captions for each, all in one split."""
    (folder / "photos").mkdir(parents=True)
    with open(folder / "photos.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "text", "split"])
        for place in range(count):
            colour = list(COLOURS)[place % 3]
            Image.new("RGB", (20, 20 + place), COLOURS[colour]).save(folder / "photos" / f"{place}.png")
            table.writerow([f"{place}.png", f"a {colour} wall{sides}", split])
            table.writerow([f"{place}.png", f"the qubitron is {colour}", split])
    return folder


def test_the_recipe_trains_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """From the table to the captions of the test split; the words of the model inside limner and new ones are known."""
    monkeypatch.chdir(photos(tmp_path))
    assert main(["init", "photos.csv"]) == 0
    shown = capsys.readouterr()
    assert "photos.csv: read as captions, media in photos\n" in shown.out
    assert "files     12 images with captions that can be read\n" in shown.out
    assert "captions  24, 2 for a file, 3 to 4 words, 4 in the middle\n" in shown.out
    assert "words     7 that limner-small knows, 1 new: qubitron (10)\n" in shown.out
    assert "next:\n  limner train recipe.yaml\n  limner evaluate runs/recipe --split test\n" in shown.out
    assert shown.err == ""
    recipe = load_recipe("recipe.yaml")
    dataset = read_dataset(recipe.data)
    assert {split: len(dataset.split(split)) for split in ("train", "val", "test")} == {
        "train": 10,
        "val": 1,
        "test": 1,
    }
    assert main(["train", "recipe.yaml", "--stages.0.epochs", "1"]) == 0
    assert main(["evaluate", "runs/recipe", "--split", "test", "--metrics", "BLEU"]) == 0
    run = limner.load("runs/recipe").run
    assert {"qubitron", "dog", *COLOURS} <= set(run.vocabulary.words)  # known words, and the new one
    assert run.recipe.model == limner.load().run.recipe.model


def test_what_exists_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(photos(tmp_path, split="train"))
    Path("recipe.yaml").write_text("mine")
    assert main(["init", "photos.csv"]) == 1
    assert "recipe.yaml exists: give --overwrite" in capsys.readouterr().err
    assert Path("recipe.yaml").read_text() == "mine" and not Path("recipe_splits").exists()
    Path("recipe.yaml").unlink()
    Path("recipe_splits").mkdir()
    Path("recipe_splits/val.txt").write_text("mine")
    assert main(["init", "photos.csv"]) == 1
    assert "recipe_splits/val.txt exists: give --overwrite" in capsys.readouterr().err
    assert main(["init", "photos.csv", "--overwrite"]) == 0
    assert Path("recipe_splits/val.txt").read_text() != "mine"


def test_problems_are_counted_and_the_status_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(photos(tmp_path))
    with open("photos.csv", "a") as file:
        file.write("gone.png,a dog,\n0.png,...,\n")
    Path("photos/1.png").write_bytes(b"no picture")
    Path("photos/13.png").write_bytes(Path("photos/0.png").read_bytes())
    assert main(["init", "photos.csv", "--out", "mine.yml"]) == 3
    shown = capsys.readouterr()
    assert "11 images" in shown.out and Path("mine.yml").is_file()
    for line in (
        "1 file is missing:\n  gone.png: there is no file",
        "1 file cannot be read:",
        "1 file is named by no caption:\n  photos/13.png\n",
        "1 caption is empty\n",
    ):
        assert line in shown.err, line


def test_captions_with_left_and_right_are_not_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(photos(tmp_path, sides=" on the left"))
    assert main(["init", "photos.csv"]) == 0
    assert load_recipe("recipe.yaml").augmentations == ("full", "crop-tl", "crop-br")


def test_captions_without_blanks_are_split_into_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(photos(tmp_path))
    text = Path("photos.csv").read_text().replace("a red wall", "一面红色的墙").replace("a blue wall", "一面蓝色的墙")
    Path("photos.csv").write_text(text, encoding="utf-8")
    assert main(["init", "photos.csv"]) == 0
    assert load_recipe("recipe.yaml").vocabulary.tokenizer == "script-runs"


def test_names_that_yaml_would_misread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder called `yes: #1`, and columns that are named."""
    monkeypatch.chdir(photos(tmp_path / "yes: #1").parent)
    Path("on.csv").write_text(Path("yes: #1/photos.csv").read_text().replace("image,text,", "bild,titel,"))
    given = ["--file-column", "bild", "--caption-column", "titel", "--media", "yes: #1/photos"]
    assert main(["init", "on.csv", *given]) == 0
    data = load_recipe("recipe.yaml").data
    assert (data.annotations, data.media, data.file_column, data.caption_column) == (
        "on.csv",
        "yes: #1/photos",
        "bild",
        "titel",
    )


@pytest.mark.parametrize(("words", "status", "message"), [
    (["photos.csv", "--out", "recipe.json"], 2, "name a file that ends in .yaml"),
    (["nothing.csv"], 1, "there is no file or folder nothing.csv"),
    (["https://example.org/a.csv"], 1, "is an address (URL)"),
    (["photos.csv", "--beam", "3"], 2, "unknown arguments"),
])  # fmt: skip
def test_mistakes(words: list[str], status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(photos(tmp_path))
    assert main(["init", *words]) == status
    assert message in capsys.readouterr().err
    assert not Path("recipe.yaml").exists()
