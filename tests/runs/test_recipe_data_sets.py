"""The field `data` of a recipe as one data set and as a list."""

import json
from pathlib import Path
from typing import Any

import pytest

from limner.data.datasets import DataConfig
from limner.runs.inputs import open_inputs
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe, check_recipe, load_recipe, recipe_differences, save_recipe

TEXT = """
data:
  - {name: flickr8k, annotations: f.json, media: f}
  - {name: coco, label: coco5000, annotations: c.json, media: "${WHERE:-here}/c", share: 0.5, where: {license: [4, A]}}
"""
PARTS = (
    DataConfig("flickr8k", "f", "f.json"),
    DataConfig("coco", "here/c", "c.json", where={"license": (4, "A")}, label="coco5000", share=0.5),
)


def test_a_list_of_data_sets_is_read_and_written(tmp_path: Path):
    (tmp_path / "r.yaml").write_text(TEXT)
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.data == PARTS and recipe == Recipe(data=PARTS)
    save_recipe(recipe, tmp_path / "r.json")
    assert load_recipe(tmp_path / "r.json") == recipe
    changed = load_recipe(tmp_path / "r.json", {"data.1.share": "0.25", "data.0.media": "there"})
    assert recipe_differences(recipe, changed) == ["data.0.media: 'f' -> 'there'", "data.1.share: 0.5 -> 0.25"]


def test_a_recipe_of_an_older_limner_has_one_data_set_without_the_new_fields(tmp_path: Path):
    save_recipe(Recipe(data=DataConfig("csv", "x")), tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text())
    for name in ("where", "label", "share"):
        del saved["data"][name]
    (tmp_path / "old.json").write_text(json.dumps(saved))
    assert load_recipe(tmp_path / "old.json") == Recipe(data=DataConfig("csv", "x"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"media": "a"}, {"media": "b", "name": "csv", "share": 0}], r"data\.1\.share: Input should be greater t"),
        ([{"media": "a", "share": 1.5}], r"data\.0\.share: Input should be less than or equal to 1, got 1\.5"),
        ({"media": "a", "share": -1}, r"data\.share: Input should be greater than 0, got -1"),
        ({"media": "a", "share": float("nan")}, r"data\.share: Input should be less than or equal to 1, got nan"),
        ([{"media": "a"}, {"name": "csv"}], r"data\.1\.media is required: the folder"),
        ([{"media": "a", "shares": 1}], r"data\.0 has no field 'shares'; it has name, media"),
        ([{"media": "a"}, {"media": "b"}], "data: Value error, 2 data sets have the label 'folder': give each a"),
        ({"media": "a", "label": "a/b"}, "data: Value error, the label 'a/b' of a data set cannot stand before ids"),
        ([{"media": "a", "name": "nothing"}], r"data\.0\.name: Value error, unknown dataset 'nothing'"),
        ([{"media": "a", "where": {"license": {}}}], r"data\.0\.where\.license"),
        ([], "data: .* at least 1 item"),
        (["a"], r"data\.0 takes fields, got 'a'"),
        ("a", "data takes fields, got 'a'"),
    ],
)  # fmt: skip
def test_a_wrong_data_set_is_named(data: Any, message: str):
    with pytest.raises(ValueError, match=f"recipe: {message}"):
        build_recipe({"data": data})


def test_a_recipe_from_python_is_checked_too():
    check_recipe(Recipe(data=PARTS))
    with pytest.raises(ValueError, match="2 data sets have the label 'flickr8k'"):
        check_recipe(Recipe(data=(PARTS[0], PARTS[0])))


def test_feature_files_hold_the_ids_of_one_data_set(tmp_path: Path):
    (tmp_path / "f.h5").touch()
    with pytest.raises(
        ValueError, match=r"in this recipe ids begin with a label \(flickr8k/ID\): make one feature store"
    ):
        open_inputs(Recipe(data=PARTS, features=str(tmp_path / "f.h5")))
