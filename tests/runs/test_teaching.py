"""The data and the recipe of a student: what a teacher is asked about, and what is trained."""

from pathlib import Path

import pytest
from PIL import Image

from limner.data.datasets import DataConfig
from limner.data.shapes import generate_world
from limner.runs.recipe_file import load_recipe
from limner.runs.teaching import TeachingData, plan_teaching, student_recipe, write_plan

STUDENT = "data: {name: folder, media: elsewhere}\nencoder: {name: small_cnn}\nvocabulary: {max_words: 7}\n"


def photos(folder: Path, count: int = 30) -> Path:
    """Images without captions."""
    folder.mkdir()
    for place in range(count):
        Image.new("RGB", (8, 8 + place), (place, 0, 0)).save(folder / f"{place}.png")
    return folder


def recipe_of(student: str, data: TeachingData, changes: tuple = (), captions: dict | None = None):
    return student_recipe(student, data, Path("run/teacher/kept.jsonl"), captions or {}, Path("run"), "limner", changes)


def test_images_without_captions_get_splits_and_the_recipe_of_the_model_inside_limner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The words are those of the teacher; the recipe trains as it is, and its text says so."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    data = plan_teaching("photos", Path("run/teacher/splits"))
    assert len(data.media) == 30 and all(data.split(name) for name in ("train", "val", "test"))
    write_plan(data)
    assert Path("run/teacher/splits/train.txt").is_file() == bool(data.splits)
    captions = {medium.id: ["a qubitron on the left", "two qubitrons"] for medium in data.media}
    recipe, text = recipe_of("small", data, (("stages.0.epochs", "7"),), captions)
    assert recipe.start == "limner-small" and recipe.stages[0].epochs == 7
    assert "1 new" in text or "qubitron" in text
    assert "flip" not in recipe.augmentations  # the captions say left
    assert recipe.pseudo_captions.fill and recipe.pseudo_captions.file == "run/teacher/kept.jsonl"
    (tmp_path / "again.yaml").write_text(text)
    assert load_recipe("again.yaml", {"stages.0.epochs": 7}) == recipe
    early, _ = recipe_of("small", data)  # before there are captions
    assert len(early.stages) == 2


def test_a_recipe_names_the_data_for_another_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    generate_world("world", 30, size=32)
    Path("data.yaml").write_text("data: {name: shapes, media: elsewhere, default_split: train}\n")
    Path("student.yaml").write_text(STUDENT)
    data = plan_teaching("data.yaml", Path("splits"), changes=[("data.media", "world"), ("seed", "3")])
    assert len(data.media) == 30 and data.splits == "" and data.plan.reason == "as the recipe says"
    recipe, text = recipe_of("student.yaml", data, (("data.media", "world"),))
    assert recipe.data == DataConfig("shapes", "world", default_split="train") and text == ""
    assert recipe.vocabulary.max_words == 7 and recipe.pseudo_captions.probability == 0.5
    own, _ = recipe_of("data.yaml", data, (("data.media", "world"), ("pseudo_captions.probability", "0.9")))
    assert own.data == recipe.data and own.pseudo_captions.probability == 0.9


def test_what_cannot_be_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("file,caption\nx.png,a dog\n")
    with pytest.raises(ValueError, match=r"none of its 1 images and clips is there, for example .*x\.png"):
        plan_teaching("a.csv", Path("splits"))
    photos(tmp_path / "two", 2)
    with pytest.raises(ValueError, match="at least 3 are needed"):
        plan_teaching("two", Path("splits"))
    generate_world("world", 30, size=32)
    Path("several.yaml").write_text("data: [{name: shapes, media: world}]\n")
    with pytest.raises(ValueError, match="has several data sets, and the student small takes one"):
        recipe_of("small", plan_teaching("several.yaml", Path("splits")))
