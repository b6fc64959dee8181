"""The documentation: its navigation and links, the generated pages, and the site that `make docs` builds."""

import ast
import doctest
import html
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS, SOURCE = ROOT / "docs", ROOT / "src" / "limner"
GENERATED = {"reference/recipe.md", "reference/commands.md", "reference/tree.md", "reference/api/index.md"}
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")


def hook(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of docs/hooks."""
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))
    return importlib.import_module(name)


def pages() -> list[str]:
    """Every page that is a file."""
    return [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]


def site_config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def leaves(items: list[Any]) -> list[str]:
    """The pages of a navigation."""
    found = []
    for item in items:
        inner = next(iter(item.values())) if isinstance(item, dict) else item
        found += leaves(inner) if isinstance(inner, list) else [inner]
    return found


def test_the_navigation_lists_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    navigation = hook("navigation", monkeypatch)
    api = [f"reference/api/{package}.md" for package in hook("reference", monkeypatch).PACKAGES]
    notebooks = [path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.rglob("*.ipynb")]
    known = [*pages(), *GENERATED, *api, *notebooks]
    assert sorted(leaves(navigation.expand(site_config()["nav"], known))) == sorted(known)


def test_every_link_between_pages_leads_to_a_page() -> None:
    """Anchors are checked by the build."""
    broken = []
    for page in pages():
        text = re.sub(r"```.*?```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in LINK.findall(text):
            if link.startswith(("https://", "http://", "mailto:", "#")):
                continue
            target = (DOCS / page).parent / link.partition("#")[0]
            place = Path(*target.resolve().relative_to(DOCS.resolve()).parts).as_posix()
            if not target.is_file() and place not in GENERATED and not place.startswith("reference/api/"):
                broken.append(f"{page}: {link}")
    assert not broken


def fences(language: str) -> list[tuple[str, str]]:
    """(page, text) of every code block in a language."""
    block = re.compile(rf"^( *)```{language}\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    found = []
    for page in pages():
        text = (DOCS / page).read_text(encoding="utf-8")
        found += [(page, textwrap.dedent(match[2])) for match in block.finditer(text)]
    return found


def test_commands_in_the_documentation_have_options_that_exist() -> None:
    """A dotted option is a field of a recipe; the recipes in the documentation are asked about those."""
    from limner.apps.cli import parser
    from limner.runs.recipe import Recipe

    arguments, seen = parser(), 0
    for page, text in fences("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            match = re.search(r"(?:^|-m |; do |\| )limner (?!--print-completion)(?:--plugin \w+ )?(\w.*)$", line)
            if not match or match[1].startswith("."):
                continue
            command = match[1].replace("$SLURM_ARRAY_TASK_ID", "1")
            words = shlex.split(command.partition(" ; ")[0].partition("; done")[0], comments=True)
            _, unknown = arguments.parse_known_args(words)
            for word in unknown:
                name = word.removeprefix("--")
                known = "." in name or name in Recipe.__dataclass_fields__ or not word.startswith("--")
                assert known, f"{page}: {line}"
            seen += 1
    assert seen > 60


def test_recipes_in_the_documentation_can_be_read() -> None:
    from limner import shipped
    from limner.runs.recipe import Recipe
    from limner.runs.recipe_file import build_recipe

    read = 0
    for page, text in fences("yaml"):
        tree = yaml.safe_load(text)
        if isinstance(tree, dict) and tree.keys() <= Recipe.__dataclass_fields__.keys() and "mean_gru" not in text:
            given = tree.get("data", {})
            data = given if isinstance(given, list) else {"media": "images", **given}
            start = {"start": shipped.DEFAULT} if "start" in tree else {}  # the reader's run is not here
            build_recipe({**tree, **start, "data": data}, where=f"{page}: {text}")
            read += 1
    assert read >= 8


def test_python_in_the_documentation_is_python_and_names_what_there_is() -> None:
    import limner

    if "load" not in limner.__all__:
        pytest.skip("the documentation describes a newer public API")
    for page, text in fences("python"):
        tree = ast.parse(text, filename=page)
        names = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "limner"
        }
        assert names <= {*limner.__all__, "testing"}, page


def test_every_source_file_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page `source tree` is made of the first lines of docstrings."""
    pytest.importorskip("mkdocs")
    tree = hook("reference", monkeypatch).tree()
    assert [path for path, first in tree if not first] == []
    files = {path for path in SOURCE.rglob("*.py") if path.read_text(encoding="utf-8").strip()}
    assert {SOURCE / path for path, _ in tree} == files


def test_the_layers_of_the_architecture_page_are_those_of_the_import_contract() -> None:
    """A package that only one of the two knows is left out here; that each package is on the page is asked below."""
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[[tool.importlinter.contracts]]")[1]
    layers = ast.literal_eval(contract[contract.index("layers = ") + len("layers = ") :].strip())
    wanted = [{name.strip().removeprefix("limner.") for name in layer.split("|")} for layer in layers]
    rows = re.findall(r"^\| \d+ \| ([^|]+) \|", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    documented = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    known = set().union(*wanted) & set().union(*documented)
    assert [layer & known for layer in documented if layer & known] == [
        layer & known for layer in wanted if layer & known
    ]
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages <= set().union(*documented)


def test_the_api_reference_has_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages - {"api", "apps", "shipped", "testing"} == set(hook("reference", monkeypatch).PACKAGES)


def test_the_recipe_reference_has_every_field_with_type_default_and_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    page = hook("reference", monkeypatch).recipe_page()
    assert "| `label_smoothing` | float in [0, 1) | `0.0` | epsilon," in page
    assert "| `epochs` | int > 0 | `10` | " in page
    assert "| `positions` | " in page and '"gxg" or "g2" or "box"' in page
    assert '`normalise` | "power" or "wu" or "avg" | `power` |' in page
    from limner.runs.recipe import Recipe

    for name in Recipe.__dataclass_fields__:
        assert f"\n| `{name}` | " in page
    assert [row for row in page.splitlines() if row.endswith("|  |")] == [], (
        "comments beside these fields are shown here"
    )
    anchors = re.findall(r"^#+ .*\{#(.+)\}$", page, re.MULTILINE)
    assert len(anchors) == len(set(anchors)) and {"data", "decoding", "model-xlan", "objective-scst"} <= set(anchors)
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(anchors)


def test_the_command_reference_has_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    from limner.apps.cli import COMMANDS

    page = hook("reference", monkeypatch).commands_page()
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == list(COMMANDS)
    assert "--resume" in page and "usage: limner train" in page


def test_the_glossary_has_the_table_of_renamed_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    reference = hook("reference", monkeypatch)
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    assert reference.RENAMED in text
    made = reference.on_page_markdown(text)
    assert "| top level | `told` | `pseudo_captions` |" in made
    assert "| `stages.*` | `average` | `ema_decay` |" in made


def test_a_notebook_becomes_a_page_with_its_stored_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    notebooks = hook("notebooks", monkeypatch)
    cell: dict[str, Any] = {"cell_type": "code", "source": ["1 + 1\n", "print(3)"]}
    cell["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": ["3\n"]},
        {"output_type": "execute_result", "data": {"text/plain": "2", "image/png": "aGVsbG8="}},
    ]
    text, images = notebooks.page({"cells": [{"cell_type": "markdown", "source": "# A"}, cell]}, "first")
    assert text == (
        "# A\n\n```python\n1 + 1\nprint(3)\n```\n\n```text\n3\n```\n\n![Output of the cell above](first_1.png)\n"
    )
    assert images == {"first_1.png": b"hello"}
    cell["outputs"] = [{"output_type": "error", "ename": "KeyError", "evalue": "'x'"}]
    with pytest.raises(ValueError, match=r"first.ipynb holds an error, KeyError: 'x'; run it again"):
        notebooks.page({"cells": [cell]}, "first")


def test_what_a_page_would_fetch_from_another_host_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org">a link may</a><script src="//cdn.example.org/x.js"></script>'
        '<link rel="canonical" href="https://example.org/a"><link rel="stylesheet" href="b.css">'
        '<p style="background: url(https://example.org/p.png)"></p>'
    )
    (tmp_path / "b.css").write_text(
        '@import "https://example.org/f.css"; a { background: url(data:image/png;base64,A) }'
    )
    assert hook("offline", monkeypatch).foreign(tmp_path) == [
        "a.html: //cdn.example.org/x.js",
        "a.html: https://example.org/p.png",
        "b.css: https://example.org/f.css",
    ]


def test_formulas_become_mathml(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("latex2mathml")
    made = hook("mathml", monkeypatch).on_page_content(r'<p><span class="arithmatex">\(a &lt; b\)</span></p>', None)
    assert made.startswith("<p><math") and made.endswith("<mi>b</mi></mrow></math></p>") and "arithmatex" not in made


HOOKS = ("doctests", "mathml", "navigation", "notebooks", "offline", "reference")


@pytest.mark.parametrize("name", HOOKS)
def test_examples_in_the_hooks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocstrings")
    assert sorted(HOOKS) == sorted(path.stem for path in (DOCS / "hooks").glob("*.py"))
    assert doctest.testmod(hook(name, monkeypatch)).failed == 0


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs.  Not with --quiet: mkdocs does not count the warnings that it does not print."""
    assert "$(BIN)/mkdocs build\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n[a](#a) [b](other.md) [c](#nothing)\n")
    config = {**site_config(), "docs_dir": "docs", "nav": ["index.md"], "hooks": [], "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    made = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert made.returncode == 1 and "Aborted with 2 warnings in strict mode" in made.stdout + made.stderr
    assert "link 'other.md'" in made.stderr and "link '#nothing'" in made.stderr


def dead_links(site: Path) -> list[str]:
    """`page: address` of every link, image, script and style of a built site whose file or anchor does not exist."""
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html") if path.name != "404.html"}
    anchors = {path: set(re.findall(r"\bid=\"([^\"]+)\"", text)) for path, text in texts.items()}
    dead = []
    for path, text in texts.items():
        for address in set(re.findall(r"\b(?:href|src)=\"?([^\"\s>]+)", text)):
            if re.match(r"[a-z]+:|//", address):
                continue
            name, _, anchor = html.unescape(address).partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            missing = anchor and target in anchors and unquote(anchor) not in anchors[target] | {"__skip", "__tabbed"}
            if not target.is_file() or missing:
                dead.append(f"{path.relative_to(site)}: {address}")
    return sorted(dead)


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    """Strictly: links, anchors, formulas, docstrings; and no page loads a file from another host (a hook looks)."""
    pytest.importorskip("mkdocs")
    made = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert made.returncode == 0, made.stderr
    assert dead_links((tmp_path / "site").resolve()) == []
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"index.html", "faq.html", "reference/recipe.html", "reference/api/models.html"} <= places
    guide = (tmp_path / "site" / "guides" / "training.html").read_text(encoding="utf-8")
    assert "<math" in guide and "arithmatex" not in guide


def test_every_row_of_the_table_of_inputs_names_tests_that_exist() -> None:
    rows = [
        line for line in (ROOT / "docs/guides/inputs.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    cells = [re.split(r"(?<!\\)\|", row.strip().strip("|")) for row in rows]
    named = [name for cell in cells for name in re.findall(r"`(tests/[^`]+)`", cell[-1])]
    assert len(named) > 100
    missing = []
    for name in named:
        file, _, function = name.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
        if f"def {function.partition('[')[0]}" not in text:
            missing.append(name)
    assert missing == []
