"""The recipes of the repository: one variable says where the data are, and an editor knows their fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from limner.data.datasets import data_parts
from limner.encoders import SmallCNNConfig
from limner.objectives import CrossEntropy
from limner.runs.recipe import Recipe, Stage
from limner.runs.recipe_file import load_recipe
from limner.runs.schema import field_comments, recipe_schema
from limner.runs.variables import substitute

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))


def strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict | list):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from strings(item)
    elif isinstance(tree, str):
        yield tree


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_data_and_weights_are_where_two_variables_say(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Other paths are of runs and features, which the commands in the headers make."""
    monkeypatch.delenv("LIMNER_DATA", raising=False)
    monkeypatch.delenv("LIMNER_WEIGHTS", raising=False)
    here = load_recipe(path)
    monkeypatch.setenv("LIMNER_DATA", "/disk/data")
    monkeypatch.setenv("LIMNER_WEIGHTS", "google")
    there = load_recipe(path)
    assert not any(text.startswith(("..", "/")) for text in strings(yaml.safe_load(path.read_text())))
    moved = {"data": "../shared/data/", "weights": "../shared/weights/"}
    for mine, other in zip(data_parts(here.data).values(), data_parts(there.data).values(), strict=True):
        assert other.media == mine.media.replace(moved["data"], "/disk/data/")
        assert other.annotations == mine.annotations.replace(moved["data"], "/disk/data/")
    assert there.encoder.source == here.encoder.source.replace(moved["weights"], "google/")


def test_variables():
    tree = {"a": ["${ONE}/x", "${TWO:-../two}", "${TWO:-}", 3, "$ONE", "${ONE}${ONE}"], "b": {"c": "${THREE}"}}
    environment = {"ONE": "1", "TWO": ""}
    with pytest.raises(ValueError, match=r"^b\.c: the environment variable THREE is not set: .* as in \$\{THREE:-fol"):
        substitute(tree, environment=environment)
    filled = substitute(tree, skip=["b.c"], environment=environment)
    assert filled == {"a": ["1/x", "../two", "", 3, "$ONE", "11"], "b": {"c": "${THREE}"}}


def test_a_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    path = tmp_path / "r.yaml"
    path.write_text("data:\n  media: ${NOWHERE}/images\n")
    with pytest.raises(ValueError, match=r"r\.yaml: data\.media: the environment variable NOWHERE is not set"):
        load_recipe(path)
    assert load_recipe(path, [("data.media", "here")]).data.media == "here"  # what is given instead counts
    monkeypatch.setenv("NOWHERE", "/disk")
    assert load_recipe(path).data.media == "/disk/images"


def test_a_run_keeps_what_was_filled_in(tmp_path: Path):
    """A run's recipe.json is read as it is."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"data": {"media": "${HOME}"}}))
    assert load_recipe(path).data.media == "${HOME}"


def test_the_schema_is_current():
    saved = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(recipe_schema())), "run: python -m limner.runs.schema recipes/schema.json"


def test_every_field_is_in_the_schema():
    schema = recipe_schema()
    assert list(schema["properties"]) == list(Recipe.__dataclass_fields__)
    kinds = {part["properties"]["name"]["const"] for part in schema["$defs"].values() if "name" in part["properties"]
             and "const" in part["properties"]["name"]}  # fmt: skip
    assert {SmallCNNConfig().name, CrossEntropy().name, "show_attend_tell"} <= kinds
    assert (
        "images are resized to this size (pixels)"
        in schema["$defs"]["Stage"]["properties"]["image_size"]["description"]
    )
    assert field_comments(Stage)["batch_size"] == "examples per step on all ranks together"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_name_the_schema_and_keep_to_it(path: Path):
    jsonschema = pytest.importorskip("jsonschema")
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# yaml-language-server: $schema=schema.json"
    validator = jsonschema.Draft202012Validator(recipe_schema())
    tree = yaml.safe_load(text)
    assert not list(validator.iter_errors(tree))
    tree["stages"][0]["learning_rte"] = 1e-3
    assert "learning_rte" in next(validator.iter_errors(tree)).message
