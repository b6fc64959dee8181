"""`limner train --fields`: every field of a recipe, with the default that it has."""

import pytest

from limner.apps.cli import main
from limner.runs.recipe import Recipe, Stage
from limner.runs.recipe_fields import fields_text, sections


def test_every_field_is_printed_once_with_its_default():
    text = fields_text(Recipe)
    stages = fields_text(Recipe, "stages").splitlines()
    assert stages[0] == "stages.N"
    (lr,) = [line.split() for line in stages if line.startswith("  lr:")]
    assert lr[:2] == ["lr:", str(Stage().lr)]
    titles = [part.splitlines()[0] for part in text.split("\n\n")]
    assert len(titles) == len(set(titles)) == len(sections(Recipe))
    for name in Recipe.__dataclass_fields__:
        assert fields_text(Recipe, "recipe").count(f"\n  {name}:") == 1


@pytest.mark.parametrize(("group", "titles"), [
    ("vocabulary", ["vocabulary"]),
    ("stages.objective", 6),
    ("xe", ["stages.N.objective, name: xe"]),
    ("encoder.tiny", ["encoder, name: tiny"]),
])  # fmt: skip
def test_a_group_is_a_place_or_a_name_there(group: str, titles: list[str] | int):
    found = [part.splitlines()[0] for part in fields_text(Recipe, group).split("\n\n")]
    assert (len(found) if isinstance(titles, int) else found) == titles


def test_lines_are_as_wide_as_the_terminal():
    assert max(map(len, fields_text(Recipe, "stages", 72).splitlines())) <= 72


def test_the_command(capsys):
    assert main(["train", "--fields", "validation"]) == 0
    assert capsys.readouterr().out.startswith("validation\n  metric:                CIDEr")
    assert main(["train", "--fields", "modl"]) == 2
    assert "--fields: no fields are called 'modl'; groups are recipe, data, encoder" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "which recipe? limner train RECIPE.yaml; limner init DATA writes one" in capsys.readouterr().err
