"""Runs, packed models, exports and stores that limner 0.1 wrote still open, caption and resume:
tests/fixtures/format1."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from limner.apps.cli import main
from limner.core.migration import FIELDS, TENSORS, migrate, migrate_tensors
from limner.core.tensors import load_tensors
from limner.data.store import FeatureStore
from limner.inference.load import load
from limner.runs.recipe_file import build_recipe, load_recipe
from limner.training.train import train

FORMAT1 = Path(__file__).parents[1] / "fixtures" / "format1"
EXPECTED = json.loads((FORMAT1 / "expected.json").read_text())
RUNS = sorted(EXPECTED)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What limner 0.1 drew for the fixtures; drawing is deterministic."""
    folder = tmp_path_factory.mktemp("format1") / "world"
    assert main(["shapes", "--out", str(folder), "--images", "40", "--size", "32"]) == 0
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_model_of_format_1_gives_the_same_captions(world: Path, name: str) -> None:
    if name == "exported":
        pytest.importorskip("onnxruntime")
    pictures = sorted((world / "images").glob("*.png"))[:6]
    found = [caption for _, caption in load(FORMAT1 / name).captions(pictures)]
    assert [[caption.text, caption.finished] for caption in found] == [[text, end] for text, _, end in EXPECTED[name]]
    assert [caption.logprob for caption in found] == pytest.approx([logp for _, logp, _ in EXPECTED[name]], rel=1e-4)


def test_an_interrupted_run_of_format_1_resumes_to_the_same_bits(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """limner 0.1 trained `distil` in one go, and `interrupted` by the same recipe up to its second epoch."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world, tmp_path / "world")
    for name in ("interrupted", "show_attend_tell"):
        shutil.copytree(FORMAT1 / name, tmp_path / name)
    shutil.copy(FORMAT1 / "told.jsonl", tmp_path)
    train(load_recipe("interrupted/recipe.json"), tmp_path / "interrupted", resume=True)
    resumed, _ = load_tensors(tmp_path / "interrupted" / "model.safetensors")
    expected, _ = load_tensors(FORMAT1 / "distil" / "model.safetensors")
    assert resumed.keys() == expected.keys()
    assert all(torch.allclose(resumed[key], expected[key], rtol=1e-5, atol=1e-7) for key in expected)
    assert json.loads((tmp_path / "interrupted" / "run.json").read_text())["format"] == 3


def test_a_store_of_version_1_is_read() -> None:
    store = FeatureStore(FORMAT1 / "store")
    store.verify()
    assert store.augmentations == ["full", "flip"] and len(store.ids) == 40
    assert store.get(store.ids[0], "full")[0].shape[1] == 8


def test_every_field_of_the_table_is_renamed_once() -> None:
    """A tree that holds the old fields of a place has the new ones there, and migrating again changes nothing."""

    def put(tree: dict, place: list[str], fields: dict) -> None:
        if not place:
            tree.update(fields)
        elif place[0] == "*":
            raise AssertionError("a list is made by its parent")
        elif place[1:2] == ["*"]:
            put(tree.setdefault(place[0], [{}])[0], place[2:], fields)
        else:
            put(tree.setdefault(place[0], {}), place[1:], fields)

    for place, names in FIELDS.items():
        old: dict = {}
        new: dict = {}
        path = place.split(".") if place else []
        put(old, path, {name: f"{place}.{name}" for name in names})
        put(new, path, {after: f"{place}.{before}" for before, after in names.items()})
        assert migrate(old) == new and migrate(new) == new
    assert migrate({"told": {"share": 0.3}}) == {"pseudo_captions": {"probability": 0.3}}
    assert migrate_tensors(dict.fromkeys(TENSORS, 0)) == dict.fromkeys(TENSORS.values(), 0)


@pytest.mark.parametrize(("old", "weight"), [({"teacher": 0.3}, 0.3), ({"T_loss": 3}, 0.3), ({"kl": 0.1}, None)])
def test_the_weight_of_sfts_teacher_is_converted(old: dict, weight: float | None) -> None:
    """`T_loss` counted in tenths, as the published command does."""
    (stage,) = migrate({"stages": [{"objective": {"name": "sft", **old}}]})["stages"]
    assert stage["objective"].get("teacher_weight") == (None if weight is None else pytest.approx(weight))
    assert not stage["objective"].keys() & {"teacher", "T_loss"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("told", {"file": "x"}, "a recipe has no field 'told' ('told' is called 'pseudo_captions' now)"),
        ("stages", [{"rates": {}}], "stages.0 has no field 'rates' ('rates' is called 'lr_scale' now)"),
        ("decoding", {"contest": True}, "decoding has no field 'contest' ('contest' is called 'finished_compete' now)"),
    ],
)
def test_a_recipe_with_an_old_name_gets_an_error_with_the_new_one(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        build_recipe({"data": {"media": "x"}, field: value})
    assert message in str(error.value)
