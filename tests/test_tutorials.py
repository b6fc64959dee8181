"""The tutorials: what is stored in the notebooks is complete, and (slow) they run."""

import ast
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
NAMES = ("caption_and_train", "reproduce_and_compare", "what_it_looks_at")
ABSOLUTE = re.compile(r"(?:^|[\s'\"(=:])(/(?:[\w.-]+/)+[\w.-]+|[A-Z]:\\\w+)", re.MULTILINE)


def cells(name: str, kind: str) -> list[dict[str, Any]]:
    """The cells of a notebook, "markdown" or "code"."""
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def python(name: str) -> ast.Module:
    """The Python of a notebook, without commands of the shell and of the notebook."""
    texts = [text for cell in cells(name, "code") if not (text := source(cell)).startswith("%%")]
    return ast.parse(re.sub(r"^%.*$", "", "\n".join(texts), flags=re.MULTILINE), filename=name)


def shown(output: dict[str, Any]) -> str:
    """An output as text."""
    return "".join(output["text"]) if "text" in output else "".join(output["data"].get("text/plain", ""))


def test_every_tutorial_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_has_one_title_at_its_beginning_and_is_small(name: str) -> None:
    titles = [re.findall(r"^# .+$", source(cell), re.MULTILINE) for cell in cells(name, "markdown")]
    assert [len(found) for found in titles] == [1] + [0] * (len(titles) - 1)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_complete_and_clean(name: str) -> None:
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run: make tutorials"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    for output in outputs:
        text = shown(output)
        assert "\x1b" not in text and "\r" not in text, "colours or a progress bar"
        assert ABSOLUTE.findall(text) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_uses_names_and_relative_paths_that_exist(name: str) -> None:
    import limner

    tree = python(name)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "limner"
    }
    assert used and used <= {*limner.__all__, "testing"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("limner"):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], node.module
    assert ABSOLUTE.findall("\n".join(source(cell) for cell in cells(name, "code"))) == []


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_tutorial_lead_to_files(name: str) -> None:
    texts = "\n".join(source(cell) for cell in cells(name, "markdown"))
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", texts) if "://" not in link]
    assert len(links) >= 4
    generated = {"../reference/recipe.md", "../reference/commands.md"}
    assert [link for link in links if link not in generated and not (FOLDER / link).is_file()] == []


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_a_tutorial_have_options_that_exist(name: str) -> None:
    from limner.apps.cli import parser

    lines = [line for cell in cells(name, "code") for line in source(cell).splitlines() if line.startswith("limner ")]
    assert lines
    for line in lines:
        _, unknown = parser().parse_known_args(shlex.split(line)[1:])
        assert unknown == [], line


def test_what_the_test_of_absolute_paths_finds() -> None:
    assert ABSOLUTE.findall("wrote /home/me/run.json") == ["/home/me/run.json"]
    assert ABSOLUTE.findall("PosixPath('/usr/lib')") == ["/usr/lib"]
    assert ABSOLUTE.findall("work/run/model.safetensors, 1/2, https://example.org/a") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few images and one epoch; nothing may be printed that the stored outputs could not have."""
    pytest.importorskip("nbclient")
    monkeypatch.syspath_prepend(str(FOLDER))
    executed = importlib.import_module("execute").execute(FOLDER / f"{name}.ipynb", tmp_path, fast=True)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert ABSOLUTE.findall("\n".join(map(shown, outputs))) == []
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
