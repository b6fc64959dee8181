"""The pages of docs/models say what the code does: options and defaults, recipes, commands, names of code."""

import ast
import contextlib
import dataclasses
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from limner.apps.cli import COMMANDS, parser
from limner.apps.convert import REGIONS
from limner.convert import SYSTEMS
from limner.core.registry import defining_package
from limner.encoders import ENCODERS
from limner.models import CAPTIONERS
from limner.objectives import OBJECTIVES
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "models").glob("*.md"))
CONFIGS: dict[str, type] = {
    name: entry.config
    for name, entry in [*CAPTIONERS.items(), *ENCODERS.items()]
    if defining_package(entry) == "limner"
}
CONFIGS |= {f"objective {name}": OBJECTIVES[name] for name in ("recnet_global", "recnet_local", "sft")}
SOURCES = ("models", "objectives", "encoders", "convert")
OTHERS = {"Features.grid", "Features.boxes", "Vocabulary.word2idx"}  # of core, and of a published system
INLINE = re.compile(r"`(limner [a-z-]+ [^`]+)`")


def tables() -> dict[str, dict[str, str]]:
    """`Options of ...` -> {field: default as it is written}."""
    found: dict[str, dict[str, str]] = {}
    for page in PAGES:
        for head, body in re.findall(r"^#+ Options of (.+)\n((?:(?!#).*\n)*)", page.read_text(encoding="utf-8"), re.M):
            name = head.replace("the ", "").replace("`", "")
            assert name not in found, f"{name} has two tables"
            found[name] = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", body, re.M))
    return found


def blocks(kind: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of a language."""
    fenced = re.compile(rf"^```{kind}\n(.*?)^```", re.M | re.S)
    return [(page.name, text) for page in PAGES for text in fenced.findall(page.read_text(encoding="utf-8"))]


def commands() -> list[tuple[str, str]]:
    """(page, command) of all blocks and of what stands between backticks."""
    found = []
    for page, text in blocks("bash"):
        lines = text.replace("\\\n", " ").splitlines()
        found += [(page, line) for line in lines if line.startswith("limner ")]
    for page in PAGES:
        found += [(page.name, line) for line in INLINE.findall(page.read_text(encoding="utf-8")) if "..." not in line]
    return found


def test_every_captioner_and_encoder_has_a_table() -> None:
    assert tables().keys() == CONFIGS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_options_and_defaults(name: str) -> None:
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    fields = {field.name: field for field in dataclasses.fields(CONFIGS[name]) if field.name != "name"}
    written = tables()[name]
    assert list(written) == list(fields)
    for option, text in written.items():
        field = fields[option]
        if field.default is dataclasses.MISSING:
            assert text == "{}", f"{option} has a factory for its default"
        else:
            assert yaml.safe_load(text) == plain(field.default), option


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_recipes_are_valid(page: str, text: str) -> None:
    tree = yaml.safe_load(text)
    recipe = build_recipe({"data": {"media": "."}, **tree}, where=page)
    assert isinstance(recipe, Recipe)
    assert tree.keys() <= {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_understood(page: str, command: str) -> None:
    words = shlex.split(command)[1:]
    assert words[0] in COMMANDS
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, rest = parser([words[0]]).parse_known_args(words)
    except SystemExit:
        pytest.fail(f"{page}: {command}: {said.getvalue()}")
    # what is left are fields of a recipe: --data.media DIR, --model.side teacher
    recipe = {field.name for field in dataclasses.fields(Recipe)}
    assert all(word.lstrip("-").split(".")[0] in recipe for word in rest if word.startswith("--")), (page, rest)


def names_of_code() -> set[str]:
    """Every class, function and method that is defined in the packages that the pages speak of."""
    found = set()
    for package in SOURCES:
        for path in (ROOT / "src" / "limner" / package).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                    found.add(node.name)
                if isinstance(node, ast.ClassDef):
                    inside = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
                    found |= {f"{node.name}.{name}" for name in inside}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = names_of_code()
    named = set(re.findall(r"`([A-Z][a-z]\w*\.[a-z_]\w*)`", text))
    for sentence in re.findall(r"[Cc]ode: (.+?)(?:\.\s|\)|$)", text, re.M):
        named |= {name for name in re.findall(r"`([\w.]+)`", sentence) if not name.endswith(".py")}
    named -= OTHERS
    assert not named - known, f"{page.name} names code that is not there: {sorted(named - known)}"
    for source in re.findall(r"`(src/limner/[\w/]+\.py)`", text):
        assert (ROOT / source).is_file(), source
    for recipe in re.findall(r"`(recipes/\w+\.yaml)`", text):
        assert (ROOT / recipe).is_file(), recipe
    for folder in re.findall(r"`results/([\w/]+)`", text):
        assert (ROOT / "results" / folder).is_dir(), folder


def test_every_system_has_a_converter_row() -> None:
    index = (ROOT / "docs" / "models" / "index.md").read_text(encoding="utf-8")
    table = index[index.index("## Converters") : index.index("## What all")]
    named = {name for row in re.findall(r"^\| (`[^-].*?) \|", table, re.M) for name in re.findall(r"`([\w-]+)`", row)}
    assert named == {*SYSTEMS, *REGIONS}
