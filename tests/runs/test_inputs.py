"""How many media go through a model together."""

from limner.core.types import Features, Medium
from limner.data.feature_files import FeatureFiles
from limner.runs.inputs import Inputs, feature_paths, reads_files
from limner.runs.recipe import Recipe


def nothing(items) -> Features:
    raise AssertionError("nothing is read")


def test_clips_count_for_their_frames():
    picture, clip = Medium("a", "a.png"), Medium("b", "b.MP4")
    raw = Inputs(None, nothing, frames=28)
    assert raw.together([picture]) == 64 and raw.together([picture, clip]) == 2 and raw.together([clip], 20) == 1
    assert Inputs(None, nothing, frames=1).together([clip]) == 64
    stored = Inputs(None, nothing, files=FeatureFiles.__new__(FeatureFiles), frames=28)
    assert stored.together([clip]) == 64


def test_what_a_recipe_reads(tmp_path):
    assert feature_paths(Recipe()) == () and not reads_files(Recipe())
    assert feature_paths(Recipe(features="a")) == ("a",) and not reads_files(Recipe(features="a"))
    assert reads_files(Recipe(features="a.h5")) and reads_files(Recipe(features=("a", "b")))
    (tmp_path / "v.npy").touch()
    assert reads_files(Recipe(features=str(tmp_path)))
