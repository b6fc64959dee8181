"""README.md: it stays short, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#([^)\s]+))?\)")


def relative_links(text: str) -> list[str]:
    """The targets of all links and pictures that are files of the repository."""
    return [target for target, _ in LINK.findall(text) if "://" not in target]


def test_the_readme_stays_short() -> None:
    assert len(README.encode("utf-8")) <= 9_000


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"\nmake {target} " in README
    assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_picture_of_the_readme_exists() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures == ["docs/attention.png", "docs/page.png"]
    assert all((ROOT / picture).is_file() for picture in pictures)
    assert (ROOT / "docs" / "page.png").stat().st_size < 300_000


def test_every_relative_link_of_the_readme_exists() -> None:
    links = relative_links(README)
    assert "docs/experiments/results.md" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_recipes_that_the_readme_names_exist() -> None:
    recipes = re.findall(r"recipes/\w+\.yaml", README)
    assert recipes
    assert [name for name in recipes if not (ROOT / name).is_file()] == []
