"""How many media go through a model together."""

from limner.core.types import Features, Medium
from limner.data.feature_files import FeatureFiles
from limner.runs.inputs import RecipeInputs, feature_paths, uses_feature_files
from limner.runs.recipe import Recipe


def nothing(items) -> Features:
    raise AssertionError("nothing is read")


def test_clips_count_for_their_frames():
    picture, clip = Medium("a", "a.png"), Medium("b", "b.MP4")
    raw = RecipeInputs(None, nothing, frames=28)
    assert (
        raw.media_per_batch([picture]) == 64
        and raw.media_per_batch([picture, clip]) == 2
        and raw.media_per_batch([clip], 20) == 1
    )
    assert RecipeInputs(None, nothing, frames=1).media_per_batch([clip]) == 64
    stored = RecipeInputs(None, nothing, files=FeatureFiles.__new__(FeatureFiles), frames=28)
    assert stored.media_per_batch([clip]) == 64


def test_a_recipe_reads_media_a_store_or_feature_files(tmp_path):
    assert feature_paths(Recipe()) == () and not uses_feature_files(Recipe())
    assert feature_paths(Recipe(features="a")) == ("a",) and not uses_feature_files(Recipe(features="a"))
    assert uses_feature_files(Recipe(features="a.h5")) and uses_feature_files(Recipe(features=("a", "b")))
    (tmp_path / "v.npy").touch()
    assert uses_feature_files(Recipe(features=str(tmp_path)))
