"""Recipes: what is written is what is run, and a slip of the pen is an error that helps."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from limner.data.datasets import DataConfig
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import PretrainedConfig, SmallCNNConfig
from limner.runs.overrides import override
from limner.runs.recipe import Recipe, Schedule, Stage
from limner.runs.recipe_file import build_recipe, check_recipe, load_recipe, save_recipe

TEXT = """
data: {name: csv, annotations: a.csv, media: pictures}
encoder: {name: pretrained, source: weights/x, trainable_from: -2}
augmentations: [full, flip]
model: {name: show_attend_tell, hidden: 64, project: 32}
stages:
  - {objective: {name: xe, label_smoothing: 0.1}, epochs: 3, lr: 6.0e-4}
  - {lr: 1e-4, schedule: {name: cosine, warmup: 0.1}, clip_norm: null}
decoding: {size: 3, rules: {max_length: 25}}
seed: 7
"""
SHIPPED = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text(TEXT)
    return tmp_path / "r.yaml"


def test_fields_of_a_file_reach_the_recipe(file: Path):
    recipe = load_recipe(file)
    assert recipe.data.name == "csv" and recipe.encoder == PretrainedConfig("pretrained", "weights/x", -2)
    assert recipe.augmentations == ("full", "flip") and (recipe.model.hidden, recipe.model.project) == (64, 32)
    assert [stage.lr for stage in recipe.stages] == [6e-4, 1e-4]  # YAML reads 1e-4 as text
    assert recipe.stages[0].objective.label_smoothing == 0.1 and recipe.stages[1].clip_norm is None
    assert recipe.stages[1].schedule.name == "cosine" and recipe.stages[1].epochs == Stage().epochs
    assert recipe.decoding.rules.max_length == 25 and recipe.decoding.rules.min_length == 1


def test_yaml_to_json_and_back(file: Path, tmp_path: Path):
    recipe = load_recipe(file)
    save_recipe(recipe, tmp_path / "r.json")
    assert load_recipe(tmp_path / "r.json") == recipe
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(yaml.safe_load((tmp_path / "r.json").read_text())))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_an_empty_recipe_is_the_default(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"empty\.yaml: data\.media is required: the folder"):
        load_recipe(tmp_path / "empty.yaml")
    with pytest.raises(ValueError, match=r"recipe: data\.media is required"):
        build_recipe({"data": {"name": "csv"}})
    (tmp_path / "empty.yaml").write_text("data: {media: x}\n")
    assert load_recipe(tmp_path / "empty.yaml") == replace(Recipe(), data=DataConfig(media="x"))
    assert Recipe().encoder == SmallCNNConfig() and len(Recipe().stages) == 1


def test_overrides_change_single_fields(file: Path):
    given = [
        ("stages.0.lr", "1e-5"),
        ("stages.-1.objective.doubly_stochastic", "1"),
        ("data.restval", "false"),
        ("augmentations", "[full]"),
        ("encoder", "{name: small_cnn, size: 32}"),
        ("model.project", "null"),
        ("seed", "3"),
    ]
    recipe = load_recipe(file, given)
    assert recipe.stages[0].lr == 1e-5 and recipe.stages[0].epochs == 3  # the rest of the stage stays
    assert recipe.stages[1].objective.doubly_stochastic == 1.0 and recipe.stages[0].objective.doubly_stochastic == 0
    assert (
        recipe.data.restval is False and recipe.augmentations == ("full",) and recipe.encoder == SmallCNNConfig(size=32)
    )
    assert recipe.model.project is None and recipe.seed == 3
    assert load_recipe(file).seed == 7


def test_overrides_change_fields_that_the_file_leaves_out():
    tree = {"data": {"media": "x"}}
    given = [
        ("stages.0.epochs", "1"),
        ("stages.0.schedule.name", "cosine"),
        ("encoder.size", "32"),
        ("augmentations.0", "flip"),
        ("decoding.rules.max_length", "9"),
        ("features", ""),
    ]
    expected = replace(
        Recipe(),
        data=DataConfig(media="x"),
        stages=(replace(Stage(), epochs=1, schedule=Schedule("cosine")),),
        encoder=SmallCNNConfig(size=32),
        augmentations=("flip",),
        decoding=Beam(rules=Rules(max_length=9)),
    )
    assert build_recipe(tree, given) == expected
    other = build_recipe(tree, [("encoder.name", "pretrained"), ("encoder.source", "w")])
    assert other.encoder == PretrainedConfig(source="w")  # and nothing of the default encoder
    assert build_recipe({**tree, "features": "store"}, [("features", "")]).features == ""
    assert build_recipe({**tree, "stages": [{"lr": 1.0}, {"lr": 2.0}]}, [("stages.1.epochs", "3")]).stages[1].lr == 2.0
    with pytest.raises(ValueError, match=r"stages\.1\.lr: the list has items 0 to 0, got '1'"):
        build_recipe(tree, [("stages.1.lr", "1")])


IMPOSSIBLE = [
    *(
        (f"stages.0.{name}", "0")
        for name in ("epochs", "batch_size", "accumulate", "captions_per_medium", "patience", "lr")
    ),
    *((f"stages.0.{name}", "-1") for name in ("weight_decay", "encoder_lr", "clip_norm", "clip_value")),
    *((f"stages.0.{name}", "1") for name in ("ema_decay", "objective.label_smoothing")),
    *(("stages.0.lr", value) for value in (".nan", ".inf")),
    ("stages.0.objective.doubly_stochastic", "-1"),
    ("stages.0.schedule.warmup", "1.5"),
    ("stages.0.schedule.factor", "0"),
    ("stages.0.schedule.patience", "0"),
    *((f"validation.{name}", "0") for name in ("every", "beam", "limit")),
    *((f"model.{name}", "0") for name in ("hidden", "embed", "attention", "project")),
    *((f"model.{name}", "1") for name in ("dropout", "word_dropout", "cell_dropout")),
    *((f"vocabulary.{name}", "0") for name in ("min_count", "max_words")),
    *((name, "0") for name in ("frames", "checkpoint_steps")),
    *((name, "[]") for name in ("stages", "augmentations")),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_invalid_numbers_are_named(file: Path, name: str, value: str):
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}: {re.escape(name)}: .* got "):
        load_recipe(file, [(name, value)])


def test_a_recipe_built_in_python_is_checked_as_well():
    fine = replace(Recipe(), data=DataConfig(media="x"))
    check_recipe(fine)
    with pytest.raises(ValueError, match=r"stages\.0\.epochs: .*greater than 0, got 0"):
        check_recipe(replace(fine, stages=(replace(Stage(), epochs=0),)))


def test_overrides_do_not_change_the_original():
    tree = {"a": [{"b": 1}, {"b": 2}]}
    assert override(tree, ["a", "1", "b"], 5, "a.1.b") == {"a": [{"b": 1}, {"b": 5}]}
    assert override(tree, ["c", "d"], 5, "c.d") == {**tree, "c": {"d": 5}}
    assert tree == {"a": [{"b": 1}, {"b": 2}]}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sed", "1", r"a recipe has no field 'sed'; it has data, encoder, features, .*, seed"),
        ("data.medai", "x", r"data has no field 'medai'; it has name, media, annotations"),
        ("encoder.size", "64", r"encoder has no field 'size'; it has name, source, trainable_from"),
        ("model.hiden", "64", r"model has no field 'hiden'; it has name, hidden, embed"),
        ("stages.0.learning_rte", "1", r"stages\.0 has no field 'learning_rte'; it has objective, epochs, .*\blr\b"),
        ("stages.1.schedule.warm", "1", r"stages\.1\.schedule has no field 'warm'; it has name, warmup, factor"),
        ("stages.0.objective.smoothing", "1", r"stages\.0\.objective has no field 'smoothing'; it has name, label_"),
        ("decoding.rules.max", "9", r"decoding\.rules has no field 'max'; it has min_length, max_length"),
        ("stages.2.lr", "1", r"stages\.2\.lr: the list has items 0 to 1, got '2'"),
        ("stages.lr", "1", r"stages\.lr: the list has items 0 to 1, got 'lr'"),
        ("seed.x", "1", r"seed\.x: 'x' is below a plain value, 7"),
        ("data", "x", r"data takes fields, got 'x'"),
        ("encoder.name", "resnet99", r"encoder\.name is 'resnet99'; known are pretrained, .*small_cnn"),
        ("model.name", "gpt", r"model\.name is 'gpt'; known are show_attend_tell, .*first_token"),
        ("data.name", "imagenet", r"data\.name: .*unknown dataset 'imagenet'; known are captions, coco, flickr8k"),
        ("stages.0.objective.name", "mse", r"objective\.name is 'mse'; known are xe, recnet_global"),
        ("stages.0.lr", "fast", r"stages\.0\.lr: .*valid number.*got 'fast'"),
        ("stages.0.epochs", "2.5", r"stages\.0\.epochs: .*integer.*got 2\.5"),
        ("seed", "[1]", r"seed: .*integer"),
        ("augmentations", "full", r"augmentations: .*tuple.*got 'full'"),
        ("decoding.size", "0", "a beam has at least one hypothesis, got size 0"),
        ("decoding.rules.min_length", "30", "expected 0 <= min_length < max_length, got min_length 30, max_length 25"),
        ("augmentations", "[full, flop]", r"augmentations\.1: .*known augmentations are full, flip, .*got 'flop'"),
        ("data.media", "@x", "--data.media @x: not a YAML value"),
    ],
)
def test_misspelt_fields_give_helpful_errors(file: Path, name: str, value: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe(file, [(name, value)])
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{file}: ")


def test_mistakes_in_the_file_give_helpful_errors(tmp_path: Path):
    for text, message in [
        ("stages: [{optimiser: adam}]", r"stages\.0 has no field 'optimiser'; .*optimizer"),
        ("- a\n- b\n", r"a recipe takes fields, got \['a', 'b'\]"),
        ("seed: 1\ndata: {name: csv\n", r"bad\.yaml is not YAML \(line 3\): expected ',' or '}'"),
        ("seed: \x07", r"bad\.yaml is not YAML: .*special characters"),
    ]:
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            load_recipe(tmp_path / "bad.yaml")
        assert "\n" not in str(caught.value) and "bad.yaml" in str(caught.value)
    (tmp_path / "bad.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(ValueError, match=r"bad\.yaml is not YAML: 'utf-8' codec"):
        load_recipe(tmp_path / "bad.yaml")
    with pytest.raises(FileNotFoundError, match=r"no recipe at .*nowhere\.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path, tmp_path: Path):
    recipe = load_recipe(path)
    save_recipe(recipe, tmp_path / "r.json")
    assert load_recipe(tmp_path / "r.json") == recipe
    assert path.read_text().startswith("#"), "the comment on top says what it is"


@pytest.mark.parametrize("probability", [-0.1, 1.1, "much"])
def test_pseudo_captions_replace_captions_with_a_probability(file: Path, probability):
    overrides = [("pseudo_captions.file", "teacher.jsonl"), ("pseudo_captions.probability", "0.25")]
    pseudo = load_recipe(file, overrides).pseudo_captions
    assert (pseudo.file, pseudo.probability) == ("teacher.jsonl", 0.25)
    with pytest.raises(ValueError, match=r"pseudo_captions\.probability: Input should be"):
        load_recipe(file, [("pseudo_captions.probability", str(probability))])
