"""The recipe of `limner init` and the one that is written by hand say the same."""

from pathlib import Path

import pytest

from limner import shipped
from limner.core.torch_free import Medium
from limner.core.untrusted import load_yaml
from limner.data.datasets import DataConfig
from limner.data.new_splits import SplitPlan
from limner.runs.own_recipe import OwnRecipe, count_words, stage_settings, write_own_recipe
from limner.runs.recipe_file import load_recipe

HAND = Path(__file__).parents[2] / "recipes" / "own_data.yaml"


def own(count: int, captions: int, text: str = "a dog runs") -> OwnRecipe:
    media = [Medium(f"{k}.jpg", "", "train", (text,) * captions) for k in range(count)]
    plan = SplitPlan({medium.id: "train" for medium in media}, False, "as the data say")
    words = count_words([caption for medium in media for caption in medium.references], shipped.model())
    data = DataConfig("captions", "my_data/images", "my_data/captions.csv")
    return OwnRecipe("limner init my_data/captions.csv", Path("recipe.yaml"), data, "", plan, media, words)


def test_the_recipe_by_hand_is_the_one_that_is_written_for_some_hundred_images(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(write_own_recipe(own(360, 5)))
    assert load_recipe(tmp_path / "recipe.yaml") == load_recipe(HAND)


@pytest.mark.parametrize(("media", "epochs", "batch_size"), [
    (10, (40, 40), 16),  # 1,800 and 2,800 images are seen, in at most 40 epochs
    (360, (5, 8), 16),
    (6000, (3, 3), 32),
])  # fmt: skip
def test_small_data_take_more_epochs(media: int, epochs: tuple[int, int], batch_size: int):
    stages = stage_settings(media, 5)
    assert tuple(stage.epochs for stage in stages) == epochs
    assert {stage.batch_size for stage in stages} == {batch_size}
    assert [stage.encoder_lr > 0 for stage in stages] == [False, True]


def test_images_with_one_caption_have_one_in_a_step():
    tree = load_yaml(write_own_recipe(own(20, 1)))
    assert [stage["captions_per_medium"] for stage in tree["stages"]] == [1, 1]


@pytest.mark.parametrize(("captions", "count"), [(199, 1), (200, 2), (5000, 3), (20_000, 5)])
def test_rare_words_are_left_out_where_there_are_many_captions(captions: int, count: int):
    assert count_words(["a dog"] * captions, shipped.model()).min_count == count


def test_words_are_those_that_the_model_knows_new_ones_and_rare_ones():
    words = count_words([*["a dog runs"] * 100, *["the qubitron runs"] * 100, "a zorblat"], shipped.model())
    assert (words.found, words.new, words.rare) == (["runs", "a", "dog", "the"], ["qubitron"], 1)


def test_a_captioner_of_characters_is_new_and_its_encoder_is_not():
    tree = load_yaml(write_own_recipe(own(20, 1, "一只黑狗在草地上奔跑")))
    assert "start" not in tree and tree["encoder"]["source"] == shipped.DEFAULT
    assert tree["vocabulary"]["tokenizer"] == "script-runs"
    assert tree["model"]["hidden"] == load_recipe(shipped.model() / "recipe.json").model.hidden == 512  # type: ignore[attr-defined]
